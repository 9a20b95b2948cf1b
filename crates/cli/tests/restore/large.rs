//! A relation of more than one segment file.

use anyhow::Result;
use everpoint_testkit::{
    Cluster,
    compare::{assert_same, check_integrity, fingerprint},
};

use crate::everpoint::Everpoint;

/// Blocks in a segment file.
const SEGMENT_BLOCKS: u32 = 131_072;

#[tokio::test]
async fn relation_of_two_segments_is_restored_after_it_changed_grew_and_shrank() -> Result<()> {
    let cluster = Cluster::builder(18)
        .setting("max_wal_size = 4GB")
        .setting("autovacuum = off")
        .start()
        .await?;
    let everpoint = Everpoint::with(&cluster).await?;
    // One row to a page.
    let table = format!(
        "CREATE TABLE large (id int, filler text) WITH (fillfactor = 10);
         ALTER TABLE large ALTER filler SET STORAGE PLAIN;
         INSERT INTO large SELECT i, repeat('x', 500) FROM generate_series(1, {SEGMENT_BLOCKS} + 1000) i"
    );
    cluster.sql("postgres", &table).await?;
    let size = "SELECT pg_relation_size('large') / 8192";
    let blocks: u32 = cluster.value("postgres", size).await?.parse()?;
    assert!(blocks > SEGMENT_BLOCKS, "{blocks} blocks");
    let full = everpoint.full().await?;
    assert!(full.restored_bytes > 1 << 30, "{full:?}");

    let changes = format!(
        "UPDATE large SET id = -id WHERE ctid = '({SEGMENT_BLOCKS},1)' OR ctid = '({},1)';
         INSERT INTO large SELECT i, repeat('y', 500) FROM generate_series(1, 100) i",
        SEGMENT_BLOCKS + 500
    );
    cluster.sql("postgres", &changes).await?;
    let differential = everpoint.differential().await?;
    assert!(differential.stored_bytes < 4 << 20, "{differential:?}");
    let expected = fingerprint(&cluster).await?;
    let restored = everpoint.restore(18, &[]).await?;
    assert_same(&expected, &fingerprint(&restored).await?);
    let found: u32 = restored.value("postgres", size).await?.parse()?;
    assert!(found > SEGMENT_BLOCKS, "{found} blocks");
    check_integrity(&restored).await?;
    drop(restored);

    // The second segment's file stays, and is empty.
    let shrink = format!(
        "DELETE FROM large WHERE ctid >= '({},0)'",
        SEGMENT_BLOCKS - 2000
    );
    cluster.sql("postgres", &shrink).await?;
    cluster.sql("postgres", "VACUUM large").await?;
    let blocks: u32 = cluster.value("postgres", size).await?.parse()?;
    assert!(blocks < SEGMENT_BLOCKS, "{blocks} blocks");
    everpoint.differential().await?;
    let expected = fingerprint(&cluster).await?;
    let restored = everpoint.restore(18, &[]).await?;
    assert_same(&expected, &fingerprint(&restored).await?);
    assert_eq!(restored.value("postgres", size).await?, blocks.to_string());
    check_integrity(&restored).await
}
