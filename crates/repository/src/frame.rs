//! Frames: the unit that is hashed, compressed and encrypted.
//!
//! A frame holds up to [`MAX_FRAME_BYTES`] of contents. Its stored form is the contents, compressed where that
//! makes them smaller, sealed by AES-256-GCM, with the tag behind. A frame of zeros has no stored form at
//! all. Everything needed to read one stands in a [`FrameRef`]. Specified in `docs/format/object.md`.

use zstd::zstd_safe::{CParameter, CompressionLevel};

use crate::{
    keys::{KeyError, ObjectKey, TAG_BYTES},
    varint::{self, Cursor},
};

/// Contents of a frame at the most, in bytes. Data files use far smaller ones; a manifest needs one for the
/// list of a huge file's frames.
pub const MAX_FRAME_BYTES: usize = 16 << 20;

/// How a frame's contents are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Codec {
    /// As they are.
    Plain = 0,
    /// As one zstd frame.
    Zstd = 1,
    /// Not at all: every byte is 0.
    Zero = 2,
}

impl Codec {
    fn from_number(number: u64) -> Option<Self> {
        Some(match number {
            0 => Self::Plain,
            1 => Self::Zstd,
            2 => Self::Zero,
            _ => return None,
        })
    }
}

/// Where a frame lies in its object and how to read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameRef {
    /// Its place in the object's sequence of frames, which is also its nonce.
    pub ordinal: u32,
    /// The first byte of its stored form in the object.
    pub offset: u64,
    /// Bytes of its stored form, tag included; 0 for a frame of zeros.
    pub stored: u32,
    /// Bytes of its contents.
    pub raw: u32,
    /// How the contents are stored.
    pub codec: Codec,
}

impl FrameRef {
    /// Appends the encoded form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        varint::put(out, u64::from(self.ordinal));
        varint::put(out, self.offset);
        varint::put(out, u64::from(self.stored));
        varint::put(out, u64::from(self.raw));
        out.push(self.codec as u8);
    }

    /// Reads the encoded form; `None` when it is malformed or its sizes are impossible.
    pub fn decode(cursor: &mut Cursor<'_>) -> Option<Self> {
        let frame = Self {
            ordinal: cursor.number32()?,
            offset: cursor.number()?,
            stored: cursor.number32()?,
            raw: cursor.number32()?,
            codec: Codec::from_number(u64::from(cursor.array::<1>()?[0]))?,
        };
        frame.is_plausible().then_some(frame)
    }

    fn is_plausible(&self) -> bool {
        let raw = self.raw as usize;
        let stored = self.stored as usize;
        let sizes = match self.codec {
            Codec::Plain => stored == raw + TAG_BYTES,
            Codec::Zstd => (TAG_BYTES + 1..raw + TAG_BYTES).contains(&stored),
            Codec::Zero => stored == 0,
        };
        raw > 0
            && raw <= MAX_FRAME_BYTES
            && sizes
            && self.offset.checked_add(stored as u64).is_some()
    }

    /// The bytes that are authenticated with a frame besides its own.
    fn context(&self, object: &[u8]) -> [u8; CONTEXT_BYTES] {
        let mut context = [0; CONTEXT_BYTES];
        let (head, tail) = context.split_at_mut(CONTEXT_BYTES - 9);
        for (slot, byte) in head.iter_mut().zip(object) {
            *slot = *byte;
        }
        let own = self
            .ordinal
            .to_le_bytes()
            .into_iter()
            .chain(self.raw.to_le_bytes());
        for (slot, byte) in tail.iter_mut().zip(own.chain([self.codec as u8])) {
            *slot = byte;
        }
        context
    }
}

const CONTEXT_BYTES: usize = crate::object::HEADER_BYTES + 9;

