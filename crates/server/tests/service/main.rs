//! The service as a whole: who may do what, and what it does on real servers for real clients.

mod authorization;
mod identity;
mod live;
mod rebuilt;
mod shared;
mod support;
