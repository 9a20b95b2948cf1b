//! Any page image is unpacked or refused.
#![no_main]

use everpoint_pgformat::{
    ids::BLOCK_SIZE,
    page,
    wal::block::{ImageCompression, PageImage},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some(([method, offset0, offset1, length0, length1], bytes)) = data.split_first_chunk()
    else {
        return;
    };
    let image = PageImage {
        bytes,
        hole_offset: u16::from_le_bytes([*offset0, *offset1]),
        hole_length: u16::from_le_bytes([*length0, *length1]),
        compression: match method % 4 {
            0 => None,
            1 => Some(ImageCompression::Pglz),
            2 => Some(ImageCompression::Lz4),
            _ => Some(ImageCompression::Zstd),
        },
        applied: true,
    };
    let mut page = [0; BLOCK_SIZE];
    if image.restore(&mut page).is_ok() {
        page::rows(&page).for_each(drop);
    }
});
