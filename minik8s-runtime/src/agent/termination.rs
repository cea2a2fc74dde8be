//! A container's last words.

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// More than this of a message is not shown.
const MOST: u64 = 4096;
/// So much of the log stands in for a message, at most: bytes and lines.
const LOG_BYTES: usize = 2048;
const LOG_LINES: usize = 80;

/// What the container wrote to its termination log; or, where asked for, the end of its output.
pub(crate) fn message(log: &Path, output: Option<&Path>) -> String {
    let mut text = Vec::new();
    if let Ok(file) = std::fs::File::open(log) {
        let _ = file.take(MOST).read_to_end(&mut text);
    }
    if text.is_empty()
        && let Some(output) = output
    {
        return tail(output).unwrap_or_default();
    }
    String::from_utf8_lossy(&text).into_owned()
}

fn tail(output: &Path) -> std::io::Result<String> {
    let mut file = std::fs::File::open(output)?;
    // Each line has a time, a stream and a tag in front: read generously, then cut.
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(32 << 10)))?;
    let mut raw = Vec::new();
    file.read_to_end(&mut raw)?;
    let text = String::from_utf8_lossy(&raw);
    let mut words = String::new();
    for line in text.lines() {
        let mut parts = line.splitn(4, ' ');
        let (_, _, Some(tag), Some(content)) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        words.push_str(content);
        if tag.starts_with('F') {
            words.push('\n');
        }
    }
    let from = words.trim_end_matches('\n').rmatch_indices('\n').nth(LOG_LINES - 1).map_or(0, |(i, _)| i + 1);
    let mut from = from.max(words.len().saturating_sub(LOG_BYTES));
    while !words.is_char_boundary(from) {
        from += 1;
    }
    Ok(words[from..].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_comes_first_then_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let (log, output) = (dir.path().join("t"), dir.path().join("0.log"));
        std::fs::write(
            &output,
            "2026-01-01T00:00:00Z stdout F one\n2026-01-01T00:00:00Z stderr P t\n\
                                 2026-01-01T00:00:00Z stderr F wo\n",
        )
        .unwrap();
        assert_eq!(message(&log, None), "");
        assert_eq!(message(&log, Some(&output)), "one\ntwo\n");
        std::fs::write(&log, "because").unwrap();
        assert_eq!(message(&log, Some(&output)), "because");
        let many: String = (0..200).map(|n| format!("t stdout F {n}\n")).collect();
        std::fs::write(&output, many).unwrap();
        std::fs::write(&log, "").unwrap();
        let words = message(&log, Some(&output));
        assert_eq!(words.lines().count(), 80);
        assert!(words.ends_with("199\n"));
    }
}
