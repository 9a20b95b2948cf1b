//! Log backups: write-ahead log received or pushed, cut, stored, and read back.

pub mod cut;
pub mod push;
pub mod reader;
pub mod receive;
