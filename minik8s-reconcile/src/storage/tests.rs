use std::collections::BTreeMap;

use proptest::prelude::*;

use super::memory::MemoryStorage;
use super::{Compare, Draft, Op, Query, Retention, Storage, Txn, TxnOutcome, conformance};

#[tokio::test]
async fn memory_conforms() {
    conformance::all(async || MemoryStorage::new()).await;
}

#[cfg(feature = "embedded")]
#[tokio::test]
async fn embedded_conforms() {
    let dir = tempfile::tempdir().expect("a directory");
    let count = std::cell::Cell::new(0);
    conformance::all(async || {
        count.set(count.get() + 1);
        super::embedded::EmbeddedStorage::open(dir.path().join(count.get().to_string())).expect("opens")
    })
    .await;
}

#[derive(Clone, Debug)]
enum Step {
    Put(u8),
    Delete(u8),
    Swap(u8, bool),
    Compact(u8),
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..8_u8).prop_map(Step::Put),
        3 => (0..8_u8).prop_map(Step::Delete),
        3 => (0..8_u8, any::<bool>()).prop_map(|(k, right)| Step::Swap(k, right)),
        1 => (0..20_u8).prop_map(Step::Compact),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..60)
}

fn draft(text: u64) -> Draft {
    Draft::new(format!("{{\"n\":{text},\"resourceVersion\":\"\"}}").into_bytes(), {
        format!("{{\"n\":{text},\"resourceVersion\":\"").len()
    })
}

/// What a storage must hold: values by key, and the events since a revision.
#[derive(Default)]
struct Model {
    values: BTreeMap<String, u64>,
    events: Vec<(String, u64, bool)>,
}

async fn check(storage: &dyn Storage, model: &Model) -> Result<(), TestCaseError> {
    let page = storage.list(&Query::prefix("k/")).await.expect("a list");
    let found: BTreeMap<_, _> = page.items.iter().map(|(k, v)| (k.to_string(), v.revision())).collect();
    prop_assert_eq!(&found, &model.values);
    // Every watch that is granted tells all that came after its start.
    let current = storage.revision().await.expect("a revision");
    for after in 0..current {
        let Ok(mut watch) = storage.watch("k/", after).await else { continue };
        let expected: Vec<_> = model.events.iter().filter(|e| e.1 > after).cloned().collect();
        let mut seen = Vec::new();
        while seen.len() < expected.len() {
            let changes = watch.next().await.expect("granted");
            seen.extend(changes.iter().map(|c| (c.key.to_string(), c.revision(), c.removed)));
        }
        prop_assert_eq!(seen, expected, "after {}", after);
    }
    Ok(())
}

async fn run(
    mut storage: Box<dyn Storage>,
    steps: Vec<Step>,
    reopen: impl Fn(Box<dyn Storage>) -> Box<dyn Storage>,
) -> Result<(), TestCaseError> {
    let mut model = Model::default();
    for (number, step) in (0_u64..).zip(steps) {
        let txn = match step {
            Step::Put(k) => Txn { compare: vec![], ops: vec![Op::Put(format!("k/{k}"), draft(number))] },
            Step::Delete(k) => {
                Txn { compare: vec![], ops: vec![Op::Delete(format!("k/{k}"), draft(number))] }
            }
            Step::Swap(k, right) => {
                let key = format!("k/{k}");
                let known = model.values.get(&key).copied().unwrap_or(0);
                let compare = vec![Compare::Revision(key.clone(), if right { known } else { known + 1 })];
                Txn { compare, ops: vec![Op::Put(key, draft(number))] }
            }
            Step::Compact(back) => {
                let current = storage.revision().await.expect("a revision");
                storage.compact(current.saturating_sub(back.into())).await.expect("compaction");
                continue;
            }
            Step::Reopen => {
                storage = reopen(storage);
                check(&*storage, &model).await?;
                continue;
            }
        };
        let (key, removes) = match &txn.ops[0] {
            Op::Put(key, _) => (key.clone(), false),
            Op::Delete(key, _) => (key.clone(), true),
        };
        if let TxnOutcome::Committed(written) = storage.txn(txn).await.expect("a transaction")
            && let Some(written) = written.first()
        {
            model.events.push((key.clone(), written.revision(), removes));
            if removes {
                model.values.remove(&key);
            } else {
                model.values.insert(key, written.revision());
            }
        }
    }
    check(&*storage, &model).await
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

const SHORT: Retention = Retention { changes: 5 };

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn memory_loses_nothing(steps in steps()) {
        let storage = Box::new(MemoryStorage::with_retention(SHORT));
        block_on(run(storage, steps, |same| same))?;
    }

    #[cfg(feature = "embedded")]
    #[test]
    fn embedded_loses_nothing_across_restarts(steps in steps()) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("db");
        let open = || Box::new(super::embedded::EmbeddedStorage::with(&path, SHORT, Default::default()).expect("opens"));
        block_on(run(open(), steps, |old| {
            drop(old);
            open()
        }))?;
    }
}
