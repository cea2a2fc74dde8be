use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use proptest::prelude::*;

use super::frame::{FILE_HEADER, FRAME_HEADER};
use super::*;
use crate::storage::{Compare, Draft};

fn draft(text: &str) -> Draft {
    let head = format!("{{\"text\":\"{text}\",\"metadata\":{{\"resourceVersion\":\"");
    Draft::new(format!("{head}\"}}}}").into_bytes(), head.len())
}

async fn put(storage: &EmbeddedStorage, keys: &[&str], text: &str) -> u64 {
    let ops = keys.iter().map(|key| Op::Put((*key).to_owned(), draft(text))).collect();
    match storage.txn(Txn { compare: Vec::new(), ops }).await.expect("a transaction") {
        TxnOutcome::Committed(written) => written[0].revision(),
        refused => panic!("{refused:?}"),
    }
}

/// Keys and values, as text.
type Map = BTreeMap<String, String>;

async fn all(storage: &EmbeddedStorage) -> (u64, Map) {
    let page = storage.list(&Query::default()).await.expect("a list");
    let text = |v: &Stored| String::from_utf8(v.json().to_vec()).expect("text");
    (page.revision, page.items.iter().map(|(k, v)| (k.to_string(), text(v))).collect())
}

fn only_log(dir: &Path) -> PathBuf {
    let logs = fs::read_dir(dir).expect("a directory").map(|e| e.expect("an entry").path());
    let mut logs: Vec<_> =
        logs.filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("log-"))).collect();
    assert_eq!(logs.len(), 1);
    logs.pop().expect("one")
}

/// A log of a few transactions of one frame each: its bytes, and what there was after each of its frames' ends.
async fn history(dir: &Path) -> (String, Vec<u8>, BTreeMap<usize, (u64, Map)>) {
    let storage = EmbeddedStorage::open(dir).expect("opens");
    let log = only_log(dir);
    let mut states = BTreeMap::from([(FILE_HEADER, all(&storage).await)]);
    let used = || {
        let bytes = fs::read(&log).expect("a log");
        let zeros = bytes.iter().rev().take_while(|b| **b == 0).count();
        bytes.len() - zeros
    };
    for step in 0..3 {
        put(&storage, &["a/1", &format!("b/{step}")], &format!("{step}")).await;
        states.insert(used(), all(&storage).await);
    }
    let delete = Txn { compare: Vec::new(), ops: vec![Op::Delete("a/1".into(), draft("gone"))] };
    storage.txn(delete).await.expect("a transaction");
    let end = used();
    states.insert(end, all(&storage).await);
    drop(storage);
    let mut bytes = fs::read(&log).expect("a log");
    bytes.truncate(end);
    (log.file_name().expect("a name").to_str().expect("text").to_owned(), bytes, states)
}

/// A directory that holds just this log.
fn with_log(name: &str, bytes: &[u8]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join(name), bytes).expect("written");
    dir
}

#[tokio::test]
async fn a_log_that_ends_anywhere_opens_to_what_was_acknowledged_before() {
    let dir = tempfile::tempdir().expect("a directory");
    let (name, bytes, states) = history(dir.path()).await;
    for end in FILE_HEADER..=bytes.len() {
        let mut torn = bytes[..end].to_vec();
        // With and without room that had been set aside.
        torn.resize(end + end % 2 * 100, 0);
        let dir = with_log(&name, &torn);
        let storage = EmbeddedStorage::open(dir.path()).expect("opens");
        let (_, expected) = states.range(..=end).next_back().expect("the beginning");
        assert_eq!(&all(&storage).await, expected, "cut at {end}");
        if end % 16 != 0 {
            continue;
        }
        // And it goes on from there, durably.
        assert_eq!(put(&storage, &["a/new"], "after the crash").await, expected.0 + 1);
        let now = all(&storage).await;
        drop(storage);
        let storage = EmbeddedStorage::open(dir.path()).expect("opens again");
        assert_eq!(all(&storage).await, now);
    }
    for end in 0..FILE_HEADER {
        let dir = with_log(&name, &bytes[..end]);
        assert!(EmbeddedStorage::open(dir.path()).is_err(), "a file of {end} bytes is no log");
    }
}

