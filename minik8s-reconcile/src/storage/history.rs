//! Judges what clients of a storage have seen: whether it could have come of one storage that does one thing after the
//! other, and whether watches told all of it.
//!
//! [`record`] has clients do random things at the same time, whatever happens to the storage meanwhile, and notes when
//! each call began and ended and what came of it. [`check`] judges the notes. Revisions say in which order writes took
//! effect, so nothing has to be guessed: a complete watch is the order, and each call must fit to it and into its own
//! time. As in [etcd's robustness tests](https://github.com/etcd-io/etcd/tree/main/tests/robustness), a call whose answer
//! was lost may have had its effect or not, but wholly, once, and not before it began.

use std::collections::BTreeMap;
use std::sync::Mutex;

use super::{Change, Compare, Draft, Op, Query, Storage, StorageError, Txn, TxnOutcome};
use crate::rng::Rng;

/// What stands for a value: every write has its own.
pub type Tag = u64;

/// A call, and what came of it.
#[derive(Clone, Debug)]
pub struct Call {
    /// When it began; no two moments are the same.
    pub began: u64,
    /// When its answer came.
    pub ended: u64,
    /// What it was.
    pub what: What,
}

/// Calls and answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A transaction: its conditions, and its writes (`None` removes the key).
    Txn(Vec<Compare>, Vec<(String, Option<Tag>)>, Outcome),
    /// A read: the revision and the value of the key.
    Get(String, Option<(u64, Tag)>),
    /// A list of everything: the revision that it shows, and revisions and values by key.
    List(u64, BTreeMap<String, (u64, Tag)>),
}

/// What came of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It took effect at that revision; 0 if there was nothing to do.
    Committed(u64),
    /// That condition did not hold.
    Refused(usize),
    /// There was no answer.
    Unknown,
}

/// What a watch told: a key, the revision, the value (`None` if the key was removed).
pub type Told = (String, u64, Option<Tag>);

/// All that was noted.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// The calls, in any order.
    pub calls: Vec<Call>,
    /// What a watch of everything from the beginning to the end told.
    pub order: Vec<Told>,
    /// What other watches told, and after which revision and up to which one each was to tell everything.
    pub watches: Vec<(u64, u64, Vec<Told>)>,
}

/// The versions of all keys over time.
struct Versions<'a> {
    by_key: BTreeMap<&'a str, Vec<(u64, Option<Tag>)>>,
}

impl Versions<'_> {
    /// What the key held at `revision`.
    fn at(&self, key: &str, revision: u64) -> Option<(u64, Tag)> {
        let versions = self.by_key.get(key)?;
        let index = versions.partition_point(|(at, _)| *at <= revision).checked_sub(1)?;
        let (at, tag) = versions[index];
        tag.map(|tag| (at, tag))
    }

    fn holds(&self, compare: &Compare, revision: u64) -> bool {
        let found = self.at(compare.key(), revision);
        match compare {
            Compare::Absent(_) => found.is_none(),
            Compare::Present(_) => found.is_some(),
            Compare::Revision(_, at) => found.is_some_and(|(revision, _)| revision == *at),
        }
    }

    /// The revisions from `low` to `high` at which the key may have changed, and `low`.
    fn moments(&self, key: &str, low: u64, high: u64) -> impl Iterator<Item = u64> {
        let changes = self.by_key.get(key).into_iter().flatten().map(|(at, _)| *at);
        std::iter::once(low).chain(changes.filter(move |at| *at > low && *at <= high))
    }
}

/// Judges a history.
///
/// # Errors
/// What could not have come of one storage that does one thing after the other, in words.
pub fn check(history: &History) -> Result<(), String> {
    let mut versions = Versions { by_key: BTreeMap::new() };
    let mut revisions: BTreeMap<u64, BTreeMap<&str, Option<Tag>>> = BTreeMap::new();
    for pair in history.order.windows(2) {
        if pair[1].1 < pair[0].1 {
            return Err(format!("the watch tells {:?} after {:?}", pair[1], pair[0]));
        }
    }
    for (key, revision, tag) in &history.order {
        if revisions.entry(*revision).or_default().insert(key, *tag).is_some() {
            return Err(format!("the watch tells of {key} at revision {revision} twice"));
        }
        versions.by_key.entry(key).or_default().push((*revision, *tag));
    }
    watches(history)?;
    let found = effects(history, &versions, &revisions)?;
    in_time(history, &versions, &found)
}

