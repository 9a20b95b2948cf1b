//! Compression, hashes, ciphers and page checksums, in one thread.

use std::hint::black_box;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use everpoint_pgformat::{BlockNumber, ids::BLOCK_SIZE, page};
use zstd::{
    bulk::{Compressor, Decompressor},
    zstd_safe::{CParameter, Strategy, compress_bound},
};

use crate::{Outcome, sample::Sample, timed};

/// A zstd setting to try: a level, and what is set beside it.
struct Setting {
    name: &'static str,
    level: i32,
    parameters: Vec<CParameter>,
}

fn setting(name: &'static str, level: i32, parameters: &[CParameter]) -> Setting {
    Setting {
        name,
        level,
        parameters: parameters.to_vec(),
    }
}

fn settings() -> Vec<Setting> {
    use CParameter::{HashLog, MinMatch, SearchLog, TargetLength, WindowLog};
    let strategy = CParameter::Strategy;
    vec![
        setting("1", 1, &[]),
        setting("1, hashLog 11", 1, &[HashLog(11)]),
        setting("1, hashLog 12", 1, &[HashLog(12)]),
        setting("1, hashLog 13", 1, &[HashLog(13)]),
        setting("1, hashLog 14", 1, &[HashLog(14)]),
        setting("1, hashLog 15", 1, &[HashLog(15)]),
        setting("1, hashLog 16", 1, &[HashLog(16)]),
        setting("1, hashLog 17", 1, &[HashLog(17)]),
        setting("1, minMatch 4", 1, &[MinMatch(4)]),
        setting("1, minMatch 5", 1, &[MinMatch(5)]),
        setting("1, minMatch 6", 1, &[MinMatch(6)]),
        setting("1, minMatch 7", 1, &[MinMatch(7)]),
        setting("1, windowLog 16", 1, &[WindowLog(16)]),
        setting("1, windowLog 17", 1, &[WindowLog(17)]),
        setting("1, targetLength 1", 1, &[TargetLength(1)]),
        setting("1, minMatch 5, hashLog 15", 1, &[MinMatch(5), HashLog(15)]),
        setting("1, minMatch 6, hashLog 13", 1, &[MinMatch(6), HashLog(13)]),
        setting("1, minMatch 6, hashLog 15", 1, &[MinMatch(6), HashLog(15)]),
        setting("1, dfast", 1, &[strategy(Strategy::ZSTD_dfast)]),
        setting(
            "1, greedy",
            1,
            &[strategy(Strategy::ZSTD_greedy), SearchLog(1)],
        ),
        setting("-1", -1, &[]),
        setting("-2", -2, &[]),
        setting("-4", -4, &[]),
        setting("2", 2, &[]),
        setting("3", 3, &[]),
    ]
}

pub(crate) fn measure(sample: &Sample) -> Outcome {
    let total: u64 = sample.iter().map(|piece| piece.len() as u64).sum();
    for frame in [64 << 10, 128 << 10, 256 << 10, 512 << 10, 1 << 20] {
        compress(sample, total, frame, &setting("1", 1, &[]))?;
    }
    for frame in [128 << 10, 256 << 10, 512 << 10] {
        for setting in settings() {
            compress(sample, total, frame, &setting)?;
        }
    }
    hash(sample, total);
    encrypt(sample, total)?;
    check_pages(sample, total);
    Ok(())
}

fn compress(sample: &Sample, total: u64, frame: usize, setting: &Setting) -> Outcome {
    let mut compressor = Compressor::new(setting.level)?;
    compressor.set_parameter(CParameter::ContentSizeFlag(true))?;
    for parameter in &setting.parameters {
        compressor.set_parameter(*parameter)?;
    }
    let mut frames = Vec::with_capacity(sample.len());
    let mut out = vec![0; compress_bound(frame)];
    let (result, took) = timed(|| -> std::io::Result<u64> {
        let mut stored = 0;
        for contents in sample.iter().flat_map(|piece| piece.chunks(frame)) {
            let size = compressor.compress_to_buffer(contents, &mut out)?;
            stored += size.min(contents.len()) as u64;
            frames.push(out.get(..size).unwrap_or_default().to_vec());
        }
        Ok(stored)
    });
    let ratio = total as f64 / result? as f64;
    let mut decompressor = Decompressor::new()?;
    let mut contents = vec![0; frame];
    let (result, unpacking) = timed(|| -> std::io::Result<()> {
        for packed in &frames {
            decompressor.decompress_to_buffer(packed, &mut contents)?;
        }
        Ok(())
    });
    result?;
    let rate = |took: crate::Took| total as f64 / 1e6 / took.processor.as_secs_f64();
    println!(
        "zstd {:28} frame {:4} KiB: ratio {ratio:.3}, {:4.0} MB a processor second, unpacked {:4.0}",
        setting.name,
        frame >> 10,
        rate(took),
        rate(unpacking),
    );
    Ok(())
}

fn hash(sample: &Sample, total: u64) {
    for frame in [64 << 10, 256 << 10, 1 << 20] {
        let ((), took) = timed(|| {
            for contents in sample.iter().flat_map(|piece| piece.chunks(frame)) {
                black_box(blake3::hash(contents));
            }
        });
        println!("BLAKE3, {} KiB: {}", frame >> 10, took.rates(total));
    }
}

fn encrypt(sample: &Sample, total: u64) -> Outcome {
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[7; 32])?);
    for frame in [16 << 10, 64 << 10, 256 << 10] {
        let mut copy = sample.clone();
        let (result, took) = timed(|| {
            copy.iter_mut()
                .flat_map(|piece| piece.chunks_mut(frame))
                .try_for_each(|contents| {
                    let nonce = Nonce::assume_unique_for_key([0; 12]);
                    key.seal_in_place_separate_tag(nonce, Aad::empty(), contents)
                        .map(|_| ())
                })
        });
        result?;
        println!("AES-256-GCM, {} KiB: {}", frame >> 10, took.rates(total));
    }
    Ok(())
}

fn check_pages(sample: &Sample, total: u64) {
    let ((), took) = timed(|| {
        for piece in sample {
            let (pages, _) = piece.as_chunks::<BLOCK_SIZE>();
            for (number, contents) in (0_u32..).zip(pages) {
                black_box(page::checksum(contents, BlockNumber::new(number)));
            }
        }
    });
    println!("page checksum: {}", took.rates(total));
    let ((), took) = timed(|| {
        for piece in sample {
            black_box(page::is_zero(black_box(piece)));
            let (pages, _) = piece.as_chunks::<BLOCK_SIZE>();
            for (number, contents) in (0_u32..).zip(pages) {
                black_box(page::verify(contents, BlockNumber::new(number)));
            }
        }
    });
    println!("page verification: {}", took.rates(total));
}
