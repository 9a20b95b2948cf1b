//! Makes the fixture that `tests/format_v1.rs` reads: a complete, tiny repository, and what opens it.
//!
//! ```text
//! cargo run -p everpoint-repository --example make_fixture -- DIRECTORY [--summary]
//! ```
//!
//! With `--summary`, what is there stays as it is, and a summary of log is added.
//!
//! A fixture that is checked in is never made again: it stands for what a released version wrote. This
//! program is kept so that the next version's fixture is made in the same way.

#[path = "../tests/fixture_v1/mod.rs"]
mod fixture;

use std::{error::Error, fs, path::Path};

use everpoint_pgformat::{
    ByteCount, Lsn, MajorVersion, Oid, SystemIdentifier, TimelineId,
    wal::{
        decoder::{Next, WalDecoder},
        segment::SegmentSize,
    },
    wal_summary::SummaryBuilder,
};
use everpoint_repository::{
    BackupId, Repository, Store,
    backup::{Backup, BackupKind, DamagedPages, Database, Directory, Pack, Tablespace, Totals},
    frame::FrameEncoder,
    keys::{RecoveryKey, Secret},
    layout,
    log::{GapDocument, LogMetadata, TimelineDocument},
    manifest::{BlockRun, Content, FileEntry, ManifestWriter, StoredFrame},
    object::{ObjectBuilder, ObjectKind, ObjectSink},
    store::Missing,
};
use jiff::Timestamp;
use zeroize::Zeroizing;

use fixture::{PAGE, instance};

type Outcome<T> = Result<T, Box<dyn Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome<()> {
    let directory = std::env::args()
        .nth(1)
        .ok_or("give the directory to make")?;
    let directory = Path::new(&directory);
    if std::env::args().nth(2).as_deref() == Some("--summary") {
        let root = directory.canonicalize()?.join("repository");
        let store = Store::open(
            root.to_str().ok_or("the path is not UTF-8")?,
            Missing::Refuse,
        )?;
        let secret = Secret::KeyFile(Zeroizing::new(fixture::KEY_FILE.to_vec()));
        return summary(&Repository::open(store, &secret).await?).await;
    }
    fs::create_dir_all(directory)?;
    let root = directory.canonicalize()?.join("repository");
    let recovery = RecoveryKey::random()?;
    fs::write(directory.join("key"), fixture::KEY_FILE)?;
    fs::write(directory.join("recovery-key"), recovery.text().as_bytes())?;
    let secrets = [
        Secret::KeyFile(Zeroizing::new(fixture::KEY_FILE.to_vec())),
        Secret::Recovery(recovery),
        Secret::Passphrase(Zeroizing::new(fixture::PASSPHRASE.to_owned())),
    ];
    let store = Store::open(
        root.to_str().ok_or("the path is not UTF-8")?,
        Missing::Create,
    )?;
    let made = at("2026-11-22T21:00:00Z")?;
    let repository = Repository::create(store, &secrets, made).await?;

    for (revision, slot) in [(0, "everpoint"), (1, "everpoint_shop")] {
        repository
            .write_description(&instance(), revision, &description(slot))
            .await?;
    }
    let (entries, packs) = full_backup(&repository).await?;
    differential_backup(&repository, &entries, &packs).await?;
    for stretch in fixture::STRETCHES {
        log_backup(&repository, stretch).await?;
    }
    let history = TimelineDocument {
        timeline: timeline(2)?,
        text: fixture::HISTORY.to_owned(),
    };
    repository.write_timeline(&instance(), &history).await?;
    let gap = GapDocument {
        timeline: TimelineId::FIRST,
        from: Lsn::new(0x0300_3000),
        to: Lsn::new(0x0300_3800),
        reason: "the server removed log that the slot was to keep".to_owned(),
        noticed_at: at("2026-11-23T10:00:00Z")?,
    };
    repository.write_gap(&instance(), &gap).await?;
    summary(&repository).await
}

