//! The service as a whole: who may do what, and what it does on real servers for real clients.

mod authorization;
mod databases;
mod live;
mod restarts;
mod support;