#[tokio::test]
async fn a_damaged_last_record_is_never_served() {
    let dir = tempfile::tempdir().expect("a directory");
    let (name, bytes, states) = history(dir.path()).await;
    let (&last, _) = states.range(..bytes.len()).next_back().expect("a record before the last");
    for at in last..bytes.len() {
        for flip in [0x01, 0xff] {
            let mut damaged = bytes.clone();
            damaged[at] ^= flip;
            let dir = with_log(&name, &damaged);
            let storage = EmbeddedStorage::open(dir.path()).expect("opens");
            assert_eq!(&all(&storage).await, &states[&last], "byte {at} changed by {flip:#x}");
            let kept = fs::read(dir.path().join("cut-off")).expect("what was cut off is kept");
            assert_eq!(kept.len(), bytes.len() - last);
        }
    }
}

#[tokio::test]
async fn damage_before_the_last_record_is_reported_and_what_can_be_read_can_be_saved() {
    let dir = tempfile::tempdir().expect("a directory");
    let (name, bytes, states) = history(dir.path()).await;
    let (&last, _) = states.range(..bytes.len()).next_back().expect("a record before the last");
    for at in 0..last {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        let dir = with_log(&name, &damaged);
        let error = EmbeddedStorage::open(dir.path()).expect_err("damage is noticed");
        assert!(matches!(error, StorageError::Corrupt(_)), "byte {at}: {error}");
        let text = error.to_string();
        assert!(text.contains(&name) && text.contains("restore") && text.contains("--salvage"), "{text}");
        assert_eq!(fs::read(dir.path().join(&name)).expect("a log"), damaged, "nothing is changed");
        let (state, lost) = salvage(dir.path()).expect("something can be read");
        assert_eq!(lost.len(), 1, "{lost:?}");
        // Whatever is saved was written so.
        let written: Vec<_> = states.values().flat_map(|(_, map)| map.values()).collect();
        for kept in state.contents().records {
            let text = String::from_utf8(kept.value.json().to_vec()).expect("text");
            assert!(kept.removed || written.contains(&&text), "{text}");
        }
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        // A snapshot may be finished, or what it stands for removed, in the meantime.
        let _ = fs::copy(entry.path(), to.join(entry.file_name()));
    }
}

const SMALL: Compaction = Compaction { log_bytes: 512 };
const SHORT: Retention = Retention { changes: 5 };

fn open(dir: &Path) -> EmbeddedStorage {
    EmbeddedStorage::with(dir, SHORT, SMALL).expect("opens")
}

#[tokio::test]
async fn the_log_is_replaced_by_snapshots() {
    let dir = tempfile::tempdir().expect("a directory");
    let storage = open(dir.path());
    for step in 0..400 {
        put(&storage, &[&format!("a/{}", step % 10)], &"x".repeat(100)).await;
    }
    let now = all(&storage).await;
    drop(storage);
    let size: u64 = fs::read_dir(dir.path())
        .expect("a directory")
        .map(|e| e.expect("one").metadata().expect("known").len())
        .sum();
    // Ten values and ten changes; the room that is set aside in the log is on top.
    assert!(size < 5 * 1024 * 1024, "{size} bytes");
    let files = directory::Files::list(dir.path()).expect("a directory");
    assert!(!files.is_empty() && files.snapshot().is_some());
    assert_eq!(all(&open(dir.path())).await, now);
}

#[tokio::test]
async fn a_damaged_snapshot_is_never_served() {
    let dir = tempfile::tempdir().expect("a directory");
    let storage = open(dir.path());
    for step in 0..60 {
        put(&storage, &[&format!("a/{}", step % 3)], &format!("{step}")).await;
    }
    drop(storage);
    let revision = directory::Files::list(dir.path()).expect("a directory").snapshot().expect("a snapshot");
    let path = dir.path().join(directory::snapshot_name(revision));
    let bytes = fs::read(&path).expect("a snapshot");
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x04;
        fs::write(&path, &damaged).expect("written");
        let error = EmbeddedStorage::open(dir.path()).expect_err("damage is noticed");
        assert!(matches!(&error, StorageError::Corrupt(_)), "byte {at}: {error}");
        fs::write(&path, &bytes[..at]).expect("written");
        EmbeddedStorage::open(dir.path()).expect_err("so is an end that comes too early");
    }
    fs::write(&path, &bytes).expect("written");
    EmbeddedStorage::open(dir.path()).expect("nothing else is wrong with it");
    // A log that is gone is noticed too, if others follow.
    fs::remove_file(&path).expect("removed");
    EmbeddedStorage::open(dir.path()).expect_err("the beginning is missing");
}