/// The summary of log that a server wrote: of a fixture of another crate's tests.
async fn summary(repository: &Repository) -> Outcome<()> {
    let log = include_bytes!("../../pgformat/tests/fixtures/wal_17.bin");
    let text = include_str!("../../pgformat/tests/fixtures/wal_17.txt");
    let position = |name: &str| -> Outcome<Lsn> {
        let prefix = format!("# {name} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&prefix));
        Ok(line.ok_or("no position")?.parse()?)
    };
    let (page, start, end) = (position("page")?, position("start")?, position("end")?);
    let version = MajorVersion::try_from(17)?;
    let mut decoder = WalDecoder::searching(version, SegmentSize::try_from(1 << 20)?, start);
    let mut builder = SummaryBuilder::new(version, TimelineId::FIRST, start);
    let mut chunk = decoder.feed(page, log);
    while let Next::Record(record) = chunk.next()? {
        if record.end() > end {
            break;
        }
        builder.add(&record)?;
    }
    let cluster = SystemIdentifier::new(7_300_000_000_000_000_001);
    repository
        .write_summary(&instance(), cluster, &builder.cut())
        .await?;
    Ok(())
}

fn at(text: &str) -> Outcome<Timestamp> {
    Ok(text.parse()?)
}

fn timeline(number: u32) -> Outcome<TimelineId> {
    TimelineId::new(number).ok_or_else(|| "timeline 0".into())
}

/// As the engine writes it; this crate does not know its fields.
fn description(slot: &str) -> serde_json::Value {
    serde_json::json!({
        "system_identifier": 7_300_000_000_000_000_001_u64,
        "version": 17,
        "connection": "host=/run/postgresql user=everpoint dbname=postgres",
        "data_directory": "/srv/postgresql/17/shop",
        "segment_size": 16 << 20,
        "wal": { "kind": "stream", "slot": slot },
        "added_at": "2026-11-22T21:05:00Z",
    })
}

/// A pack being filled, as number `number` of its backup.
struct Filling {
    number: u32,
    object: ObjectBuilder,
}

impl Filling {
    fn new(repository: &Repository, number: u32) -> Outcome<Self> {
        Ok(Self {
            number,
            object: ObjectBuilder::new(ObjectKind::Pack, repository.keys())?,
        })
    }

    fn add(&mut self, contents: &[u8], encoder: &mut FrameEncoder) -> Outcome<StoredFrame> {
        let frame = self.object.append(contents, encoder)?;
        let hash = *blake3::hash(contents).as_bytes();
        Ok(StoredFrame {
            pack: self.number,
            frame,
            hash,
        })
    }

    async fn store(self, repository: &Repository, backup: BackupId) -> Outcome<Pack> {
        let finished = self.object.finish(b"")?;
        let identity = finished.identity;
        let path = layout::pack(&instance(), &backup, identity.id);
        ObjectSink::new(repository.store(), path)
            .finish(finished.rest)
            .await?;
        let size = ByteCount::new(finished.size);
        Ok(Pack {
            id: identity.id,
            backup,
            data_key: identity.data_key,
            size,
        })
    }
}

async fn full_backup(repository: &Repository) -> Outcome<(Vec<FileEntry>, Vec<Pack>)> {
    let mut encoder = repository.encoder()?;
    let (mut shared, mut shop) = (Filling::new(repository, 0)?, Filling::new(repository, 1)?);
    let mut entries = Vec::new();
    for (path, mode, contents) in fixture::full_files() {
        let pack = if path.contains("/16384/") {
            &mut shop
        } else {
            &mut shared
        };
        // Frames of two pages, so that a file has several.
        let frames = contents
            .chunks(2 * PAGE)
            .map(|contents| pack.add(contents, &mut encoder))
            .collect::<Outcome<Vec<_>>>()?;
        entries.push(FileEntry {
            path: path.to_owned(),
            mode,
            size: contents.len() as u64,
            content: Content::Whole(frames),
        });
    }
    let stored_bytes = shared.object.size() + shop.object.size() - 2 * 64;
    let packs = vec![
        shared.store(repository, fixture::full()).await?,
        shop.store(repository, fixture::full()).await?,
    ];
    let restored_bytes = entries.iter().map(|entry| entry.size).sum();
    let backup = Backup {
        totals: Totals {
            files: entries.len() as u64,
            restored_bytes,
            read_bytes: restored_bytes,
            stored_bytes,
            reused_bytes: 0,
        },
        packs: packs.clone(),
        damaged_pages: vec![DamagedPages {
            path: "base/16384/16392".to_owned(),
            blocks: vec![0],
        }],
        ..backup(fixture::full(), BackupKind::Full)?
    };
    manifest(repository, &entries, backup).await?;
    Ok((entries, packs))
}

async fn differential_backup(
    repository: &Repository,
    base: &[FileEntry],
    base_packs: &[Pack],
) -> Outcome<()> {
    let mut encoder = repository.encoder()?;
    // Number 0 is the full backup's first pack, which this backup refers to.
    let mut own = Filling::new(repository, 1)?;
    let mut entries: Vec<FileEntry> = base
        .iter()
        .filter(|entry| entry.path == "PG_VERSION")
        .cloned()
        .collect();
    let changed: Vec<u8> = fixture::CHANGED_BLOCKS
        .iter()
        .flat_map(|block| fixture::page(*block, 2))
        .collect();
    let runs = vec![
        BlockRun { first: 1, count: 1 },
        BlockRun { first: 3, count: 2 },
    ];
    let frames = vec![own.add(&changed, &mut encoder)?];
    let changed_bytes = changed.len() as u64;
    entries.push(FileEntry {
        path: "base/16384/16390".to_owned(),
        mode: 0o600,
        size: 5 * PAGE as u64,
        content: Content::Blocks { runs, frames },
    });
    let stored_bytes = own.object.size() - 64;
    let packs = vec![
        base_packs[0].clone(),
        own.store(repository, fixture::differential()).await?,
    ];
    let backup = Backup {
        started_at: at("2026-11-23T09:30:00Z")?,
        stopped_at: at("2026-11-23T09:30:05.25Z")?,
        start_lsn: Lsn::new(0x0300_2100),
        stop_lsn: Lsn::new(0x0300_2200),
        totals: Totals {
            files: 2,
            restored_bytes: 5 * PAGE as u64 + 3,
            read_bytes: 5 * PAGE as u64 + 3,
            stored_bytes,
            reused_bytes: 3,
        },
        packs,
        ..backup(
            fixture::differential(),
            BackupKind::Differential {
                base: fixture::full(),
            },
        )?
    };
    let total: u64 = entries.iter().map(|entry| entry.size).sum();
    assert_eq!(
        (total, changed_bytes),
        (backup.totals.restored_bytes, 3 * PAGE as u64)
    );
    manifest(repository, &entries, backup).await
}

/// What both backups say alike.
fn backup(id: BackupId, kind: BackupKind) -> Outcome<Backup> {
    let directories = [
        "",
        "base",
        "base/16384",
        "global",
        "pg_tblspc",
        "pg_tblspc/16400",
    ];
    let directory = |path: &&str| Directory {
        path: (*path).to_owned(),
        mode: 0o700,
    };
    Ok(Backup {
        id,
        kind,
        system_identifier: SystemIdentifier::new(7_300_000_000_000_000_001),
        version: MajorVersion::try_from(17)?,
        server_version_num: 170_010,
        timeline: TimelineId::FIRST,
        start_lsn: Lsn::new(0x0300_0028),
        stop_lsn: Lsn::new(0x0300_0120),
        started_at: at("2026-11-22T21:30:00Z")?,
        stopped_at: at("2026-11-22T21:30:09.5Z")?,
        segment_size: SegmentSize::DEFAULT,
        blocks_per_segment: 131_072,
        checksums: true,
        control_file: "a4060000".to_owned(),
        backup_label: "START WAL LOCATION: 0/3000028 (file 000000010000000000000003)\n".to_owned(),
        tablespaces: vec![
            Tablespace {
                oid: Oid::new(16400),
                location: "/srv/fast".to_owned(),
            },
            Tablespace {
                oid: Oid::new(16401),
                location: String::new(),
            },
        ],
        databases: vec![
            Database {
                oid: Oid::new(5),
                name: "postgres".to_owned(),
            },
            Database {
                oid: Oid::new(16384),
                name: "shop".to_owned(),
            },
        ],
        directories: directories.iter().map(directory).collect(),
        packs: Vec::new(),
        sections: Vec::new(),
        totals: Totals::default(),
        damaged_pages: Vec::new(),
        written_by: "0.1.0".to_owned(),
    })
}

async fn manifest(repository: &Repository, entries: &[FileEntry], backup: Backup) -> Outcome<()> {
    let object = ObjectBuilder::new(ObjectKind::Manifest, repository.keys())?;
    let path = layout::manifest(&instance(), &backup.id, object.identity().id);
    let mut writer = ManifestWriter::new(object, repository.encoder()?);
    for entry in entries {
        writer.push(entry)?;
    }
    let (object, sections) = writer.finish()?;
    let finished = object.finish(&serde_json::to_vec(&Backup { sections, ..backup })?)?;
    Ok(ObjectSink::new(repository.store(), path)
        .finish(finished.rest)
        .await?)
}

async fn log_backup(repository: &Repository, stretch: fixture::Stretch) -> Outcome<()> {
    let (number, start, end, frames) = stretch;
    let mut encoder = repository.encoder()?;
    let mut object = ObjectBuilder::new(ObjectKind::Log, repository.keys())?;
    let log = fixture::log(number, start, end);
    let mut rest = log.as_slice();
    for size in frames {
        let (frame, more) = rest.split_at(*size);
        object.append(frame, &mut encoder)?;
        rest = more;
    }
    assert!(rest.is_empty());
    // What was pushed as a file has no times.
    let pushed = number == 2;
    let metadata = LogMetadata {
        system_identifier: SystemIdentifier::new(7_300_000_000_000_000_001),
        timeline: timeline(number)?,
        start: Lsn::new(start),
        end: Lsn::new(end),
        segment_size: SegmentSize::DEFAULT,
        first_sent_at: (!pushed).then_some(at("2026-11-22T21:30:01.000001Z")?),
        complete_at: (!pushed).then_some(at("2026-11-22T21:35:00Z")?),
        hash: blake3::hash(&log).to_hex().to_string(),
    };
    let finished = object.finish(&serde_json::to_vec(&metadata)?)?;
    let path = layout::log(
        &instance(),
        metadata.timeline,
        metadata.start,
        metadata.end,
        finished.identity.id,
    );
    Ok(repository.store().put_new(&path, finished.rest).await?)
}
