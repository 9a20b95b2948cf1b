//! Any page image is unpacked or refused.
#![no_main]
#![allow(dead_code, reason = "each target uses one entry")]

#[path = "../entries/mod.rs"]
mod entries;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    entries::image::run(data);
});
