use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::StreamExt;

use super::{Options, read};

async fn all(path: &std::path::Path, options: Options) -> String {
    let mut stream = Box::pin(read(path.to_owned(), options, || false));
    let mut text = String::new();
    while let Some(bytes) = stream.next().await {
        text.push_str(std::str::from_utf8(&bytes.expect("readable")).expect("text"));
    }
    text
}

fn line(second: u32, tag: &str, text: &str) -> String {
    format!("2026-01-01T00:00:{second:02}.000000000Z stdout {tag} {text}\n")
}

#[tokio::test]
async fn lines_are_joined_cut_and_filtered() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("0.log");
    let text = [line(1, "F", "one"), line(2, "P", "tw"), line(3, "F", "o"), line(4, "F", "three")].concat();
    std::fs::write(&path, text).expect("written");
    assert_eq!(all(&path, Options::default()).await, "one\ntwo\nthree\n");
    assert_eq!(all(&path, Options { tail: Some(1), ..Options::default() }).await, "three\n");
    assert_eq!(all(&path, Options { tail: Some(0), ..Options::default() }).await, "");
    assert_eq!(all(&path, Options { tail: Some(99), ..Options::default() }).await, "one\ntwo\nthree\n");
    assert_eq!(all(&path, Options { limit: Some(5), ..Options::default() }).await, "one\nt");
    let since = "2026-01-01T00:00:03Z".parse().ok();
    assert_eq!(all(&path, Options { since, ..Options::default() }).await, "o\nthree\n");
    let stamped = all(&path, Options { timestamps: true, tail: Some(1), ..Options::default() }).await;
    assert_eq!(stamped, "2026-01-01T00:00:04.000000000Z three\n");
    assert_eq!(all(&dir.path().join("none"), Options::default()).await, "");
}

#[tokio::test]
async fn following_goes_on_across_rotation_until_the_end() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("0.log");
    std::fs::write(&path, line(1, "F", "one")).expect("written");
    let running = Arc::new(AtomicBool::new(true));
    let runs = running.clone();
    let options = Options { follow: true, ..Options::default() };
    let mut stream = Box::pin(read(path.clone(), options, move || runs.load(Ordering::SeqCst)));
    let mut next = async || loop {
        match stream.next().await {
            Some(bytes) => {
                let bytes = bytes.expect("readable");
                if !bytes.is_empty() {
                    return Some(String::from_utf8(bytes.to_vec()).expect("text"));
                }
            }
            None => return None,
        }
    };
    assert_eq!(next().await.as_deref(), Some("one\n"));
    std::fs::rename(&path, dir.path().join("0.log.old")).expect("renamed");
    std::fs::write(&path, line(2, "F", "two")).expect("written");
    assert_eq!(next().await.as_deref(), Some("two\n"));
    running.store(false, Ordering::SeqCst);
    assert_eq!(next().await, None);
}
