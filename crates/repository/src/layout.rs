//! The names of objects. Specified in `docs/format/repository.md`.
//!
//! ```text
//! everpoint.json                                     what this is: format version, identifier
//! keys/slots/<id>.json                               the root key, sealed by one secret
//! keys/data/<number>-<id>.json                       a data key, sealed by the root key
//! instances/<name>/instance/<revision>-<id>          what is known of the instance
//! instances/<name>/backups/<backup>/manifest-<id>    written last
//! instances/<name>/packs/<backup>/<id>               frames of data files
//! instances/<name>/log/<timeline>/<start>-<end>-<id> a stretch of write-ahead log
//! instances/<name>/summaries/<timeline>/<start>-<end>-<id> what was learned of a stretch of write-ahead log
//! instances/<name>/timelines/<timeline>-<id>         a timeline's history
//! instances/<name>/gaps/<timeline>-<from>-<to>-<id>  write-ahead log that was lost
//! instances/<name>/marks/<timeline>-<lsn>-<time>-<id> log is complete to a time; the last one holds
//! instances/<name>/policies/<revision>-<id>          how long its databases' backups are kept
//! long-term/<name>/<copy>/state/<revision>-<id>      a long-term copy of a database: what it is, how long it stays
//! long-term/<name>/<copy>/instances/<name>/…         its backup and log, as an instance's
//! ```
//!
//! Times are microseconds since 1970 in 16 hexadecimal digits. LSNs are 16 and timelines 8 hexadecimal digits, so that names sort as their values do.

use everpoint_pgformat::{Lsn, TimelineId};

use crate::ids::{BackupId, CopyId, InstanceName, ObjectId};

/// The marker that makes a folder a repository.
pub const MARKER: &str = "everpoint.json";
/// Key slots lie below this.
pub const KEY_SLOTS: &str = "keys/slots";
/// Data keys lie below this.
pub const DATA_KEYS: &str = "keys/data";
/// Instances lie below this.
pub const INSTANCES: &str = "instances";

/// Long-term copies lie below this, by the instance they were made of.
pub const LONG_TERM: &str = "long-term";

/// The folder of the long-term copies of an instance's databases.
pub fn copies(name: &InstanceName) -> String {
    format!("{LONG_TERM}/{name}")
}

/// The folder of a long-term copy. Below it names are as in a repository.
pub fn copy(name: &InstanceName, copy: CopyId) -> String {
    format!("{}/{copy}", copies(name))
}

/// The folder of what a long-term copy is and how long it stays.
pub fn copy_states(name: &InstanceName, copy: CopyId) -> String {
    format!("{}/state", self::copy(name, copy))
}

/// What a long-term copy is and how long it stays. The one with the highest revision holds.
pub fn copy_state(name: &InstanceName, copy: CopyId, revision: u32, id: ObjectId) -> String {
    format!("{}/{revision:08x}-{id}", copy_states(name, copy))
}

/// The folder of an instance.
pub fn instance(name: &InstanceName) -> String {
    format!("{INSTANCES}/{name}")
}

/// The folder of an instance's descriptions.
pub fn descriptions(name: &InstanceName) -> String {
    format!("{INSTANCES}/{name}/instance")
}

/// A description of an instance. The one with the highest revision holds.
pub fn description(name: &InstanceName, revision: u32, id: ObjectId) -> String {
    format!("{}/{revision:08x}-{id}", descriptions(name))
}

/// The folder of an instance's manifests.
pub fn backups(name: &InstanceName) -> String {
    format!("{INSTANCES}/{name}/backups")
}

/// A backup's manifest.
pub fn manifest(name: &InstanceName, backup: &BackupId, id: ObjectId) -> String {
    format!("{}/{backup}/manifest-{id}", backups(name))
}

/// The folder of an instance's packs.
pub fn packs(name: &InstanceName) -> String {
    format!("{INSTANCES}/{name}/packs")
}

