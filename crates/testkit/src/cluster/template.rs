//! Clusters are copied from one that `initdb` made before: it takes most of the time that a short test takes.
//!
//! Templates lie in cargo's target directory, one per server and arguments of `initdb`. A copy gets a system
//! identifier of its own, so that it is another cluster.

use std::{
    collections::hash_map::DefaultHasher,
    fs,
    hash::{Hash, Hasher},
    io,
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use everpoint_pgformat::wal::crc32c;

use crate::{Account, Scratch, Server};

/// Where `pg_control`'s CRC lies, which covers everything before it: in format 1300 and 1700, and in 1800.
const CRC_OFFSETS: [usize; 2] = [288, 292];
/// `xlp_sysid` in the long header at the beginning of every segment of WAL.
const WAL_SYSTEM_IDENTIFIER_OFFSET: u64 = 24;

/// Makes a cluster in the empty directory `data`, as `initdb` does with these arguments.
///
/// # Errors
/// When `initdb` fails, or files cannot be written.
pub(super) async fn initialise(server: &Server, arguments: &[String], data: &Path) -> Result<()> {
    let Some(template) = place(server, arguments)? else {
        return initdb(server, arguments, data).await;
    };
    if !template.exists() {
        make(server, arguments, &template).await?;
    }
    let data = data.to_owned();
    tokio::task::spawn_blocking(move || {
        copy(&template, &data).with_context(|| format!("could not copy {}", template.display()))?;
        make_another(&data)?;
        Account::for_servers()?.own(&data)
    })
    .await?
}

async fn initdb(server: &Server, arguments: &[String], data: &Path) -> Result<()> {
    let data = format!("--pgdata={}", data.display());
    server
        .run("initdb", arguments.iter().chain([&data]))
        .await?;
    Ok(())
}

/// Where the template is or will be; none when the program does not lie in a target directory.
fn place(server: &Server, arguments: &[String]) -> Result<Option<PathBuf>> {
    let program = std::env::current_exe()?;
    // Cargo marks its target directories so.
    let mut above = program.ancestors().skip(1);
    let Some(target) = above.find(|directory| directory.join("CACHEDIR.TAG").exists()) else {
        return Ok(None);
    };
    let postgres = fs::metadata(server.tool("postgres")?)?;
    let mut hasher = DefaultHasher::new();
    (server.bin(), arguments).hash(&mut hasher);
    // Another minor version makes others.
    (postgres.len(), postgres.mtime(), postgres.mtime_nsec()).hash(&mut hasher);
    let name = format!("{}-{:016x}", server.major(), hasher.finish());
    Ok(Some(target.join("tmp/clusters").join(name)))
}

async fn make(server: &Server, arguments: &[String], template: &Path) -> Result<()> {
    let scratch = Scratch::new()?;
    let made = scratch.private_directory("data")?;
    initdb(server, arguments, &made).await?;
    let parent = template
        .parent()
        .context("a template lies in a directory")?;
    fs::create_dir_all(parent)?;
    let unfinished = tempfile::Builder::new()
        .prefix(".new-")
        .tempdir_in(parent)?;
    copy(&made, unfinished.path())?;
    let renamed = fs::rename(unfinished.path(), template);
    // Another test was faster.
    if !template.exists() {
        renamed.with_context(|| format!("could not make {}", template.display()))?;
    }
    Ok(())
}

/// Copies what is in the directory `from` into the directory `to`, with its rights.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        let metadata = entry.metadata()?;
        if metadata.is_dir() {
            fs::create_dir(&to)?;
            fs::set_permissions(&to, fs::Permissions::from_mode(metadata.mode() & 0o7777))?;
            copy(&from, &to)?;
        } else {
            // Rights come along.
            fs::copy(&from, &to)?;
        }
    }
    Ok(())
}

/// Gives a stopped cluster another system identifier.
fn make_another(data: &Path) -> Result<()> {
    // As PostgreSQL makes them.
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let process = u64::from(std::process::id()) & 0xFFF;
    let identifier = (now.as_secs() << 32) | (u64::from(now.subsec_micros()) << 12) | process;
    let path = data.join("global/pg_control");
    let mut control = fs::read(&path)?;
    let crc_at = |control: &[u8], at: usize| {
        let crc = crc32c(control.get(..at)?).to_ne_bytes();
        Some((crc, *control.get(at..)?.first_chunk::<4>()?))
    };
    let matches = |at: &usize| crc_at(&control, *at).is_some_and(|(crc, found)| crc == found);
    let at = CRC_OFFSETS.into_iter().find(matches);
    let at = at.with_context(|| format!("{} does not match its CRC", path.display()))?;
    control[..8].copy_from_slice(&identifier.to_ne_bytes());
    let crc = crc32c(&control[..at]).to_ne_bytes();
    control[at..at + 4].copy_from_slice(&crc);
    fs::write(&path, &control)?;
    let mut segments = 0;
    for entry in fs::read_dir(data.join("pg_wal"))? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            let segment = fs::OpenOptions::new().write(true).open(entry.path())?;
            segment.write_all_at(&identifier.to_ne_bytes(), WAL_SYSTEM_IDENTIFIER_OFFSET)?;
            segments += 1;
        }
    }
    ensure!(segments > 0, "{} holds no WAL", data.display());
    Ok(())
}
