//! Any page image is unpacked or refused.

use everpoint_pgformat::{
    ids::BLOCK_SIZE,
    page,
    wal::block::{ImageCompression, PageImage},
};

/// How many rows the page has, and one for the page.
pub(crate) fn run(data: &[u8]) -> usize {
    let Some(([method, offset0, offset1, length0, length1], bytes)) = data.split_first_chunk()
    else {
        return 0;
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
    match image.restore(&mut page) {
        Ok(()) => 1 + page::rows(&page).count(),
        Err(_) => 0,
    }
}