/// A pack, written by `backup`.
pub fn pack(name: &InstanceName, backup: &BackupId, id: ObjectId) -> String {
    format!("{}/{backup}/{id}", packs(name))
}

/// The folder of an instance's log backups.
pub fn logs(name: &InstanceName) -> String {
    format!("{INSTANCES}/{name}/log")
}

/// The folder of a timeline's log backups.
pub fn log_folder(name: &InstanceName, timeline: TimelineId) -> String {
    format!("{}/{:08x}", logs(name), timeline.get())
}

/// A log backup of `start` (inclusive) to `end` (exclusive).
pub fn log(
    name: &InstanceName,
    timeline: TimelineId,
    start: Lsn,
    end: Lsn,
    id: ObjectId,
) -> String {
    let (start, end) = (start.get(), end.get());
    format!(
        "{}/{start:016x}-{end:016x}-{id}",
        log_folder(name, timeline)
    )
}

/// The folder of an instance's summaries of log.
pub fn summaries(name: &InstanceName) -> String {
    format!("{INSTANCES}/{name}/summaries")
}

/// A summary of the records of `start` (inclusive) to `end` (exclusive), which are record boundaries.
pub fn summary(
    name: &InstanceName,
    timeline: TimelineId,
    start: Lsn,
    end: Lsn,
    id: ObjectId,
) -> String {
    let (timeline, start, end) = (timeline.get(), start.get(), end.get());
    format!(
        "{}/{timeline:08x}/{start:016x}-{end:016x}-{id}",
        summaries(name)
    )
}

/// The folder of an instance's timeline histories.
pub fn timelines(name: &InstanceName) -> String {
    format!("{INSTANCES}/{name}/timelines")
}

/// A timeline's history.
pub fn timeline(name: &InstanceName, timeline: TimelineId, id: ObjectId) -> String {
    format!("{}/{:08x}-{id}", timelines(name), timeline.get())
}

/// The folder of an instance's gaps.
pub fn gaps(name: &InstanceName) -> String {
    format!("{INSTANCES}/{name}/gaps")
}

/// A gap of `from` (inclusive) to `to` (exclusive).
pub fn gap(name: &InstanceName, timeline: TimelineId, from: Lsn, to: Lsn, id: ObjectId) -> String {
    let (timeline, from, to) = (timeline.get(), from.get(), to.get());
    format!("{}/{timeline:08x}-{from:016x}-{to:016x}-{id}", gaps(name))
}

/// The folder of an instance's marks.
pub fn marks(name: &InstanceName) -> String {
    format!("{INSTANCES}/{name}/marks")
}

/// A mark: the server had nothing behind `lsn` at `time_us`, in microseconds since 1970.
pub fn mark(
    name: &InstanceName,
    timeline: TimelineId,
    lsn: Lsn,
    time_us: u64,
    id: ObjectId,
) -> String {
    let (timeline, lsn) = (timeline.get(), lsn.get());
    format!(
        "{}/{timeline:08x}-{lsn:016x}-{time_us:016x}-{id}",
        marks(name)
    )
}

/// The folder of an instance's policies.
pub fn policies(name: &InstanceName) -> String {
    format!("{INSTANCES}/{name}/policies")
}

/// The policies of an instance's databases. Those with the highest revision hold.
pub fn policy(name: &InstanceName, revision: u32, id: ObjectId) -> String {
    format!("{}/{revision:08x}-{id}", policies(name))
}

/// Reads the last part of a name as hexadecimal fields and an identifier, as every name above ends.
pub fn parse_last(path: &str) -> Option<(Vec<u64>, ObjectId)> {
    let last = path.rsplit('/').next()?;
    let mut fields: Vec<&str> = last.split('-').collect();
    let id = ObjectId::parse(fields.pop()?)?;
    let fields = fields
        .iter()
        .map(|field| u64::from_str_radix(field, 16).ok())
        .collect::<Option<_>>();
    Some((fields?, id))
}