#[tokio::test]
async fn a_second_process_is_told_who_is_there() {
    let dir = tempfile::tempdir().expect("a directory");
    let _storage = EmbeddedStorage::open(dir.path()).expect("opens");
    let error = EmbeddedStorage::open(dir.path()).expect_err("one at a time").to_string();
    assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
}

#[tokio::test]
async fn what_is_no_storage_or_a_newer_one_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("file");
    fs::write(&file, "something").expect("written");
    EmbeddedStorage::open(&file).expect_err("a file is no directory");
    let (name, mut bytes, _) = history(&dir.path().join("kept")).await;
    bytes[8] = 2;
    let sum = crc32c::crc32c(&bytes[..24]).to_le_bytes();
    bytes[24..28].copy_from_slice(&sum);
    let newer = with_log(&name, &bytes);
    let error = EmbeddedStorage::open(newer.path()).expect_err("a newer format").to_string();
    assert!(error.contains("format 2") && error.contains("use the version that wrote it"), "{error}");
}

#[derive(Clone, Debug)]
enum Step {
    Put(u8, usize),
    Delete(u8),
    /// A transaction of several writes, under a condition that holds.
    Several(u8, u8),
    Compact(u8),
    Reopen,
    /// Goes on with a copy of the files as they are, while the storage is open.
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0..8_u8, 0..200_usize).prop_map(|(k, size)| Step::Put(k, size)),
        3 => (0..8_u8).prop_map(Step::Delete),
        2 => (0..8_u8, 0..8_u8).prop_map(|(a, b)| Step::Several(a, b)),
        1 => (0..20_u8).prop_map(Step::Compact),
        1 => Just(Step::Reopen),
        1 => Just(Step::Crash),
    ];
    prop::collection::vec(step, 1..80)
}

async fn run(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let root = tempfile::tempdir().expect("a directory");
    let mut dir = root.path().join("0");
    let mut storage = Some(open(&dir));
    let mut events: Vec<(String, u64, bool)> = Vec::new();
    for (number, step) in steps.into_iter().enumerate() {
        let current = storage.as_ref().expect("open");
        let mut txn = Txn::default();
        match step {
            Step::Put(k, size) => txn.ops.push(Op::Put(format!("k/{k}"), draft(&"x".repeat(size)))),
            Step::Delete(k) => txn.ops.push(Op::Delete(format!("k/{k}"), draft("gone"))),
            Step::Several(a, b) => {
                txn.compare.push(Compare::Absent("k/none".into()));
                txn.ops.push(Op::Put(format!("k/{a}"), draft("one")));
                if a != b {
                    txn.ops.push(Op::Put(format!("k/{b}"), draft("two")));
                }
                txn.ops.push(Op::Put(format!("other/{b}"), draft("three")));
            }
            Step::Compact(back) => {
                let revision = current.revision().await.expect("a revision");
                current.compact(revision.saturating_sub(back.into())).await.expect("compaction");
                continue;
            }
            Step::Reopen => {
                let before = all(current).await;
                drop(storage.take());
                storage = Some(open(&dir));
                prop_assert_eq!(all(storage.as_ref().expect("open")).await, before);
                check(storage.as_ref().expect("open"), &events).await?;
                continue;
            }
            Step::Crash => {
                // A snapshot that is being written makes a copy of several files one of no moment: wait for it, as
                // the next process would find it, or not begun.
                let before = all(current).await;
                let next = root.path().join(format!("copy-{number}"));
                loop {
                    copy(&dir, &next);
                    let same = |d: &Path| {
                        let mut names: Vec<_> = fs::read_dir(d)
                            .expect("a directory")
                            .map(|e| e.expect("one").file_name())
                            .collect();
                        names.sort();
                        names
                    };
                    if same(&dir) == same(&next) {
                        break;
                    }
                    fs::remove_dir_all(&next).expect("removed");
                }
                drop(storage.take());
                dir = next;
                storage = Some(open(&dir));
                prop_assert_eq!(all(storage.as_ref().expect("open")).await, before);
                continue;
            }
        }
        let keys: Vec<_> = txn
            .ops
            .iter()
            .map(|op| match op {
                Op::Put(key, _) => (key.clone(), false),
                Op::Delete(key, _) => (key.clone(), true),
            })
            .collect();
        if let TxnOutcome::Committed(written) = current.txn(txn).await.expect("a transaction") {
            events.extend(
                keys.into_iter().zip(written).map(|((key, removed), v)| (key, v.revision(), removed)),
            );
        }
    }
    check(storage.as_ref().expect("open"), &events).await
}

