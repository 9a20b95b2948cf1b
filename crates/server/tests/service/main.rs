//! The service as a whole: who may do what, and what it does on real servers for real clients.

mod authorization;
mod described;
mod live;
mod signing_in;
mod databases;
mod restarts;
mod long_term;
mod retention;
mod support;
