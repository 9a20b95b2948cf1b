//! Any stored summary, its checksum made right, is read or refused; what is read is stored the same way again.
#![no_main]
#![allow(dead_code, reason = "each target uses one entry")]

#[path = "../entries/mod.rs"]
mod entries;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    entries::summary::run(data);
});
