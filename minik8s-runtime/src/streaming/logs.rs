//! Reading a container's log file: lines of `TIME STREAM TAG TEXT`, where the tag says whether the line goes on (P) in
//! the next one or is full (F).

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::Stream;
use jiff::{SignedDuration, Timestamp};
use tokio::fs::File;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncSeekExt, BufReader};

use super::Refusal;
use super::params::Params;

/// How often a follower looks for more.
const POLL: Duration = Duration::from_millis(100);
/// What is read back from the end at a time, to find the last lines.
const BLOCK: u64 = 64 * 1024;
/// Lines that are sent together.
const BATCH: usize = 32 * 1024;

/// What a client wants of a log.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Options {
    pub(super) follow: bool,
    pub(super) previous: bool,
    pub(super) timestamps: bool,
    pub(super) tail: Option<u64>,
    pub(super) since: Option<Timestamp>,
    pub(super) limit: Option<u64>,
}

impl Options {
    pub(super) fn parse(params: &Params) -> Result<Self, Refusal> {
        let number = |name: &str| match params.get(name) {
            None => Ok(None),
            Some(text) => text.parse::<u64>().map(Some).map_err(|_| {
                Refusal::bad_request(format!(
                    "{name}: Invalid value: \"{text}\": must be a number that is not negative"
                ))
            }),
        };
        let since = match (number("sinceSeconds")?, params.get("sinceTime")) {
            (Some(_), Some(_)) => {
                return Err(Refusal::bad_request(
                    "at most one of `sinceTime` or `sinceSeconds` may be specified",
                ));
            }
            (Some(seconds), None) => {
                let span = SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX));
                Some(Timestamp::now().saturating_sub(span).unwrap_or(Timestamp::MIN))
            }
            (None, Some(text)) => Some(text.parse().map_err(|_| {
                Refusal::bad_request(format!(
                    "sinceTime: Invalid value: \"{text}\": must be an RFC 3339 time"
                ))
            })?),
            (None, None) => None,
        };
        Ok(Self {
            follow: params.flag("follow"),
            previous: params.flag("previous"),
            timestamps: params.flag("timestamps"),
            tail: number("tailLines")?,
            since,
            limit: number("limitBytes")?,
        })
    }
}

/// The text of the log. With `follow` it goes on while `runs` says so, also into new files after a rotation.
pub(super) fn read(
    path: PathBuf,
    options: Options,
    runs: impl Fn() -> bool + Send + Sync + 'static,
) -> impl Stream<Item = io::Result<Bytes>> + Send {
    let reader =
        Reader { path, left: options.limit, options, file: None, partial: String::new(), over: false };
    futures::stream::unfold((reader, runs), |(mut reader, runs)| async move {
        match reader.next(&runs).await {
            Ok(Some(bytes)) => Some((Ok(bytes), (reader, runs))),
            Ok(None) => None,
            Err(error) => {
                reader.over = true;
                Some((Err(error), (reader, runs)))
            }
        }
    })
}

struct Reader {
    path: PathBuf,
    options: Options,
    left: Option<u64>,
    file: Option<BufReader<File>>,
    /// A line whose end has not been written yet.
    partial: String,
    over: bool,
}

impl Reader {
    async fn next(&mut self, runs: &(impl Fn() -> bool + Sync)) -> io::Result<Option<Bytes>> {
        if self.over || self.left == Some(0) {
            return Ok(None);
        }
        if self.file.is_none() {
            let mut file = match File::open(&self.path).await {
                Ok(file) => file,
                // Nothing has been printed yet.
                Err(error) if error.kind() == io::ErrorKind::NotFound && self.options.follow && runs() => {
                    tokio::time::sleep(POLL).await;
                    return Ok(Some(Bytes::new()));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error),
            };
            if let Some(lines) = self.options.tail {
                let start = tail_start(&mut file, lines).await?;
                file.seek(io::SeekFrom::Start(start)).await?;
            }
            self.file = Some(BufReader::new(file));
        }
        loop {
            // Asked before reading: what a process wrote before its end is read after it.
            let running = runs();
            let bytes = self.lines().await?;
            if !bytes.is_empty() {
                return Ok(Some(bytes));
            }
            if !self.options.follow {
                return Ok(None);
            }
            if self.was_rotated().await {
                self.file = None;
                self.options.tail = None;
                return Ok(Some(Bytes::new()));
            }
            if !running {
                return Ok(None);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// What there is now, as far as a batch goes.
    async fn lines(&mut self) -> io::Result<Bytes> {
        let Some(file) = &mut self.file else { return Ok(Bytes::new()) };
        let mut out = BytesMut::new();
        while out.len() < BATCH {
            if file.read_line(&mut self.partial).await? == 0 || !self.partial.ends_with('\n') {
                break;
            }
            let line = std::mem::take(&mut self.partial);
            let Some((time, text)) = parse(&line) else { continue };
            let old =
                self.options.since.is_some_and(|since| time.parse().is_ok_and(|t: Timestamp| t < since));
            if old {
                continue;
            }
            if self.options.timestamps {
                out.extend_from_slice(time.as_bytes());
                out.extend_from_slice(b" ");
            }
            out.extend_from_slice(text.as_bytes());
        }
        if let Some(left) = &mut self.left {
            out.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= out.len() as u64;
        }
        Ok(out.freeze())
    }

    /// Whether the file that is being read is no longer the one at its path.
    async fn was_rotated(&self) -> bool {
        let Some(file) = &self.file else { return false };
        let (Ok(open), Ok(there)) = (file.get_ref().metadata().await, tokio::fs::metadata(&self.path).await)
        else {
            return false;
        };
        (open.dev(), open.ino()) != (there.dev(), there.ino())
    }
}

/// The time and the text of a line; the text ends with a newline if the line is full.
fn parse(line: &str) -> Option<(&str, &str)> {
    let mut parts = line.splitn(4, ' ');
    let (time, _stream, tag, text) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let partial = tag.split(':').any(|t| t == "P");
    Some((time, if partial { text.trim_end_matches('\n') } else { text }))
}

/// Where the last `lines` full lines begin.
async fn tail_start(file: &mut File, lines: u64) -> io::Result<u64> {
    let mut end = file.metadata().await?.len();
    if lines == 0 {
        return Ok(end);
    }
    let mut found: u64 = 0;
    let last = end;
    let mut block = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        block.resize(usize::try_from(end - start).unwrap_or(usize::MAX), 0);
        file.seek(io::SeekFrom::Start(start)).await?;
        file.read_exact(&mut block).await?;
        for (offset, _) in block.iter().enumerate().rev().filter(|(_, b)| **b == b'\n') {
            let at = start + offset as u64 + 1;
            if at == last {
                continue;
            }
            found += 1;
            if found == lines {
                return Ok(at);
            }
        }
        end = start;
    }
    Ok(0)
}

#[cfg(test)]
mod tests;
