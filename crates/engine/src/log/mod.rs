//! Log backups: write-ahead log received or pushed, cut, stored, and read back.

mod calls;
pub mod cut;
pub mod push;
mod reach;
pub mod reader;
pub mod receive;

pub use reach::end_of;
