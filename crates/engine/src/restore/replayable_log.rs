//! Log as recovery is given it: filtered, in parts of segment files.
//!
//! Every restore has the locations taken out of records of `CREATE TABLESPACE`: for a tablespace that the
//! backup knows, the link or directory that the restore made is there already, and stays; a later one lies
//! inside `pg_tblspc`. A restore of one database has the changes of the others taken out as well. See
//! [`everpoint_pgformat::wal::filter`].
//!
//! One thread reads and decompresses, one filters, and whoever asks writes: each is [`PARTS_AHEAD`] parts ahead of
//! the next at the most.

use everpoint_pgformat::{
    Lsn,
    relation::RelationId,
    wal::{
        decoder::WalDecoder,
        filter::{Databases, FilterCounts, Piece, WalFilter},
        segment::{SegmentName, SegmentSize},
    },
};
use everpoint_repository::backup::Backup;
use tokio::{runtime::Handle, sync::mpsc, task::spawn_blocking};

use super::{RestoreError, target::TargetError};
use crate::log::reader::{SegmentNames, SegmentReader};

/// Parts that wait for the next thread.
pub const PARTS_AHEAD: usize = 8;

/// Segment files for recovery, in order, in parts.
pub struct ReplayableLog {
    filtered: mpsc::Receiver<Message<Filtered, FilterCounts>>,
    names: SegmentNames,
    segment_size: SegmentSize,
    counts: FilterCounts,
}

/// Some bytes of a segment file.
#[derive(Debug)]
pub struct Part {
    /// The file's name.
    pub name: SegmentName,
    /// Where they lie in the log.
    pub start: Lsn,
    /// They themselves.
    pub bytes: Vec<u8>,
    /// Whether they are the file's last.
    pub ends_segment: bool,
    /// Relations for which an init fork is made in this part or soon behind. Recovery fails on other files of theirs.
    pub reset: Vec<RelationId>,
}

/// Bytes, and the relations for which an init fork is made in them or behind.
struct Filtered {
    piece: Piece,
    reset: Vec<RelationId>,
}

/// What one thread tells the next. A channel that ends without an end means that the thread is lost.
enum Message<T, E> {
    More(T),
    End(E),
    Failed(RestoreError),
}

impl ReplayableLog {
    /// The log that `reader` brings for a backup, as far as it concerns `databases`. A record that begins at `stop`
    /// begins there still. Runs in a runtime, whose threads for blocking work it uses.
    pub fn new(
        reader: SegmentReader,
        backup: &Backup,
        databases: Databases,
        stop: Option<Lsn>,
    ) -> Self {
        let (version, segment_size) = (backup.version, backup.segment_size);
        let names = reader.names().clone();
        let decoder = WalDecoder::new(version, segment_size, backup.start_lsn);
        let filter = WalFilter::new(decoder, segment_size, databases);
        let filter = match stop {
            Some(stop) => filter.stopping_at(stop),
            None => filter,
        };
        Self {
            filtered: filter_ahead(read_ahead(reader), filter),
            names,
            segment_size,
            counts: FilterCounts::default(),
        }
    }

    /// What the filter did, once all was given out.
    pub fn counts(&self) -> FilterCounts {
        self.counts
    }

    /// The next part; `None` behind the last.
    ///
    /// # Errors
    /// When log is missing, damaged or cannot be decoded.
    pub async fn next(&mut self) -> Result<Option<Part>, RestoreError> {
        match self.filtered.recv().await {
            Some(Message::More(Filtered { piece, reset })) => {
                let Piece { start, bytes } = piece;
                let end = start.advance(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
                Ok(Some(Part {
                    name: self.names.name(start),
                    ends_segment: self.segment_size.floor(end) == end,
                    start,
                    bytes,
                    reset,
                }))
            }
            Some(Message::End(counts)) => {
                self.counts = counts;
                Ok(None)
            }
            Some(Message::Failed(error)) => Err(error),
            None => Err(RestoreError::TaskLost),
        }
    }
}

fn read_ahead(mut reader: SegmentReader) -> mpsc::Receiver<Message<Piece, ()>> {
    let (sender, receiver) = mpsc::channel(PARTS_AHEAD);
    let runtime = Handle::current();
    spawn_blocking(move || {
        loop {
            let message = match runtime.block_on(reader.next()) {
                Ok(Some((start, bytes))) => Message::More(Piece { start, bytes }),
                Ok(None) => Message::End(()),
                Err(error) => Message::Failed(error.into()),
            };
            let goes_on = matches!(message, Message::More(_));
            // Nobody takes it any more when the restore has ended.
            if sender.blocking_send(message).is_err() || !goes_on {
                return;
            }
        }
    });
    receiver
}

fn filter_ahead(
    mut read: mpsc::Receiver<Message<Piece, ()>>,
    mut filter: WalFilter,
) -> mpsc::Receiver<Message<Filtered, FilterCounts>> {
    let (sender, receiver) = mpsc::channel(PARTS_AHEAD);
    spawn_blocking(move || {
        let failed = |error| {
            // Nobody hears it any more when the restore has ended.
            let _ = sender.blocking_send(Message::Failed(error));
        };
        loop {
            let ends = match read.blocking_recv() {
                Some(Message::More(piece)) => {
                    if let Err(error) = filter.push(piece) {
                        return failed(TargetError::from(error).into());
                    }
                    false
                }
                Some(Message::End(())) => true,
                Some(Message::Failed(error)) => return failed(error),
                None => return failed(RestoreError::TaskLost),
            };
            let next = |filter: &mut WalFilter| match ends {
                true => filter.finish(),
                false => filter.pop(),
            };
            while let Some(piece) = next(&mut filter) {
                let reset = filter.take_reset();
                let message = Message::More(Filtered { piece, reset });
                if sender.blocking_send(message).is_err() {
                    return;
                }
            }
            if ends {
                let _ = sender.blocking_send(Message::End(filter.counts()));
                return;
            }
        }
    });
    receiver
}