/// Every watch must tell just what the complete one does.
fn watches(history: &History) -> Result<(), String> {
    for (after, until, told) in &history.watches {
        let expected = history.order.iter().filter(|(_, at, _)| at > after && at <= until);
        if !told.iter().eq(expected.clone()) {
            let expected: Vec<_> = expected.collect();
            let at = told.iter().zip(&expected).position(|(a, b)| a != *b);
            let at = at.unwrap_or(told.len().min(expected.len()));
            return Err(format!(
                "a watch from {after} to {until} tells {:?} where {:?} happened (number {at} of {})",
                told.get(at),
                expected.get(at),
                expected.len()
            ));
        }
    }
    Ok(())
}

/// At which revision each call (by its place) took effect. Each write must have been asked for, once, wholly.
fn effects(
    history: &History,
    versions: &Versions<'_>,
    revisions: &BTreeMap<u64, BTreeMap<&str, Option<Tag>>>,
) -> Result<BTreeMap<usize, u64>, String> {
    let mut by_tag: BTreeMap<Tag, u64> = BTreeMap::new();
    for (revision, writes) in revisions {
        by_tag.extend(writes.values().flatten().map(|tag| (*tag, *revision)));
    }
    let mut found = BTreeMap::new();
    let mut explained: BTreeMap<u64, usize> = BTreeMap::new();
    for (place, call) in history.calls.iter().enumerate() {
        let What::Txn(compare, writes, outcome) = &call.what else { continue };
        let mut seen = writes.iter().filter_map(|(_, tag)| by_tag.get(tag.as_ref()?).copied());
        let revision = match outcome {
            Outcome::Committed(0) => continue,
            Outcome::Committed(revision) => *revision,
            Outcome::Unknown => match seen.next() {
                Some(revision) => revision,
                // It had no effect, or none that one could tell from another's.
                None => continue,
            },
            Outcome::Refused(_) => match seen.next() {
                Some(revision) => return Err(format!("{call:?} was refused but is there, at {revision}")),
                None => continue,
            },
        };
        let there = revisions.get(&revision).cloned().unwrap_or_default();
        let expected: BTreeMap<&str, Option<Tag>> = writes
            .iter()
            .filter(|(key, tag)| tag.is_some() || versions.at(key, revision - 1).is_some())
            .map(|(key, tag)| (key.as_str(), *tag))
            .collect();
        if there != expected {
            return Err(format!(
                "{call:?} should have made {expected:?} at {revision}, where {there:?} happened"
            ));
        }
        if let Some(compare) = compare.iter().find(|c| !versions.holds(c, revision - 1)) {
            return Err(format!("{call:?} took effect at {revision} though {compare:?} did not hold"));
        }
        if let Some(other) = explained.insert(revision, place) {
            return Err(format!("{call:?} and {:?} both took effect at {revision}", history.calls[other]));
        }
        found.insert(place, revision);
    }
    // What nobody is known to have done must be a removal whose answer was lost.
    for (revision, writes) in revisions.iter().filter(|(revision, _)| !explained.contains_key(revision)) {
        let fits = history.calls.iter().any(|call| match &call.what {
            What::Txn(_, asked, Outcome::Unknown) => writes
                .iter()
                .all(|(key, tag)| tag.is_none() && asked.iter().any(|(k, t)| k == key && t.is_none())),
            _ => false,
        });
        if !fits {
            return Err(format!("nobody has asked for {writes:?} at revision {revision}"));
        }
    }
    Ok(found)
}

