//! Any contents of records, their checksums made right, are summarised or refused; a summary made of them
//! survives storing and cutting.
#![no_main]
#![allow(dead_code, reason = "each target uses one entry")]

#[path = "../entries/mod.rs"]
mod entries;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    entries::records::run(data);
});
