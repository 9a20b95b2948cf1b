//! The data directory: what it holds, whose it is, and whether a server runs on it.

mod control;
mod exclusion;
mod listing;
mod postmaster;
mod scan;
mod space;

pub use control::{ReadControlError, control_file};
pub use listing::{DirectoryEntry, FileEntry, Listing, Oddity, OddityKind, TablespaceEntry};
pub use postmaster::{PostmasterFile, PostmasterState, Running, is_running, running};
pub use scan::{ScanError, scan};
pub use space::{Space, space};