/// Every call must have taken effect, or seen what it saw, between its beginning and its end.
fn in_time(history: &History, versions: &Versions<'_>, found: &BTreeMap<usize, u64>) -> Result<(), String> {
    // When which revision was known to have been reached, and when the first call of it began.
    let mut reached: Vec<(u64, u64)> = Vec::new();
    let mut begun: Vec<(u64, u64)> = Vec::new();
    for (place, call) in history.calls.iter().enumerate() {
        let seen = match &call.what {
            What::Txn(.., Outcome::Committed(revision)) => *revision,
            What::Txn(..) => 0,
            What::Get(_, seen) => seen.map_or(0, |(revision, _)| revision),
            What::List(revision, _) => *revision,
        };
        reached.push((call.ended, seen));
        if let Some(revision) = found.get(&place) {
            begun.push((call.began, *revision));
        }
    }
    let reached = newest(reached);
    // Removals whose answers were lost may be anywhere.
    let last = history.order.last().map_or(0, |(_, revision, _)| *revision);
    let anywhere = history.order.iter().any(|(_, at, _)| !found.values().any(|revision| revision == at));
    let begun = newest(begun);
    for (place, call) in history.calls.iter().enumerate() {
        let low = before(&reached, call.began);
        let high = if anywhere { last } else { before(&begun, call.ended).max(low) };
        let fits = match &call.what {
            What::Txn(_, _, Outcome::Committed(0) | Outcome::Unknown) => {
                // It may have taken effect after its caller gave up, but not before it asked.
                found.get(&place).is_none_or(|revision| *revision > low)
            }
            What::Txn(_, _, Outcome::Committed(revision)) => *revision > low && *revision <= high,
            What::Txn(compare, _, Outcome::Refused(index)) => {
                let compare = &compare[*index];
                versions.moments(compare.key(), low, high).any(|at| !versions.holds(compare, at))
            }
            What::Get(key, seen) => versions.moments(key, low, high).any(|at| versions.at(key, at) == *seen),
            What::List(revision, seen) => {
                let there =
                    versions.by_key.keys().filter_map(|key| Some((*key, versions.at(key, *revision)?)));
                *revision >= low && there.eq(seen.iter().map(|(key, version)| (key.as_str(), *version)))
            }
        };
        if !fits {
            return Err(format!("{call:?} does not fit to what there was from revision {low} to {high}"));
        }
    }
    Ok(())
}

/// Moments, and the newest revision up to each.
fn newest(mut moments: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    moments.sort_unstable();
    let mut newest = 0;
    for (_, revision) in &mut moments {
        newest = newest.max(*revision);
        *revision = newest;
    }
    moments
}

/// The newest revision before that moment.
fn before(moments: &[(u64, u64)], moment: u64) -> u64 {
    moments.partition_point(|(at, _)| *at < moment).checked_sub(1).map_or(0, |index| moments[index].1)
}

/// How much to do.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Clients at the same time.
    pub clients: u64,
    /// Calls of each.
    pub calls: u64,
    /// Keys that they share: the fewer, the more they meet.
    pub keys: u64,
}

/// What begins the keys of [`record`].
const PREFIX: &str = "history/";

/// Has clients do random things to the storages, each to one of them, and notes what they see. They must be the same
/// storage seen by different servers, and empty.
///
/// # Errors
/// A storage does not answer at the end, when nothing disturbs it any more.
pub async fn record<S: Storage>(storages: &[S], load: Load, rng: &Rng) -> Result<History, StorageError> {
    let first = &storages[0];
    let start = first.revision().await?;
    let mut complete = first.watch(PREFIX, start).await?;
    let clock = Mutex::new((0_u64, 0_u64));
    let noted = Mutex::new(Vec::new());
    let (clock, noted) = (&clock, &noted);
    let over = std::sync::atomic::AtomicUsize::new(0);
    let clients = (0..load.clients).map(|client| {
        let (rng, over) = (rng.child(&client.to_string()), &over);
        let storage = &storages[client as usize % storages.len()];
        async move {
            let mut known: BTreeMap<String, u64> = BTreeMap::new();
            for _ in 0..load.calls {
                let began = tick(clock);
                if let Some(what) = one(storage, load, &rng, clock, &mut known).await {
                    let call = Call { began, ended: tick(clock), what };
                    noted.lock().expect("no client panics").push(call);
                }
            }
            over.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        }
    });
    // Watchers that are cut off now and then, and go on from where they were.
    let watchers = storages.iter().enumerate().map(|(number, storage)| {
        let (rng, over) = (rng.child(&format!("watch {number}")), &over);
        async move {
            let (mut progress, mut told) = (start, Vec::new());
            let done = || over.load(std::sync::atomic::Ordering::SeqCst) as u64 == load.clients;
            while !done() {
                let Ok(mut watch) = storage.watch(PREFIX, progress).await else {
                    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                    continue;
                };
                for _ in 0..=rng.below(20) {
                    let wait = std::time::Duration::from_millis(100);
                    match tokio::time::timeout(wait, watch.next()).await {
                        Ok(Ok(changes)) => {
                            told.extend(changes.iter().map(tell));
                            progress = told.last().map_or(progress, |(_, at, _): &Told| *at);
                        }
                        Ok(Err(_)) => break,
                        Err(_) if done() => break,
                        Err(_) => {}
                    }
                }
                // As good as a bookmark: nothing before it is told again, nothing after it is left out.
                progress = progress.max(watch.progress());
            }
            (start, progress, told)
        }
    });
    let complete_until_the_end = async {
        let mut order: Vec<Told> = Vec::new();
        loop {
            let wait = std::time::Duration::from_millis(200);
            match tokio::time::timeout(wait, complete.next()).await {
                Ok(changes) => order.extend(changes?.iter().map(tell)),
                Err(_) if over.load(std::sync::atomic::Ordering::SeqCst) as u64 == load.clients => break,
                Err(_) => {}
            }
        }
        // All that has been acknowledged must be told, and what was not may still come.
        let last = first.revision().await?;
        while complete.progress() < last {
            order.extend(complete.next().await?.iter().map(tell));
        }
        Ok::<_, StorageError>(order)
    };
    let (_, watches, order) = tokio::join!(
        futures::future::join_all(clients),
        futures::future::join_all(watchers),
        complete_until_the_end
    );
    let calls = std::mem::take(&mut *noted.lock().expect("no client panics"));
    Ok(History { calls, order: order?, watches })
}

