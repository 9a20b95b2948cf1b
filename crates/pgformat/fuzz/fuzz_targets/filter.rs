//! Any bytes as log, cut anywhere, are filtered or refused, keep their length, and come out the same in one
//! piece.
#![no_main]
#![allow(dead_code, reason = "each target uses one entry")]

#[path = "../entries/mod.rs"]
mod entries;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    entries::filter::run(data);
});
