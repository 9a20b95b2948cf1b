//! Write-ahead log: segments, pages, records.
//!
//! Bytes go into a [`decoder::WalDecoder`], [`record::Record`]s come out. What a record means is told by
//! the module of its resource manager: [`xlog`], [`transaction`], [`storage`], [`database`],
//! [`tablespace`], [`relation_map`], [`heap`]. Records of other resource managers matter only for the
//! blocks they refer to. [`filter`] takes records of some databases out of log that is to be replayed.

pub mod block;
mod crc;
pub mod database;
pub mod decoder;
pub mod error;
pub mod filter;
pub mod heap;
pub mod image;
pub mod page;
pub mod payload;
pub mod record;
pub mod relation_map;
pub mod resource_manager;
pub mod segment;
pub mod storage;
pub mod tablespace;
pub mod transaction;
pub mod xlog;

pub use crc::crc32c;
