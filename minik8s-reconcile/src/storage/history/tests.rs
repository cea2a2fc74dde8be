use super::*;
use crate::storage::memory::MemoryStorage;

const LOAD: Load = Load { clients: 8, calls: 300, keys: 6 };

#[tokio::test]
async fn a_storage_that_keeps_its_word_passes() {
    for seed in 0..4 {
        let history = record(&[MemoryStorage::new()], LOAD, &Rng::from_seed(seed)).await.expect("a history");
        assert!(history.order.len() > 500);
        check(&history).expect("nothing is wrong with it");
    }
}

#[cfg(feature = "embedded")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_storage_passes() {
    let dir = tempfile::tempdir().expect("a directory");
    let storage = crate::storage::embedded::EmbeddedStorage::open(dir.path()).expect("opens");
    let storage = std::sync::Arc::new(storage);
    let views = [storage.clone(), storage];
    let history = record(&views, LOAD, &Rng::from_seed(7)).await.expect("a history");
    check(&history).expect("nothing is wrong with it");
}

fn call(began: u64, ended: u64, what: What) -> Call {
    Call { began, ended, what }
}

fn put(key: &str, tag: Tag, outcome: Outcome) -> What {
    What::Txn(vec![], vec![(key.into(), Some(tag))], outcome)
}

fn get(key: &str, seen: Option<(u64, Tag)>) -> What {
    What::Get(key.into(), seen)
}

fn told(key: &str, revision: u64, tag: Tag) -> Told {
    (key.into(), revision, Some(tag))
}

/// Two writes of a key, one after the other.
fn right() -> History {
    History {
        calls: vec![
            call(1, 2, put("a", 1, Outcome::Committed(2))),
            call(3, 4, put("a", 2, Outcome::Committed(3))),
        ],
        order: vec![told("a", 2, 1), told("a", 3, 2)],
        watches: vec![(1, 3, vec![told("a", 2, 1), told("a", 3, 2)])],
    }
}

fn wrong(change: impl FnOnce(&mut History), why: &str) {
    let mut history = right();
    check(&history).expect("right so far");
    change(&mut history);
    let error = check(&history).expect_err(why);
    assert!(error.contains(why), "{error}");
}

#[test]
fn what_cannot_be_is_found() {
    wrong(|h| h.calls.push(call(5, 6, get("a", Some((2, 1))))), "does not fit");
    wrong(|h| h.calls.push(call(5, 6, get("a", None))), "does not fit");
    wrong(
        |h| h.calls.push(call(5, 6, What::List(2, BTreeMap::from([("a".into(), (2, 1))])))),
        "does not fit",
    );
    wrong(|h| h.calls.push(call(5, 6, What::List(3, BTreeMap::new()))), "does not fit");
    wrong(|h| h.calls.push(call(5, 6, put("a", 9, Outcome::Committed(4)))), "should have made");
    wrong(|h| h.calls.push(call(5, 6, put("a", 2, Outcome::Refused(0)))), "was refused but is there");
    wrong(|h| h.calls.push(call(5, 6, put("a", 2, Outcome::Unknown))), "both took effect");
    wrong(|h| h.order.push(told("a", 4, 8)), "nobody has asked for");
    wrong(|h| h.order.swap(0, 1), "after");
    wrong(|h| h.order.insert(1, told("a", 2, 1)), "twice");
    wrong(|h| drop(h.watches[0].2.remove(0)), "a watch from 1 to 3");
    wrong(|h| h.watches[0].2.push(told("a", 3, 2)), "a watch from 1 to 3");
    wrong(|h| h.watches[0].2.swap(0, 1), "a watch from 1 to 3");
    // Writes in the wrong order: the second one ended before the first one began.
    wrong(|h| h.calls[1] = call(0, 0, h.calls[1].what.clone()), "does not fit");
    // A condition that did not hold, and one that did.
    let absent = || vec![Compare::Absent("a".into())];
    let writes = || vec![("a".to_owned(), Some(2))];
    wrong(|h| h.calls[1].what = What::Txn(absent(), writes(), Outcome::Committed(3)), "did not hold");
    let present = || vec![Compare::Present("a".into())];
    let other = || vec![("b".to_owned(), Some(5))];
    wrong(|h| h.calls.push(call(5, 6, What::Txn(present(), other(), Outcome::Refused(0)))), "does not fit");
    // Half a transaction.
    let both = vec![("a".to_owned(), Some(2)), ("b".to_owned(), Some(3))];
    wrong(|h| h.calls[1].what = What::Txn(vec![], both, Outcome::Unknown), "should have made");
}

#[test]
fn what_can_be_is_let_be() {
    let mut history = right();
    // While both writes are under way, either value may be seen, but not one after the other backwards.
    history.calls[1].ended = 20;
    history.calls.push(call(5, 6, get("a", Some((2, 1)))));
    history.calls.push(call(7, 8, get("a", Some((3, 2)))));
    check(&history).expect("nothing is wrong with it");
    history.calls.push(call(9, 10, get("a", Some((2, 1)))));
    check(&history).expect_err("it went back");
    // A lost answer: with an effect or without.
    let mut history = right();
    history.calls[1].what = put("a", 2, Outcome::Unknown);
    check(&history).expect("it took effect");
    history.calls.push(call(5, 6, put("a", 77, Outcome::Unknown)));
    check(&history).expect("this one did not");
}