/// A frame could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Not what was written, or not in the place it was written to.
    #[error("frame {ordinal} is damaged: its bytes are not the ones that were written")]
    NotAuthentic {
        /// Which frame of the object.
        ordinal: u32,
    },
    /// Authentic, but its contents cannot be unpacked.
    #[error("frame {ordinal} does not unpack to the {raw} bytes it was made from")]
    Unpack {
        /// Which frame of the object.
        ordinal: u32,
        /// The bytes expected.
        raw: u32,
    },
    /// More than a frame holds.
    #[error("{bytes} bytes are more than a frame holds ({MAX_FRAME_BYTES})")]
    TooLarge {
        /// How many.
        bytes: usize,
    },
    /// The compressor failed.
    #[error("zstd failed")]
    Compress(#[source] std::io::Error),
    /// The cipher failed.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// Makes stored frames out of contents. Keeps its compression context; one per thread.
pub struct FrameEncoder {
    zstd: zstd::bulk::Compressor<'static>,
}

impl FrameEncoder {
    /// With a zstd level; 1 is the default everywhere.
    ///
    /// # Errors
    /// When zstd cannot be set up.
    pub fn new(level: CompressionLevel) -> Result<Self, FrameError> {
        let mut zstd = zstd::bulk::Compressor::new(level).map_err(FrameError::Compress)?;
        // The cipher authenticates every frame, and the length stands in its reference.
        for parameter in [
            CParameter::ChecksumFlag(false),
            CParameter::ContentSizeFlag(true),
        ] {
            zstd.set_parameter(parameter)
                .map_err(FrameError::Compress)?;
        }
        Ok(Self { zstd })
    }

    /// Appends the stored form of `contents` (1 to [`MAX_FRAME_BYTES`] bytes) to `out`. `offset` is where in the
    /// object it will lie, `object` the object's header.
    ///
    /// # Errors
    /// When zstd or the cipher fails.
    pub fn append(
        &mut self,
        contents: &[u8],
        place: FramePlace<'_>,
        out: &mut Vec<u8>,
    ) -> Result<FrameRef, FrameError> {
        let raw = u32::try_from(contents.len()).unwrap_or(u32::MAX);
        let mut frame = FrameRef {
            ordinal: place.ordinal,
            offset: place.offset,
            stored: 0,
            raw,
            codec: Codec::Zero,
        };
        if everpoint_pgformat::page::is_zero(contents) {
            return Ok(frame);
        }
        let start = out.len();
        frame.codec = self.compress(contents, out)?;
        let context = frame.context(place.header);
        let sealed = out.get_mut(start..).unwrap_or_default();
        let tag = place.key.seal(place.ordinal, &context, sealed)?;
        out.extend_from_slice(&tag);
        frame.stored = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
        Ok(frame)
    }

    fn compress(&mut self, contents: &[u8], out: &mut Vec<u8>) -> Result<Codec, FrameError> {
        let start = out.len();
        out.reserve(zstd::zstd_safe::compress_bound(contents.len()) + TAG_BYTES);
        let mut tail = AppendTo(out);
        let written = self
            .zstd
            .compress_to_buffer(contents, &mut tail)
            .map_err(FrameError::Compress)?;
        if written < contents.len() {
            return Ok(Codec::Zstd);
        }
        out.truncate(start);
        out.extend_from_slice(contents);
        Ok(Codec::Plain)
    }
}

/// Lets zstd write behind what a vector already holds.
struct AppendTo<'a>(&'a mut Vec<u8>);

// SAFETY of the contract: `as_mut_ptr` and `capacity` describe the vector's unused capacity behind its
// length, and `filled_until(n)` is called by zstd only after it has initialised `n` bytes there.
#[expect(
    unsafe_code,
    reason = "zstd writes into the spare capacity, so that no frame is copied"
)]
unsafe impl zstd::zstd_safe::WriteBuf for AppendTo<'_> {
    fn as_slice(&self) -> &[u8] {
        &[]
    }

    fn capacity(&self) -> usize {
        self.0.capacity() - self.0.len()
    }

    fn as_mut_ptr(&mut self) -> *mut u8 {
        self.0.spare_capacity_mut().as_mut_ptr().cast()
    }

    unsafe fn filled_until(&mut self, n: usize) {
        let len = self.0.len() + n;
        // SAFETY: see above; `n` is at most the capacity that was offered.
        unsafe { self.0.set_len(len) }
    }
}

