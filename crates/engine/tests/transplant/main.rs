//! Moving a database into a running server, on real servers.
#![allow(clippy::unwrap_used, reason = "tests")]

mod copy;
mod files;
mod interrupted;
mod refused;
mod replace;
mod replicated;
mod support;
mod table;
