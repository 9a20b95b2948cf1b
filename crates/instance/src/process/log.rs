//! The end of a server's log, for errors.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

/// How much of the end is read.
const TAIL_BYTES: u64 = 64 << 10;
/// How many lines of it are shown.
const TAIL_LINES: usize = 25;

/// The last lines; empty when there is no log. Blocks.
pub(super) fn tail(path: &Path) -> String {
    match read_end(path) {
        Ok(bytes) => last_lines(&String::from_utf8_lossy(&bytes)),
        Err(_) => String::new(),
    }
}

fn read_end(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let len = file.metadata()?.len();
    file.seek(SeekFrom::Start(len.saturating_sub(TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().rev().take(TAIL_LINES).collect();
    let lines: Vec<&str> = lines.into_iter().rev().collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_of_a_long_log_is_shown() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let text: String = (0..20_000).map(|line| format!("line {line}\n")).collect();
        std::fs::write(&path, text).unwrap();
        let tail = tail(&path);
        assert_eq!(tail.lines().count(), TAIL_LINES);
        assert!(tail.ends_with("line 19999"));
        assert_eq!(super::tail(Path::new("/nowhere/log")), "");
    }
}