/// Where a frame will lie and what seals it there.
#[derive(Clone, Copy)]
pub struct FramePlace<'a> {
    /// Its ordinal within the object.
    pub ordinal: u32,
    /// Its first byte within the object.
    pub offset: u64,
    /// The object's header.
    pub header: &'a [u8],
    /// The object's key.
    pub key: &'a ObjectKey,
}

/// Decrypts a frame's stored form in place: its contents as the codec stores them, nothing of a frame of
/// zeros.
///
/// # Errors
/// When the frame is not authentic.
pub fn open<'a>(
    frame: &FrameRef,
    header: &[u8],
    key: &ObjectKey,
    stored: &'a mut [u8],
) -> Result<&'a [u8], FrameError> {
    if frame.codec == Codec::Zero {
        return Ok(&[]);
    }
    key.open(frame.ordinal, &frame.context(header), stored)
        .map(|opened| &*opened)
        .ok_or(FrameError::NotAuthentic {
            ordinal: frame.ordinal,
        })
}

/// Appends the stored form of a frame that was opened elsewhere to `out`: what was compressed stays so.
///
/// # Errors
/// When the cipher fails.
pub fn append_opened(
    frame: &FrameRef,
    opened: &[u8],
    place: FramePlace<'_>,
    out: &mut Vec<u8>,
) -> Result<FrameRef, FrameError> {
    let mut here = FrameRef {
        ordinal: place.ordinal,
        offset: place.offset,
        ..*frame
    };
    if frame.codec == Codec::Zero {
        return Ok(here);
    }
    let start = out.len();
    out.extend_from_slice(opened);
    let context = here.context(place.header);
    let sealed = out.get_mut(start..).unwrap_or_default();
    let tag = place.key.seal(place.ordinal, &context, sealed)?;
    out.extend_from_slice(&tag);
    here.stored = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
    Ok(here)
}

/// Makes contents out of stored frames. Keeps its decompression context; one per thread.
pub struct FrameDecoder {
    zstd: zstd::bulk::Decompressor<'static>,
}

impl FrameDecoder {
    /// Sets zstd up.
    ///
    /// # Errors
    /// When zstd cannot be set up.
    pub fn new() -> Result<Self, FrameError> {
        let zstd = zstd::bulk::Decompressor::new().map_err(FrameError::Compress)?;
        Ok(Self { zstd })
    }

    /// Writes the contents of a frame over `contents`, which must be exactly as long. `stored` is
    /// decrypted in place and of no use afterwards.
    ///
    /// # Errors
    /// When the frame is not authentic or does not unpack.
    pub fn decode(
        &mut self,
        frame: &FrameRef,
        header: &[u8],
        key: &ObjectKey,
        stored: &mut [u8],
        contents: &mut [u8],
    ) -> Result<(), FrameError> {
        let opened = open(frame, header, key, stored)?;
        self.unpack(frame, opened, contents)
    }

    /// Writes the contents of an opened frame over `contents`, which must be exactly as long.
    ///
    /// # Errors
    /// When the frame does not unpack.
    pub fn unpack(
        &mut self,
        frame: &FrameRef,
        opened: &[u8],
        contents: &mut [u8],
    ) -> Result<(), FrameError> {
        let unpack = || FrameError::Unpack {
            ordinal: frame.ordinal,
            raw: frame.raw,
        };
        if contents.len() != frame.raw as usize {
            return Err(unpack());
        }
        match frame.codec {
            Codec::Zero => {
                contents.fill(0);
                Ok(())
            }
            Codec::Zstd => {
                let raw = contents.len();
                let written = self
                    .zstd
                    .decompress_to_buffer(opened, contents)
                    .map_err(|_| unpack())?;
                if written == raw {
                    Ok(())
                } else {
                    Err(unpack())
                }
            }
            Codec::Plain if opened.len() == contents.len() => {
                contents.copy_from_slice(opened);
                Ok(())
            }
            _ => Err(unpack()),
        }
    }
}
