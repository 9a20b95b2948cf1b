//! What a repository of format version 1 holds, as it was written once, and what a reader must refuse.
//!
//! The fixture is never made again. A change of the code that fails here is a change of the format: it
//! needs a new version number, and a fixture of its own beside this one.

#![expect(clippy::unwrap_used, reason = "a test ends where a value is missing")]

mod fixture_v1;

use std::{
    fs,
    path::{Path, PathBuf},
};

use everpoint_pgformat::{BlockNumber, Lsn, SystemIdentifier, TimelineId, wal_summary::WalSummary};
use everpoint_repository::{
    InstanceName, ObjectId, Repository, RepositoryError, Store,
    backup::Backup,
    document,
    frame::{Codec, FrameDecoder},
    keys::{KeyError, RecoveryKey, Secret},
    layout,
    log::{LogMetadata, LogStretch},
    manifest::{BlockRun, Content, FileEntry, StoredFrame},
    object::{HEADER_BYTES, ObjectError, ObjectKind, SealedObject},
    store::Missing,
    summary::StoredSummary,
};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use fixture_v1::{PAGE, differential, full, instance};

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v1")
}

fn key_file() -> Secret {
    Secret::KeyFile(Zeroizing::new(fs::read(fixture().join("key")).unwrap()))
}

async fn open_at(root: &Path) -> Result<Repository, RepositoryError> {
    let store = Store::open(root.to_str().unwrap(), Missing::Refuse)?;
    Repository::open(store, &key_file()).await
}

async fn open() -> Repository {
    open_at(&fixture().join("repository")).await.unwrap()
}

/// A copy to do damage to.
fn copy() -> tempfile::TempDir {
    let target = tempfile::tempdir().unwrap();
    copy_directory(&fixture().join("repository"), target.path());
    target
}

