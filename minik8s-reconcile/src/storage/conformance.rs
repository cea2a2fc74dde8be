//! The suite that every storage passes: run it against your own with [`all`].

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Change, Compare, Draft, Op, Query, Storage, StorageError, Txn, TxnOutcome};

/// Runs everything, each part on a storage of its own that `make` gives; it must be empty.
///
/// # Panics
/// A guarantee does not hold; the message says which.
pub async fn all<S: Storage>(make: impl AsyncFn() -> S) {
    conditions_hold_or_nothing_is_written(&make().await).await;
    a_transaction_is_one_revision(&make().await).await;
    lists_are_ordered_and_paged(&make().await).await;
    the_past_can_be_listed(&make().await).await;
    a_watch_tells_everything_once(&make().await).await;
    compacted_history_is_refused(&make().await).await;
    the_future_is_refused(&make().await).await;
}

fn draft(text: &str) -> Draft {
    let json = format!("{{\"text\":\"{text}\",\"metadata\":{{\"resourceVersion\":\"\"}}}}");
    let gap = json.len() - 3;
    Draft::new(json.into_bytes(), gap)
}

fn put(key: &str, text: &str) -> Txn {
    Txn { compare: Vec::new(), ops: vec![Op::Put(key.to_owned(), draft(text))] }
}

fn delete(key: &str) -> Txn {
    Txn { compare: Vec::new(), ops: vec![Op::Delete(key.to_owned(), draft("gone"))] }
}

async fn commit(storage: &impl Storage, txn: Txn) -> u64 {
    match storage.txn(txn).await.expect("a transaction") {
        TxnOutcome::Committed(written) => written.last().map_or(0, |w| w.revision()),
        refused => panic!("refused: {refused:?}"),
    }
}

async fn keys(storage: &impl Storage, query: &Query) -> Vec<String> {
    let page = storage.list(query).await.expect("a list");
    page.items.iter().map(|(key, _)| key.to_string()).collect()
}

async fn conditions_hold_or_nothing_is_written(storage: &impl Storage) {
    let first = commit(storage, put("a/1", "x")).await;
    let stored = storage.get("a/1").await.expect("a read").expect("a value");
    assert_eq!(stored.revision(), first);
    let expected = format!("{{\"text\":\"x\",\"metadata\":{{\"resourceVersion\":\"{first}\"}}}}");
    assert_eq!(stored.json(), expected.as_bytes(), "the revision is stamped into the value");
    for (compare, holds) in [
        (Compare::Absent("a/1".into()), false),
        (Compare::Present("a/2".into()), false),
        (Compare::Revision("a/1".into(), first + 1), false),
        (Compare::Revision("a/2".into(), 0), false),
        (Compare::Revision("a/1".into(), first), true),
    ] {
        let ops = vec![Op::Put("a/3".into(), draft("y"))];
        let txn = Txn { compare: vec![Compare::Present("a/1".into()), compare.clone()], ops };
        match storage.txn(txn).await.expect("a transaction") {
            TxnOutcome::Committed(_) => assert!(holds, "{compare:?} does not hold"),
            TxnOutcome::Refused { index, .. } => {
                assert!(!holds && index == 1, "{compare:?} holds");
                assert!(storage.get("a/3").await.expect("a read").is_none(), "half of it was written");
            }
        }
    }
}

async fn a_transaction_is_one_revision(storage: &impl Storage) {
    let before = storage.revision().await.expect("a revision");
    let ops = (0..5).map(|i| Op::Put(format!("a/{i}"), draft("x"))).collect();
    commit(storage, Txn { compare: Vec::new(), ops }).await;
    assert_eq!(storage.revision().await.expect("a revision"), before + 1);
    let page = storage.list(&Query::prefix("a/")).await.expect("a list");
    assert!(page.items.iter().all(|(_, v)| v.revision() == before + 1));
}

async fn lists_are_ordered_and_paged(storage: &impl Storage) {
    for key in ["b/2", "a/2", "a/10", "a/1", "aa/1"] {
        commit(storage, put(key, "x")).await;
    }
    assert_eq!(keys(storage, &Query::prefix("a/")).await, ["a/1", "a/10", "a/2"]);
    let query = Query { limit: 2, ..Query::prefix("a/") };
    let page = storage.list(&query).await.expect("a list");
    assert_eq!((page.items.len(), page.remaining), (2, 1));
    let query = Query { after: Some("a/10".into()), ..Query::prefix("a/") };
    assert_eq!(keys(storage, &query).await, ["a/2"]);
}

