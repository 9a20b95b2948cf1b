//! Names out of the shared catalogs of a data directory, without a server.
//!
//! Whoever wants to connect has to name a role and a database, and a scratch server is reached by neither's
//! owner. Right after recovery its catalogs are on disk. `pg_authid` and `pg_database` begin alike: an OID,
//! and a name of 64 bytes.

use std::{fs, io, path::Path};

use everpoint_pgformat::{
    Oid,
    bytes::Reader,
    ids::BLOCK_SIZE,
    page::{self, Page},
    wal::relation_map::RelationMap,
};

/// `pg_authid` (`src/include/catalog/pg_authid.h`).
pub const ROLES: Oid = Oid::new(1260);
/// `pg_database` (`src/include/catalog/pg_database.h`).
pub const DATABASES: Oid = Oid::new(1262);
/// The role that `initdb` made (`BOOTSTRAP_SUPERUSERID`).
pub const BOOTSTRAP_SUPERUSER: Oid = Oid::new(10);

/// Segments of a catalog that are looked at.
const MAX_SEGMENTS: u32 = 8;

/// The names that versions of the row `oid` of a shared catalog have, the latest in the file first. Blocks.
///
/// # Errors
/// When the catalog cannot be read.
pub fn names(data: &Path, catalog: Oid, oid: Oid) -> io::Result<Vec<String>> {
    let global = data.join("global");
    let map = fs::read(global.join("pg_filenode.map"))?;
    let relfilenode = RelationMap::parse(&map).and_then(|map| map.relfilenode(catalog));
    let relfilenode = relfilenode.ok_or(io::ErrorKind::InvalidData)?;
    let mut names = Vec::new();
    for segment in 0..MAX_SEGMENTS {
        let path = match segment {
            0 => global.join(relfilenode.to_string()),
            segment => global.join(format!("{relfilenode}.{segment}")),
        };
        let bytes = match fs::read(&path) {
            Err(error) if segment > 0 && error.kind() == io::ErrorKind::NotFound => break,
            read => read?,
        };
        for page in bytes.as_chunks::<BLOCK_SIZE>().0 {
            names.extend(on_page(page, oid));
        }
    }
    names.reverse();
    let mut known = Vec::new();
    names.retain(|name| {
        let new = !known.contains(name);
        known.push(name.clone());
        new
    });
    Ok(names)
}

fn on_page(page: &Page, oid: Oid) -> Vec<String> {
    page::rows(page)
        .filter_map(|(_, row)| {
            let mut reader = Reader::new(row);
            let found = reader.u32()?;
            let name = reader.take(64)?.split(|byte| *byte == 0).next()?;
            (found == oid.get()).then(|| String::from_utf8_lossy(name).into_owned())
        })
        .collect()
}
