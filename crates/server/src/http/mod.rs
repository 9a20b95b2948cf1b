//! HTTP: connections with limits, the table of routes, requests and answers as values.

mod answer;
mod limit;
mod listener;
pub mod openapi;
mod path;
mod routes;
pub mod tls;

pub use answer::Answer;
pub use limit::RateLimit;
pub use listener::{ListenError, bind, serve};
pub use path::{Parameters, decoded_segments, query_pairs};
pub use routes::{Endpoint, Method, Missing, Need, ROUTES, Route, find};
