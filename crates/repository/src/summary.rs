//! Stored summaries of write-ahead log: what was learned of a stretch while it came in, or later from its
//! log backups.
//!
//! They are a convenience: whatever they say can be learned again from the log. So a damaged one is no loss of
//! data, and a reader that doubts one reads the log. Specified in `docs/format/summary.md`.

use everpoint_pgformat::{
    Lsn, SystemIdentifier, TimelineId,
    wal_summary::{WalSummary, format::SummaryFormatError},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    frame::{FrameDecoder, FrameError},
    ids::{InstanceName, ObjectId},
    layout,
    object::{ObjectBuilder, ObjectError, ObjectKind, SealedObject},
    repository::{Repository, RepositoryError},
    store::ObjectInfo,
};

/// Contents of a frame of a stored summary.
pub const SUMMARY_FRAME_BYTES: usize = 1 << 20;
/// The largest stored summary that is read, unpacked. Producers cut long before.
pub const MAX_SUMMARY_BYTES: u64 = 1 << 30;

/// The metadata of a stored summary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SummaryMetadata {
    /// The cluster.
    pub system_identifier: SystemIdentifier,
    /// The timeline.
    pub timeline: TimelineId,
    /// All records that begin from here on.
    pub start: Lsn,
    /// And end up to here.
    pub end: Lsn,
}

/// A stored summary as its name tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSummary {
    /// The timeline.
    pub timeline: TimelineId,
    /// All records that begin from here on.
    pub start: Lsn,
    /// And end up to here.
    pub end: Lsn,
    /// Its identifier.
    pub id: ObjectId,
    /// Its name.
    pub path: String,
    /// Bytes stored.
    pub stored_bytes: u64,
    /// When it was stored, by the store's clock.
    pub stored_at: Timestamp,
}

impl StoredSummary {
    /// Reads a summary's name; `None` when it is another object's.
    pub fn parse(info: &ObjectInfo) -> Option<Self> {
        let (fields, id) = layout::parse_last(&info.path)?;
        let [start, end] = fields.try_into().ok()?;
        let folder = info.path.rsplit('/').nth(1)?;
        let timeline = TimelineId::new(u32::from_str_radix(folder, 16).ok()?)?;
        (start < end).then(|| Self {
            timeline,
            start: Lsn::new(start),
            end: Lsn::new(end),
            id,
            path: info.path.clone(),
            stored_bytes: info.size,
            stored_at: info.modified,
        })
    }
}

/// A stored summary is of no use. What it said can be learned again from the log.
#[derive(Debug, thiserror::Error)]
pub enum StoredSummaryError {
    /// It cannot be read.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// The codec cannot be set up.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// Its bytes are no summary.
    #[error("summary `{path}` cannot be read")]
    Format {
        /// The object.
        path: String,
        /// Why.
        source: SummaryFormatError,
    },
    /// It says something else than its name, or is another cluster's.
    #[error("summary `{path}` is not what its name says: {what}")]
    Other {
        /// The object.
        path: String,
        /// What differs.
        what: &'static str,
    },
}

impl Repository {
    /// The stored summaries of an instance, sorted by timeline and start; where several begin at one place the
    /// longest comes first.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn summaries(
        &self,
        name: &InstanceName,
    ) -> Result<Vec<StoredSummary>, RepositoryError> {
        let objects = self.store().list(&layout::summaries(name)).await?;
        let mut found: Vec<_> = objects.iter().filter_map(StoredSummary::parse).collect();
        found.sort_by(|a, b| {
            let place = (a.timeline, a.start).cmp(&(b.timeline, b.start));
            place.then(b.end.cmp(&a.end))
        });
        Ok(found)
    }

    /// Stores a summary. One without records has nothing to say and is not stored.
    ///
    /// # Errors
    /// When the store or the codec fails.
    pub async fn write_summary(
        &self,
        name: &InstanceName,
        system_identifier: SystemIdentifier,
        summary: &WalSummary,
    ) -> Result<Option<StoredSummary>, RepositoryError> {
        if summary.start >= summary.end {
            return Ok(None);
        }
        let metadata = SummaryMetadata {
            system_identifier,
            timeline: summary.timeline,
            start: summary.start,
            end: summary.end,
        };
        let mut object = ObjectBuilder::new(ObjectKind::Summary, self.keys())?;
        let mut encoder = self.encoder()?;
        for contents in summary.encode().chunks(SUMMARY_FRAME_BYTES) {
            object.append(contents, &mut encoder)?;
        }
        let text = serde_json::to_vec(&metadata).unwrap_or_default();
        let finished = object.finish(&text)?;
        let id = finished.identity.id;
        let path = layout::summary(name, summary.timeline, summary.start, summary.end, id);
        self.store().put_new(&path, finished.rest).await?;
        Ok(Some(StoredSummary {
            timeline: summary.timeline,
            start: summary.start,
            end: summary.end,
            id,
            path,
            stored_bytes: finished.size,
            stored_at: Timestamp::now(),
        }))
    }

    /// Reads a stored summary, of the cluster with this system identifier where that is known.
    ///
    /// # Errors
    /// When it is missing, damaged, or not what its name says.
    pub async fn read_summary(
        &self,
        stored: &StoredSummary,
        cluster: Option<SystemIdentifier>,
    ) -> Result<WalSummary, StoredSummaryError> {
        let other = |what| StoredSummaryError::Other {
            path: stored.path.clone(),
            what,
        };
        let (store, keys) = (self.store(), self.keys());
        let (path, id) = (&stored.path, stored.id);
        let object = SealedObject::open(store, keys, path, ObjectKind::Summary, id).await?;
        let metadata: SummaryMetadata =
            serde_json::from_slice(object.metadata()).map_err(|_| other("its metadata"))?;
        let place = (metadata.timeline, metadata.start, metadata.end);
        if place != (stored.timeline, stored.start, stored.end) {
            return Err(other("it tells of other log"));
        }
        if cluster.is_some_and(|cluster| cluster != metadata.system_identifier) {
            return Err(other("it is another cluster's"));
        }
        let frames = object.frames();
        let size: u64 = frames.iter().map(|frame| u64::from(frame.raw)).sum();
        if size > MAX_SUMMARY_BYTES {
            return Err(other("it is larger than any summary"));
        }
        let mut decoder = FrameDecoder::new()?;
        let mut bytes = Vec::new();
        for frame in frames {
            bytes.extend(object.read(store, frame, &mut decoder).await?);
        }
        let summary = WalSummary::decode(&bytes).map_err(|source| StoredSummaryError::Format {
            path: stored.path.clone(),
            source,
        })?;
        if (summary.timeline, summary.start, summary.end) != place {
            return Err(other("it tells of other log"));
        }
        Ok(summary)
    }
}