async fn the_past_can_be_listed(storage: &impl Storage) {
    let mut past = Vec::new();
    let mut model: BTreeMap<String, u64> = BTreeMap::new();
    for step in 0..40_u64 {
        let key = format!("a/{}", step * 7 % 5);
        if step % 3 == 2 && model.remove(&key).is_some() {
            commit(storage, delete(&key)).await;
        } else {
            let revision = commit(storage, put(&key, &step.to_string())).await;
            model.insert(key, revision);
        }
        past.push((storage.revision().await.expect("a revision"), model.clone()));
    }
    for (revision, expected) in past {
        let query = Query { at: Some(revision), ..Query::prefix("a/") };
        let page = storage.list(&query).await.expect("a list of the past");
        let found: BTreeMap<_, _> = page.items.iter().map(|(k, v)| (k.to_string(), v.revision())).collect();
        assert_eq!(found, expected, "at revision {revision}");
    }
}

async fn a_watch_tells_everything_once(storage: &impl Storage) {
    let start = commit(storage, put("a/0", "x")).await;
    let mut live = storage.watch("a/", start).await.expect("a watch");
    let mut expected = Vec::new();
    for step in 0..50_u64 {
        let key = format!("a/{}", step % 7);
        commit(storage, put(&format!("b/{step}"), "noise")).await;
        if step % 5 == 4 {
            expected.push((key.clone(), commit(storage, delete(&key)).await, true));
        } else {
            expected.push((key.clone(), commit(storage, put(&key, "x")).await, false));
        }
    }
    expected.retain(|(_, revision, _)| *revision > 0);
    let read = |changes: Vec<Change>| -> Vec<_> {
        changes.iter().map(|c| (c.key.to_string(), c.revision(), c.removed)).collect()
    };
    let mut seen = Vec::new();
    while seen.len() < expected.len() {
        let next =
            tokio::time::timeout(Duration::from_secs(10), live.next()).await.expect("no change is lost");
        seen.extend(read(next.expect("a change")));
    }
    assert_eq!(seen, expected, "as it happened");
    for from in [start, expected[10].1, expected[30].1] {
        let mut resumed = storage.watch("a/", from).await.expect("a watch");
        let rest: Vec<_> = expected.iter().filter(|(_, revision, _)| *revision > from).cloned().collect();
        let mut seen = Vec::new();
        while seen.len() < rest.len() {
            seen.extend(read(resumed.next().await.expect("a change")));
        }
        assert_eq!(seen, rest, "resumed at {from}");
    }
    let current = storage.revision().await.expect("a revision");
    assert_eq!(live.progress(), current, "a watch that has seen everything says so");
}

async fn compacted_history_is_refused(storage: &impl Storage) {
    let mut revisions = Vec::new();
    for step in 0..10 {
        revisions.push(commit(storage, put("a/1", &step.to_string())).await);
    }
    let mut slow = storage.watch("a/", revisions[0]).await.expect("a watch");
    storage.compact(revisions[5]).await.expect("compaction");
    let refused = |e: &StorageError| matches!(e, StorageError::Compacted { .. });
    assert!(storage.watch("a/", revisions[3]).await.is_err_and(|e| refused(&e)), "a watch from before");
    let query = Query { at: Some(revisions[3]), ..Query::prefix("a/") };
    assert!(storage.list(&query).await.is_err_and(|e| refused(&e)), "a list from before");
    assert!(slow.next().await.is_err_and(|e| refused(&e)), "a watch that was too slow");
    let mut fresh = storage.watch("a/", revisions[5]).await.expect("a watch");
    assert_eq!(fresh.next().await.expect("changes").len(), 4, "what came after is all there");
    assert!(storage.get("a/1").await.expect("a read").is_some(), "compaction takes history, not values");
}

async fn the_future_is_refused(storage: &impl Storage) {
    let next = commit(storage, put("a/1", "x")).await + 1;
    let refused = |e: &StorageError| matches!(e, StorageError::Future { .. });
    assert!(storage.watch("a/", next).await.is_err_and(|e| refused(&e)));
    let query = Query { at: Some(next), ..Query::prefix("a/") };
    assert!(storage.list(&query).await.is_err_and(|e| refused(&e)));
}