fn tick(clock: &Mutex<(u64, u64)>) -> u64 {
    let mut clock = clock.lock().expect("no client panics");
    clock.0 += 1;
    clock.0
}

fn tag(clock: &Mutex<(u64, u64)>) -> Tag {
    let mut clock = clock.lock().expect("no client panics");
    clock.1 += 1;
    clock.1
}

fn draft(tag: Tag) -> Draft {
    let head = r#"{"metadata":{"resourceVersion":""#;
    Draft::new(format!("{head}\"}},\"tag\":{tag}}}").into_bytes(), head.len())
}

fn tag_of(stored: &crate::stored::Stored) -> Tag {
    #[derive(serde::Deserialize)]
    struct Value {
        tag: Tag,
    }
    serde_json::from_slice::<Value>(stored.json()).map_or(0, |v| v.tag)
}

fn tell(change: &Change) -> Told {
    let tag = (!change.removed).then(|| tag_of(&change.value));
    (change.key.to_string(), change.revision(), tag)
}

/// One random call; nothing if there is nothing to learn from it.
async fn one(
    storage: &impl Storage,
    load: Load,
    rng: &Rng,
    clock: &Mutex<(u64, u64)>,
    known: &mut BTreeMap<String, u64>,
) -> Option<What> {
    let key = format!("{PREFIX}{}", rng.below(load.keys));
    let other = format!("{PREFIX}{}", rng.below(load.keys));
    let last = known.get(&key).copied().unwrap_or(0);
    let (compare, writes) = match rng.below(10) {
        0 | 1 => {
            let seen = storage.get(&key).await.ok()?;
            return Some(What::Get(key, seen.map(|s| (s.revision(), tag_of(&s)))));
        }
        2 => {
            let page = storage.list(&Query::prefix(PREFIX)).await.ok()?;
            let items = page.items.iter().map(|(k, s)| (k.to_string(), (s.revision(), tag_of(s))));
            return Some(What::List(page.revision, items.collect()));
        }
        3 => (vec![Compare::Absent(key.clone())], vec![(key, Some(tag(clock)))]),
        4 => (vec![Compare::Revision(key.clone(), last)], vec![(key, None)]),
        5 if key != other => {
            (vec![Compare::Present(other.clone())], vec![(key, Some(tag(clock))), (other, None)])
        }
        6 if key != other => (vec![], vec![(key, Some(tag(clock))), (other, Some(tag(clock)))]),
        7 | 8 => (vec![Compare::Revision(key.clone(), last)], vec![(key, Some(tag(clock)))]),
        _ => (vec![], vec![(key, Some(tag(clock)))]),
    };
    let op = |(key, tag): &(String, Option<Tag>)| match tag {
        Some(tag) => Op::Put(key.clone(), draft(*tag)),
        None => Op::Delete(key.clone(), draft(0)),
    };
    let txn = Txn { compare: compare.clone(), ops: writes.iter().map(op).collect() };
    let outcome = match storage.txn(txn).await {
        Ok(TxnOutcome::Committed(written)) => {
            let revision = written.last().map_or(0, |w| w.revision());
            for (key, tag) in writes.iter().filter(|_| revision > 0) {
                match tag {
                    Some(_) => known.insert(key.clone(), revision),
                    None => known.remove(key),
                };
            }
            Outcome::Committed(revision)
        }
        Ok(TxnOutcome::Refused { index, current }) => {
            if let Some(current) = current {
                known.insert(compare[index].key().to_owned(), current.revision());
            }
            Outcome::Refused(index)
        }
        Err(_) => Outcome::Unknown,
    };
    Some(What::Txn(compare, writes, outcome))
}

#[cfg(test)]
mod tests;
