//! The service as a whole: who may do what, and what it does on real servers for real clients.

mod authorization;
mod databases;
mod described;
mod identity;
mod live;
mod long_term;
mod presence;
mod rebuilt;
mod resisting;
mod restarts;
mod retention;
mod shared;
mod signing_in;
mod subscriptions;
mod support;
