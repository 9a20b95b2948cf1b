//! Results on standard output: tables for people, JSON for programs.

use jiff::Timestamp;
use serde::Serialize;

use crate::args::OutputFormat;

/// Prints rows as a table or as JSON.
pub fn list<T: Serialize>(
    format: OutputFormat,
    rows: &[T],
    header: &[&str],
    cells: impl Fn(&T) -> Vec<String>,
    empty: &str,
) -> anyhow::Result<()> {
    match format {
        OutputFormat::Json => println!("{}", serde_json::to_string_pretty(rows)?),
        OutputFormat::Table if rows.is_empty() => println!("{empty}"),
        OutputFormat::Table => {
            let body: Vec<Vec<String>> = rows.iter().map(cells).collect();
            print!("{}", table(header, &body));
        }
    }
    Ok(())
}

/// Prints one value as JSON, or by `text`.
pub fn one<T: Serialize>(
    format: OutputFormat,
    value: &T,
    text: impl FnOnce() -> String,
) -> anyhow::Result<()> {
    match format {
        OutputFormat::Json => println!("{}", serde_json::to_string_pretty(value)?),
        OutputFormat::Table => println!("{}", text().trim_end()),
    }
    Ok(())
}

/// Columns as wide as their widest cell; the last is not padded.
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = header.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: Vec<&str>| {
        let padded: Vec<String> = cells
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        format!("{}\n", padded.join("  ").trim_end())
    };
    let mut text = line(header.to_vec());
    for row in rows {
        text.push_str(&line(row.iter().map(String::as_str).collect()));
    }
    text
}

/// A number of bytes for a person: three digits at least, binary units.
pub fn bytes(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}

/// A time to the second, in UTC.
pub fn time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// The width that text for people keeps to.
const WIDTH: usize = 80;

/// Text broken into lines of at most 80 columns, each indented; a longer word has a line of its own.
pub fn wrapped(text: &str, indent: usize) -> String {
    let mut lines = String::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        let len = line.chars().count() + 1 + word.chars().count();
        if !line.is_empty() && indent + len > WIDTH {
            lines.push_str(&format!("{:indent$}{line}\n", ""));
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push_str(&format!("{:indent$}{line}\n", ""));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_broken_at_eighty_columns() {
        let text = wrapped(&"word ".repeat(40), 4);
        assert!(
            text.lines()
                .all(|line| line.len() <= 80 && line.starts_with("    word"))
        );
        assert_eq!(text.split_whitespace().count(), 40);
        assert_eq!(
            wrapped(&"x".repeat(90), 2),
            format!("  {}\n", "x".repeat(90))
        );
    }
}
