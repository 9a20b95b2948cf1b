//! A record as a line of text, which the tests compare with `pg_waldump`'s.

use everpoint_pgformat::{
    MajorVersion,
    relation::Fork,
    wal::{
        payload::PayloadError, record::Record, resource_manager::ResourceManager,
        transaction::TransactionRecord, xlog::XlogRecord,
    },
};

/// The line of a record: what `pg_waldump` prints of it, and its info bits.
pub(crate) fn line(record: &Record<'_>, version: MajorVersion) -> Result<String, PayloadError> {
    let header = record.header();
    let images: usize = record
        .blocks()
        .filter_map(|block| block.image)
        .map(|image| image.bytes.len())
        .sum();
    let mut line = format!(
        "{} {} {:02X} {} {}/{} prev {}",
        record.start(),
        record.resource_manager(),
        header.info,
        record.transaction(),
        u64::from(header.total_len) - images as u64,
        header.total_len,
        header.previous
    );
    for block in record.blocks() {
        let relation = block.relation;
        let fork = match block.fork {
            Fork::Main => "",
            Fork::FreeSpaceMap => " fork fsm",
            Fork::VisibilityMap => " fork vm",
            Fork::Init => " fork init",
        };
        line += &format!(
            " blkref #{}: rel {}/{}/{}{fork} blk {}",
            block.id, relation.tablespace, relation.database, relation.relfilenode, block.block
        );
        match block.image {
            Some(image) if image.applied => line += " FPW",
            Some(_) => line += " FPW for WAL verification",
            None => {}
        }
    }
    line += &details(record, version)?;
    Ok(line)
}

fn details(record: &Record<'_>, version: MajorVersion) -> Result<String, PayloadError> {
    Ok(match record.resource_manager() {
        ResourceManager::TRANSACTION => match TransactionRecord::parse(record, version)? {
            TransactionRecord::End(end) => format!(
                "; {:?} {} time {} children {} relations {}",
                end.kind,
                end.transaction,
                end.time.unix_microseconds(),
                end.children.iter().len(),
                end.dropped_relations.iter().len()
            ),
            TransactionRecord::Prepare(prepare) => format!(
                "; Prepare {} time {} children {} relations {}",
                prepare.transaction,
                prepare.time.unix_microseconds(),
                prepare.children.iter().len(),
                prepare.dropped_on_commit.iter().len()
            ),
            _ => String::new(),
        },
        ResourceManager::XLOG => match XlogRecord::parse(record, version)? {
            XlogRecord::RestorePoint(point) => {
                format!("; restore point {}", String::from_utf8_lossy(point.name))
            }
            XlogRecord::Checkpoint(checkpoint) => format!("; redo {}", checkpoint.redo),
            _ => String::new(),
        },
        _ => String::new(),
    })
}