/// Every watch that is granted tells all that came after its start.
async fn check(storage: &EmbeddedStorage, events: &[(String, u64, bool)]) -> Result<(), TestCaseError> {
    let mut values: BTreeMap<&str, u64> = BTreeMap::new();
    for (key, revision, removed) in events {
        if *removed {
            values.remove(key.as_str());
        } else {
            values.insert(key, *revision);
        }
    }
    let page = storage.list(&Query::default()).await.expect("a list");
    let found: BTreeMap<&str, u64> = page.items.iter().map(|(k, v)| (&**k, v.revision())).collect();
    prop_assert_eq!(found, values);
    for after in 0..page.revision {
        let Ok(mut watch) = storage.watch("k/", after).await else { continue };
        let expected: Vec<_> =
            events.iter().filter(|e| e.1 > after && e.0.starts_with("k/")).cloned().collect();
        let mut seen = Vec::new();
        while seen.len() < expected.len() {
            let changes = watch.next().await.expect("granted");
            seen.extend(changes.iter().map(|c| (c.key.to_string(), c.revision(), c.removed)));
        }
        prop_assert_eq!(seen, expected, "after {}", after);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_across_snapshots_restarts_and_crashes(steps in steps()) {
        tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(run(steps))?;
    }
}

#[test]
fn a_frame_is_found_behind_anything() {
    let header = frame::Header { role: frame::Role::Log, base: 7 };
    let mut bytes = vec![0xff, b'm', 0xfe, b'8', 3, 0, 0];
    let start = bytes.len();
    frame::encode(header, b"payload", &mut bytes);
    assert_eq!(frame::find(header, &bytes), Some(start));
    assert_eq!(frame::find(header, &bytes[..start + FRAME_HEADER + 6]), None, "half a frame is none");
    let other = frame::Header { base: 8, ..header };
    assert_eq!(frame::find(other, &bytes), None, "a frame of another file is none");
}

#[tokio::test]
async fn a_backup_is_restored_as_it_was_and_only_whole() {
    use crate::storage::backup;
    let dir = tempfile::tempdir().expect("a directory");
    let storage = open(&dir.path().join("first"));
    for step in 0..100 {
        put(&storage, &[&format!("a/{}", step % 30), "b/x"], &format!("{step}")).await;
    }
    let page = storage.list(&Query::default()).await.expect("a list");
    let summary = backup::Summary { revision: page.revision, objects: 31 };
    let bytes: Vec<u8> = backup::chunks(page).flatten().collect();
    assert_eq!(backup::verify(&bytes[..], "it"), Ok(summary));
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x20;
        backup::verify(&damaged[..], "it").expect_err("damage is noticed");
        backup::verify(&bytes[..at], "it").expect_err("so is an end that comes too early");
    }
    let place = dir.path().join("second");
    assert_eq!(backup::restore(&bytes[..], "it", &place), Ok(summary));
    let restored = open(&place);
    let (revision, objects) = all(&restored).await;
    assert_eq!(objects, all(&storage).await.1);
    // Nobody can have seen what comes next here, and nobody goes on from what they saw there.
    assert!(revision > summary.revision);
    let watch = restored.watch("a/", summary.revision + 5).await;
    assert!(matches!(watch.err(), Some(StorageError::Compacted { .. })));
    assert_eq!(put(&restored, &["a/new"], "next").await, revision + 1);
    drop(restored);
    assert_eq!(all(&open(&place)).await.1.len(), 32);
    let error = backup::restore(&bytes[..], "it", &place).expect_err("what is there stays");
    assert!(error.to_string().contains("already"), "{error}");
}
