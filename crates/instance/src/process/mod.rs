//! Servers as processes: finding PostgreSQL's programs, starting a server on a restored data directory,
//! waiting for it, and stopping it.
//!
//! The server is a child of ours, run directly and not by `pg_ctl`, so that its end is seen at once.

mod account;
mod binaries;
mod cage;
mod error;
mod log;
mod options;
mod server;
mod single_user;
mod stop;

pub use account::{Account, AccountError};
pub use binaries::{BinariesError, PgBinaries};
pub use cage::{CageError, check_socket_path};
pub use error::ProcessError;
pub use options::{OnDrop, RecoverySignal, StartOptions};
pub use server::{Milestone, ServerProcess, start_for_recovery};
pub use single_user::run_single_user;
pub use stop::{StopMode, stop_running};