fn copy_directory(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir(&target).unwrap();
            copy_directory(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn last_part(path: &str) -> &str {
    path.rsplit('/').next().unwrap()
}

fn id_of(path: &str) -> ObjectId {
    ObjectId::parse(last_part(path).rsplit('-').next().unwrap()).unwrap()
}

fn kind_of(path: &str) -> ObjectKind {
    match path.split('/').nth(2).unwrap() {
        "backups" => ObjectKind::Manifest,
        "packs" => ObjectKind::Pack,
        "log" => ObjectKind::Log,
        "summaries" => ObjectKind::Summary,
        _ => ObjectKind::Document,
    }
}

async fn sealed_objects(repository: &Repository) -> Vec<String> {
    let objects = repository.store().list("instances").await.unwrap();
    objects.into_iter().map(|info| info.path).collect()
}

/// Opens a sealed object and reads all that it holds.
async fn read_whole(repository: &Repository, path: &str) -> Result<Vec<Vec<u8>>, ObjectError> {
    let (store, keys) = (repository.store(), repository.keys());
    let object = SealedObject::open(store, keys, path, kind_of(path), id_of(path)).await?;
    let mut decoder = FrameDecoder::new().unwrap();
    let mut frames = Vec::new();
    for frame in object.frames() {
        frames.push(object.read(store, frame, &mut decoder).await?);
    }
    Ok(frames)
}

async fn files(repository: &Repository, backup: &Backup) -> Vec<FileEntry> {
    let (_, mut reader) = repository.manifest(&instance(), &backup.id).await.unwrap();
    let mut entries = Vec::new();
    while let Some(entry) = reader.next(repository.store()).await.unwrap() {
        entries.push(entry);
    }
    entries
}

/// The contents of a file's frames, read as a restore reads them: by the manifest alone.
async fn contents(repository: &Repository, backup: &Backup, frames: &[StoredFrame]) -> Vec<u8> {
    let mut decoder = FrameDecoder::new().unwrap();
    let mut all = Vec::new();
    for stored in frames {
        let pack = &backup.packs[stored.pack as usize];
        let path = layout::pack(&instance(), &pack.backup, pack.id);
        let identity = pack.identity();
        let key = repository
            .keys()
            .object_key(identity.data_key, identity.id)
            .unwrap();
        let frame = &stored.frame;
        let range = frame.offset..frame.offset + u64::from(frame.stored);
        let mut bytes = match frame.codec {
            Codec::Zero => Vec::new(),
            _ => repository
                .store()
                .get_range(&path, range)
                .await
                .unwrap()
                .to_vec(),
        };
        let mut raw = vec![0; frame.raw as usize];
        decoder
            .decode(frame, &identity.header(), &key, &mut bytes, &mut raw)
            .unwrap();
        assert_eq!(*blake3::hash(&raw).as_bytes(), stored.hash);
        all.extend(raw);
    }
    all
}

#[tokio::test]
async fn every_secret_opens_the_repository() {
    let recovery = fs::read_to_string(fixture().join("recovery-key")).unwrap();
    let secrets = [
        key_file(),
        Secret::Passphrase(Zeroizing::new(fixture_v1::PASSPHRASE.to_owned())),
        Secret::Recovery(RecoveryKey::parse(&recovery).unwrap()),
    ];
    assert_eq!(
        fs::read(fixture().join("key")).unwrap(),
        fixture_v1::KEY_FILE
    );
    for secret in secrets {
        let root = fixture().join("repository");
        let store = Store::open(root.to_str().unwrap(), Missing::Refuse).unwrap();
        let repository = Repository::open(store, &secret).await.unwrap();
        assert_eq!(
            repository.id().to_string(),
            "784045cd-2d1d-4f56-9cdd-2787627ecf1f"
        );
        assert_eq!(repository.instances().await.unwrap(), [instance()]);
    }
}

#[tokio::test]
async fn its_objects_have_these_names() {
    let objects = open().await.store().list("").await.unwrap();
    let names: Vec<&str> = objects.iter().map(|info| info.path.as_str()).collect();
    let expected = [
        "everpoint.json",
        "instances/shop/backups/20261122T213000Z-full-0000000a/manifest-100c4fe4e5814b56823ce63b86833389",
        "instances/shop/backups/20261123T093000Z-differential-0000000b/manifest-123198db0bf0469091b29ff4cbaac59c",
        "instances/shop/gaps/00000001-0000000003003000-0000000003003800-94f52e7a338347bbbf345ea378e67355",
        "instances/shop/instance/00000000-904b305b76ca4d8f97b9628249fe663c",
        "instances/shop/instance/00000001-23934e04c35946228a97bed3d915b7a1",
        "instances/shop/log/00000001/0000000003000028-0000000003001000-3a9ef06566b045a784ec11902ca18b5c",
        "instances/shop/log/00000001/0000000003001000-0000000003002800-6ed0ca3351c247839c752ca5a574c1b3",
        "instances/shop/log/00000001/0000000003002000-0000000003003000-e2ac76de49a742cba54de011436e367a",
        "instances/shop/log/00000001/0000000003003800-0000000003004000-50cd079ee5f048bd9776f0d646b8077a",
        "instances/shop/log/00000002/0000000003004000-0000000003004100-3e38b4ef47ed494d81778ebca2b979cd",
        "instances/shop/packs/20261122T213000Z-full-0000000a/4837bd3e0eac45bb889ff0d0bad37f43",
        "instances/shop/packs/20261122T213000Z-full-0000000a/518bd0924976487d9c197490c9e0d3de",
        "instances/shop/packs/20261123T093000Z-differential-0000000b/34e4c1de22454ac3b5bb9e11b98d894d",
        "instances/shop/summaries/00000001/00000000007e7bc0-0000000000807600-404fb373bb254200a9deab70124f61ac",
        "instances/shop/timelines/00000002-f8a65aed353146038ea2292438108501",
        "keys/data/00000000-8cc750026df747b8931e2e30558b3fd5.json",
        "keys/slots/1356c24dc5cb4a019f3b9b1874bf2dec.json",
        "keys/slots/59741a836f3041d3b1b8a8ca452d8798.json",
        "keys/slots/c223419aad744124b1f37bcd0fab39dc.json",
    ];
    assert_eq!(names, expected);
}

#[tokio::test]
async fn a_header_is_laid_out_as_specified() {
    let repository = open().await;
    for path in sealed_objects(&repository).await {
        let bytes = repository.store().get(&path).await.unwrap();
        assert_eq!(bytes[..8], *b"EVPTOBJ1");
        assert_eq!(bytes[8..10], [1, 0]);
        let folder = path.split('/').nth(2).unwrap();
        let kind = match folder {
            "packs" => 1,
            "backups" => 2,
            "log" => 3,
            "summaries" => 5,
            _ => 4,
        };
        assert_eq!(bytes[10..16], [kind, 1, 0, 0, 0, 0]);
        assert_eq!(
            ObjectId::from_bytes(bytes[16..32].try_into().unwrap()),
            id_of(&path)
        );
        let data_key = ObjectId::from_bytes(bytes[32..48].try_into().unwrap());
        assert_eq!(data_key, repository.keys().current());
        assert_eq!(bytes[48..64], [0; 16]);
        let trailer = &bytes[bytes.len() - 24..];
        let index = u64::from_le_bytes(trailer[..8].try_into().unwrap());
        let stored = u32::from_le_bytes(trailer[8..12].try_into().unwrap());
        assert_eq!(index + u64::from(stored) + 24, bytes.len() as u64);
        assert_eq!(trailer[16..], *b"EVPTEND1");
    }
}

#[tokio::test]
async fn backups_say_what_was_written() {
    let backups = open().await.backups(&instance()).await.unwrap();
    let found: Vec<Value> = backups
        .iter()
        .map(|backup| serde_json::to_value(backup).unwrap())
        .collect();
    let pack = |id: &str, backup: &str, size: u64| {
        let data_key = "8cc75002-6df7-47b8-931e-2e30558b3fd5";
        json!({ "id": id, "backup": backup, "data_key": data_key, "size": size })
    };
    let shared = pack("4837bd3e-0eac-45bb-889f-f0d0bad37f43", full().as_str(), 201);
    let both = |own: Value| {
        let mut all = json!({
            "system_identifier": 7_300_000_000_000_000_001_u64,
            "version": 17,
            "server_version_num": 170_010,
            "timeline": 1,
            "segment_size": 16 << 20,
            "blocks_per_segment": 131_072,
            "checksums": true,
            "control_file": "a4060000",
            "backup_label": "START WAL LOCATION: 0/3000028 (file 000000010000000000000003)\n",
            "tablespaces": [
                { "oid": 16400, "location": "/srv/fast" },
                { "oid": 16401, "location": "" },
            ],
            "databases": [
                { "oid": 5, "name": "postgres" },
                { "oid": 16384, "name": "shop" },
            ],
            "directories": [
                { "path": "", "mode": 0o700 },
                { "path": "base", "mode": 0o700 },
                { "path": "base/16384", "mode": 0o700 },
                { "path": "global", "mode": 0o700 },
                { "path": "pg_tblspc", "mode": 0o700 },
                { "path": "pg_tblspc/16400", "mode": 0o700 },
            ],
            "sections": ["PG_VERSION"],
            "written_by": "0.1.0",
        });
        all.as_object_mut()
            .unwrap()
            .extend(own.as_object().unwrap().clone());
        all
    };
    let expected = [
        both(json!({
            "id": full().as_str(),
            "type": "full",
            "start_lsn": "0/3000028",
            "stop_lsn": "0/3000120",
            "started_at": "2026-11-22T21:30:00Z",
            "stopped_at": "2026-11-22T21:30:09.5Z",
            "packs": [
                shared,
                pack("518bd092-4976-487d-9c19-7490c9e0d3de", full().as_str(), 8_547),
            ],
            "totals": {
                "files": 7,
                "restored_bytes": 73_731,
                "read_bytes": 73_731,
                "stored_bytes": 8_469,
                "reused_bytes": 0,
            },
            "damaged_pages": [{ "path": "base/16384/16392", "blocks": [0] }],
        })),
        both(json!({
            "id": differential().as_str(),
            "type": "differential",
            "base": full().as_str(),
            "start_lsn": "0/3002100",
            "stop_lsn": "0/3002200",
            "started_at": "2026-11-23T09:30:00Z",
            "stopped_at": "2026-11-23T09:30:05.25Z",
            "packs": [
                shared,
                pack("34e4c1de-2245-4ac3-b5bb-9e11b98d894d", differential().as_str(), 195),
            ],
            "totals": {
                "files": 2,
                "restored_bytes": 40_963,
                "read_bytes": 40_963,
                "stored_bytes": 73,
                "reused_bytes": 3,
            },
            "damaged_pages": [],
        })),
    ];
    assert_eq!(found, expected);
}

#[tokio::test]
async fn the_full_backup_holds_every_file() {
    let repository = open().await;
    let backup = repository.backups(&instance()).await.unwrap().remove(0);
    let entries = files(&repository, &backup).await;
    let expected = fixture_v1::full_files();
    assert_eq!(entries.len(), expected.len());
    let mut codecs = Vec::new();
    for (entry, (path, mode, bytes)) in entries.iter().zip(expected) {
        assert_eq!(
            (entry.path.as_str(), entry.mode, entry.size),
            (path, mode, bytes.len() as u64)
        );
        let Content::Whole(frames) = &entry.content else {
            panic!("{path} is not whole")
        };
        assert_eq!(
            contents(&repository, &backup, frames).await,
            bytes,
            "{path}"
        );
        let number = u32::from(path.contains("/16384/"));
        assert!(frames.iter().all(|frame| frame.pack == number), "{path}");
        codecs.push(
            frames
                .iter()
                .map(|frame| frame.frame.codec)
                .collect::<Vec<_>>(),
        );
    }
    use Codec::{Plain, Zero, Zstd};
    let expected: [&[Codec]; 7] = [
        &[Plain],
        &[Zstd, Zstd],
        &[Zero],
        &[Plain],
        &[],
        &[Zstd],
        &[Zstd],
    ];
    assert_eq!(codecs, expected);
}

#[tokio::test]
async fn the_differential_backup_holds_the_changed_blocks_and_refers_to_the_rest() {
    let repository = open().await;
    let backup = repository.backups(&instance()).await.unwrap().remove(1);
    let entries = files(&repository, &backup).await;
    let [version, table] = entries.as_slice() else {
        panic!("{entries:?}")
    };
    assert_eq!((version.path.as_str(), version.size), ("PG_VERSION", 3));
    assert_eq!(
        contents(&repository, &backup, version.frames()).await,
        b"17\n"
    );
    assert_eq!(
        backup.packs[version.frames()[0].pack as usize].backup,
        full()
    );
    assert_eq!(
        (table.path.as_str(), table.size),
        ("base/16384/16390", 5 * PAGE as u64)
    );
    let Content::Blocks { runs, frames } = &table.content else {
        panic!("{table:?}")
    };
    assert_eq!(
        *runs,
        [
            BlockRun { first: 1, count: 1 },
            BlockRun { first: 3, count: 2 }
        ]
    );
    assert_eq!(frames.len(), 1);
    let pages: Vec<u8> = fixture_v1::CHANGED_BLOCKS
        .iter()
        .flat_map(|block| fixture_v1::page(*block, 2))
        .collect();
    assert_eq!(contents(&repository, &backup, frames).await, pages);
}

#[tokio::test]
async fn log_backups_hold_the_log_that_their_names_say() {
    let repository = open().await;
    let index = repository.log_index(&instance()).await.unwrap();
    let stretches: Vec<LogStretch> = index.stretches().cloned().collect();
    assert_eq!(stretches.len(), fixture_v1::STRETCHES.len());
    for (stretch, expected) in stretches.iter().zip(fixture_v1::STRETCHES) {
        let (timeline, start, end, sizes) = expected;
        let found = (
            stretch.timeline.get(),
            stretch.start.get(),
            stretch.end.get(),
        );
        assert_eq!(found, (timeline, start, end));
        let frames = read_whole(&repository, &stretch.path).await.unwrap();
        assert_eq!(frames.iter().map(Vec::len).collect::<Vec<_>>(), sizes);
        let log = fixture_v1::log(timeline, start, end);
        assert_eq!(frames.concat(), log);
        let (store, keys) = (repository.store(), repository.keys());
        let object = SealedObject::open(store, keys, &stretch.path, ObjectKind::Log, stretch.id);
        let object = object.await.unwrap();
        let read: LogMetadata = serde_json::from_slice(object.metadata()).unwrap();
        let streamed = |text: &str| (timeline == 1).then(|| text.to_owned());
        let expected = json!({
            "system_identifier": 7_300_000_000_000_000_001_u64,
            "timeline": timeline,
            "start": Lsn::new(start).to_string(),
            "end": Lsn::new(end).to_string(),
            "segment_size": 16 << 20,
            "first_sent_at": streamed("2026-11-22T21:30:01.000001Z"),
            "complete_at": streamed("2026-11-22T21:35:00Z"),
            "hash": blake3::hash(&log).to_hex().to_string(),
        });
        assert_eq!(serde_json::to_value(&read).unwrap(), expected);
    }
}

#[tokio::test]
async fn log_is_complete_up_to_its_hole_and_goes_over_to_the_next_timeline() {
    let repository = open().await;
    let index = repository.log_index(&instance()).await.unwrap();
    let second = TimelineId::new(2).unwrap();
    assert_eq!(index.timelines(), [TimelineId::FIRST, second]);
    let hole = (
        TimelineId::FIRST,
        Lsn::new(0x0300_3000),
        Lsn::new(0x0300_3800),
    );
    assert_eq!(index.holes(), [hole]);
    let start = Lsn::new(0x0300_0028);
    assert_eq!(
        index.complete_until(TimelineId::FIRST, start),
        Lsn::new(0x0300_3000)
    );
    assert_eq!(
        index.complete_until(second, Lsn::new(0x0300_3800)),
        Lsn::new(0x0300_4100)
    );
    let pieces = index
        .pieces(second, Lsn::new(0x0300_3900), Lsn::new(0x0300_4080))
        .unwrap();
    let taken: Vec<(u32, u64, u64)> = pieces
        .iter()
        .map(|piece| {
            (
                piece.stretch.timeline.get(),
                piece.from.get(),
                piece.to.get(),
            )
        })
        .collect();
    assert_eq!(
        taken,
        [(1, 0x0300_3900, 0x0300_4000), (2, 0x0300_4000, 0x0300_4080)]
    );
}

/// Everything that a summary says, a line each.
fn lines_of(summary: &WalSummary) -> String {
    let mut lines = vec![format!(
        "{:?} {} {} to {}: {} records, {:?}, {:?}",
        summary.version,
        summary.timeline,
        summary.start,
        summary.end,
        summary.records,
        summary.custom,
        summary.carried
    )];
    let changes = &summary.changes;
    lines.push(format!("everything changed: {:?}", changes.everything()));
    let mut directories: Vec<_> = changes.directories().collect();
    directories.sort();
    lines.extend(directories.iter().map(|directory| format!("{directory:?}")));
    let mut forks: Vec<_> = changes.forks().collect();
    forks.sort_by_key(|(id, _)| *id);
    for (id, fork) in forks {
        let relation = id.relation;
        let runs = fork
            .blocks()
            .runs()
            .map(|run| format!("{}+{}", run.start, run.count));
        lines.push(format!(
            "fork {}/{}/{} {:?} limit {:?} blocks {}",
            relation.tablespace,
            relation.database,
            relation.relfilenode,
            id.fork,
            fork.limit().map(BlockNumber::get),
            runs.collect::<Vec<_>>().join(" ")
        ));
    }
    let times = &summary.times;
    lines.extend(times.transactions().iter().map(|mark| format!("{mark:?}")));
    lines.extend(
        times
            .restore_points()
            .iter()
            .map(|point| format!("{point:?}")),
    );
    lines.extend(
        summary
            .databases
            .events()
            .iter()
            .map(|event| format!("{event:?}")),
    );
    lines.extend(
        summary
            .relations
            .events()
            .iter()
            .map(|event| format!("{event:?}")),
    );
    let transactions = &summary.transactions;
    lines.extend(
        transactions
            .ended()
            .iter()
            .map(|ended| format!("{ended:?}")),
    );
    lines.extend(
        transactions
            .unfinished()
            .iter()
            .map(|open| format!("{open:?}")),
    );
    lines.join("\n") + "\n"
}

#[tokio::test]
async fn a_summary_of_log_says_what_was_written_and_is_written_the_same_way() {
    let repository = open().await;
    let stored = repository.summaries(&instance()).await.unwrap();
    let [stored] = &stored[..] else {
        panic!("{stored:?}")
    };
    let cluster = SystemIdentifier::new(7_300_000_000_000_000_001);
    let summary = repository
        .read_summary(stored, Some(cluster))
        .await
        .unwrap();
    let expected = fs::read_to_string(fixture().join("summary.txt")).unwrap();
    let lines = lines_of(&summary);
    for (found, expected) in lines.lines().zip(expected.lines()) {
        assert_eq!(found, expected);
    }
    assert_eq!(lines, expected);
    // The contents are one frame, and no other bytes say the same.
    let frames = read_whole(&repository, &stored.path).await.unwrap();
    assert_eq!(frames, [summary.encode()]);

    let other = SystemIdentifier::new(7_300_000_000_000_000_002);
    let refused = repository
        .read_summary(stored, Some(other))
        .await
        .unwrap_err();
    assert!(
        refused.to_string().contains("another cluster's"),
        "{refused}"
    );
    for changed in [
        StoredSummary {
            start: Lsn::new(0x1000),
            ..stored.clone()
        },
        StoredSummary {
            end: stored.end.advance(8),
            ..stored.clone()
        },
        StoredSummary {
            timeline: TimelineId::new(2).unwrap(),
            ..stored.clone()
        },
    ] {
        let refused = repository
            .read_summary(&changed, Some(cluster))
            .await
            .unwrap_err();
        assert!(
            refused.to_string().contains("it tells of other log"),
            "{refused}"
        );
    }
}

#[tokio::test]
async fn documents_say_what_was_written() {
    let repository = open().await;
    let documents = repository.timeline_documents(&instance()).await.unwrap();
    let [document] = documents.as_slice() else {
        panic!("{documents:?}")
    };
    assert_eq!(
        (document.timeline.get(), document.text.as_str()),
        (2, fixture_v1::HISTORY)
    );
    let gaps = repository.gaps(&instance()).await.unwrap();
    let expected = json!([{
        "timeline": 1,
        "from": "0/3003000",
        "to": "0/3003800",
        "reason": "the server removed log that the slot was to keep",
        "noticed_at": "2026-11-23T10:00:00Z",
    }]);
    assert_eq!(serde_json::to_value(&gaps).unwrap(), expected);
    // The highest revision holds.
    let (revision, description): (u32, Value) = repository.description(&instance()).await.unwrap();
    let expected = json!({
        "system_identifier": 7_300_000_000_000_000_001_u64,
        "version": 17,
        "connection": "host=/run/postgresql user=everpoint dbname=postgres",
        "data_directory": "/srv/postgresql/17/shop",
        "segment_size": 16 << 20,
        "wal": { "kind": "stream", "slot": "everpoint_shop" },
        "added_at": "2026-11-22T21:05:00Z",
    });
    assert_eq!((revision, description), (1, expected));
}

#[tokio::test]
async fn new_objects_can_be_added_to_it() {
    let directory = copy();
    let repository = open_at(directory.path()).await.unwrap();
    let name: InstanceName = "second".parse().unwrap();
    repository
        .write_description(&name, 0, &json!({ "x": 1 }))
        .await
        .unwrap();
    let read: (u32, Value) = repository.description(&name).await.unwrap();
    assert_eq!(read, (0, json!({ "x": 1 })));
}

#[tokio::test]
async fn a_flipped_byte_in_any_sealed_object_is_refused() {
    let directory = copy();
    let repository = open_at(directory.path()).await.unwrap();
    let mut kinds = Vec::new();
    for path in sealed_objects(&repository).await {
        read_whole(&repository, &path).await.unwrap();
        kinds.push(kind_of(&path));
        let file = directory.path().join(&path);
        let bytes = fs::read(&file).unwrap();
        // Of the one large object, the header, parts of the frames, and the end.
        let step = bytes.len().div_ceil(1500);
        for position in (0..bytes.len()).filter(|at| at % step == 0 || at + 100 > bytes.len()) {
            let mut damaged = bytes.clone();
            damaged[position] ^= 1;
            fs::write(&file, damaged).unwrap();
            let read = read_whole(&repository, &path).await;
            assert!(read.is_err(), "byte {position} of {path}");
        }
        for len in [0, HEADER_BYTES, bytes.len() - 1] {
            fs::write(&file, &bytes[..len]).unwrap();
            let read = read_whole(&repository, &path).await;
            assert!(
                matches!(read, Err(ObjectError::Damaged { .. })),
                "{path} cut to {len}"
            );
        }
        fs::write(&file, bytes).unwrap();
    }
    for kind in [
        ObjectKind::Pack,
        ObjectKind::Manifest,
        ObjectKind::Log,
        ObjectKind::Document,
    ] {
        assert!(kinds.contains(&kind), "{kind:?}");
    }
}

#[tokio::test]
async fn a_newer_version_of_any_sealed_object_is_refused_as_such() {
    let directory = copy();
    let repository = open_at(directory.path()).await.unwrap();
    for path in sealed_objects(&repository).await {
        let file = directory.path().join(&path);
        let mut bytes = fs::read(&file).unwrap();
        bytes[8] = 2;
        fs::write(&file, bytes).unwrap();
        let read = read_whole(&repository, &path).await;
        assert!(
            matches!(read, Err(ObjectError::Newer { version: 2, .. })),
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_sealed_object_under_another_ones_name_is_refused() {
    let directory = copy();
    let repository = open_at(directory.path()).await.unwrap();
    let paths = sealed_objects(&repository).await;
    for path in &paths {
        let file = directory.path().join(path);
        let own = fs::read(&file).unwrap();
        for other in paths.iter().filter(|other| *other != path) {
            fs::write(&file, fs::read(directory.path().join(other)).unwrap()).unwrap();
            let read = read_whole(&repository, path).await;
            assert!(
                matches!(read, Err(ObjectError::Damaged { .. })),
                "{other} as {path}"
            );
        }
        fs::write(&file, own).unwrap();
    }
}

#[tokio::test]
async fn a_manifest_in_another_backups_folder_is_refused() {
    let directory = copy();
    let repository = open_at(directory.path()).await.unwrap();
    let (_, path, _) = repository.manifests(&instance()).await.unwrap().remove(0);
    let folder = layout::backups(&instance());
    let moved = format!(
        "{folder}/20261122T213000Z-full-0000000c/{}",
        last_part(&path)
    );
    fs::create_dir(directory.path().join(&moved).parent().unwrap()).unwrap();
    fs::rename(directory.path().join(&path), directory.path().join(&moved)).unwrap();
    let read = repository.backups(&instance()).await;
    let Err(RepositoryError::Object(ObjectError::Damaged { path, .. })) = read else {
        panic!("{read:?}")
    };
    assert_eq!(path, moved);
}

#[tokio::test]
async fn a_document_of_another_kind_is_refused() {
    let repository = open().await;
    let (store, keys) = (repository.store(), repository.keys());
    let history = store
        .list(&layout::timelines(&instance()))
        .await
        .unwrap()
        .remove(0)
        .path;
    let id = id_of(&history);
    let read = document::read::<everpoint_repository::log::GapDocument>(store, keys, &history, id);
    assert!(matches!(read.await, Err(ObjectError::Damaged { .. })));
}

#[tokio::test]
async fn a_flipped_byte_in_the_marker_or_a_key_object_is_refused() {
    let directory = copy();
    let names = open_at(directory.path())
        .await
        .unwrap()
        .store()
        .list("keys")
        .await
        .unwrap();
    let of_this_secret = |path: &str| {
        let text = fs::read_to_string(directory.path().join(path)).unwrap();
        path.starts_with(layout::DATA_KEYS) || text.contains("key-file")
    };
    let mut objects: Vec<String> = names
        .into_iter()
        .map(|info| info.path)
        .filter(|path| of_this_secret(path))
        .collect();
    objects.push(layout::MARKER.to_owned());
    assert_eq!(objects.len(), 3);
    for path in objects {
        let file = directory.path().join(&path);
        let bytes = fs::read(&file).unwrap();
        // When the repository was made is for people, and not sealed.
        let text = String::from_utf8(bytes.clone()).unwrap();
        let date = text
            .find("\"created\": \"")
            .map_or(0..0, |at| at + 12..at + 32);
        for position in (0..bytes.len()).filter(|at| !date.contains(at)) {
            let mut damaged = bytes.clone();
            damaged[position] ^= 1;
            fs::write(&file, damaged).unwrap();
            assert!(
                open_at(directory.path()).await.is_err(),
                "byte {position} of {path}"
            );
        }
        fs::write(&file, bytes).unwrap();
    }
}

#[tokio::test]
async fn a_newer_repository_is_refused_as_such() {
    let directory = copy();
    let file = directory.path().join(layout::MARKER);
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains("\"version\": 1,"));
    fs::write(&file, text.replace("\"version\": 1,", "\"version\": 2,")).unwrap();
    let opened = open_at(directory.path()).await;
    assert!(matches!(
        opened,
        Err(RepositoryError::Newer { version: 2, .. })
    ));
}

#[tokio::test]
async fn the_keys_of_another_repository_are_refused() {
    let directory = copy();
    let file = directory.path().join(layout::MARKER);
    let text = fs::read_to_string(&file).unwrap();
    let other = text.replace(
        "784045cd-2d1d-4f56-9cdd-2787627ecf1f",
        "00000000-0000-4000-8000-000000000000",
    );
    assert_ne!(text, other);
    fs::write(&file, other).unwrap();
    let opened = open_at(directory.path()).await;
    assert!(matches!(
        opened,
        Err(RepositoryError::Key(KeyError::Wrong { .. }) | RepositoryError::DamagedMarker { .. })
    ));
}
