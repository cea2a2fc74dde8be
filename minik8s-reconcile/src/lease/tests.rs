use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use k8s_openapi::api::core::v1::ConfigMap;
use tokio::sync::mpsc;

use super::*;
use crate::storage::memory::MemoryStorage;

fn spec(holder: &str, seconds: i32) -> LeaseSpec {
    LeaseSpec {
        holder_identity: Some(holder.to_owned()),
        lease_duration_seconds: Some(seconds),
        ..LeaseSpec::default()
    }
}

#[test]
fn a_lease_is_taken_when_it_is_free_or_has_run_out() {
    let second = Duration::from_secs(1);
    assert_eq!(evaluate(None, "me", Duration::ZERO), Verdict::Take);
    assert_eq!(evaluate(Some(&spec("", 4)), "me", Duration::ZERO), Verdict::Take);
    assert_eq!(evaluate(Some(&spec("other", 4)), "me", second), Verdict::Wait(3 * second));
    assert_eq!(evaluate(Some(&spec("other", 4)), "me", 4 * second), Verdict::Take);
    assert_eq!(evaluate(Some(&spec("me", 4)), "me", Duration::ZERO), Verdict::Take);
}

async fn server() -> ApiServer {
    let server = ApiServer::new(MemoryStorage::new());
    server.bootstrap().await.expect("a server");
    server
}

fn election(identity: &str) -> Election {
    Election::new("kube-system", "test", identity)
}

async fn note(client: &Client, name: &str) -> Result<(), ApiError> {
    let mut map = ConfigMap::default();
    map.metadata.name = Some(name.to_owned());
    client.namespaced::<ConfigMap>("default").create(&map).await.map(drop)
}

/// Runs a candidate; the terms that it wins come through the channel.
fn candidate(
    server: &ApiServer,
    identity: &str,
    shutdown: &CancellationToken,
) -> (mpsc::UnboundedReceiver<Term>, tokio::task::JoinHandle<()>) {
    let (terms, won) = mpsc::unbounded_channel();
    let (server, election, shutdown) = (server.clone(), election(identity), shutdown.clone());
    let task = tokio::spawn(async move {
        lead(&server, &election, shutdown, |term| {
            let _ = terms.send(term.clone());
            async move { term.ended.cancelled().await }
        })
        .await;
    });
    (won, task)
}

#[tokio::test(start_paused = true)]
async fn there_is_one_leader_and_it_hands_over_when_it_stops() {
    let server = server().await;
    let (first, second) = (CancellationToken::new(), CancellationToken::new());
    let (mut a, a_task) = candidate(&server, "a", &first);
    let term = a.recv().await.expect("the first one leads");
    let (mut b, b_task) = candidate(&server, "b", &second);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(b.try_recv().is_err() && !term.ended.is_cancelled(), "it goes on leading");
    note(&term.client, "one").await.expect("a leader writes");
    first.cancel();
    a_task.await.expect("it ends");
    let began = Instant::now();
    let next = b.recv().await.expect("the other one leads");
    assert!(began.elapsed() <= Duration::from_secs(1), "without waiting for the lease to run out");
    assert!(next.since > term.since);
    let error = note(&term.client, "two").await.expect_err("its time is over");
    assert_eq!((error.code(), error.reason()), (412, "Fenced"));
    note(&next.client, "two").await.expect("the new leader writes");
    second.cancel();
    b_task.await.expect("it ends");
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_cannot_renew_is_replaced_and_cannot_write() {
    let server = server().await;
    let stop = CancellationToken::new();
    let leases = server.client().namespaced(&election("").namespace);
    // It takes the lease, and is never heard of again: as if it had been stopped.
    let paused = Candidate { server: &server, election: &election("a"), leases, me: "a_1".into() };
    let won = paused.win().await;
    let since = won.metadata.resource_version.expect("a version").parse().expect("a number");
    let old = server.fenced("kube-system", "test", since).client();
    note(&old, "before").await.expect("a leader writes");
    let (mut b, task) = candidate(&server, "b", &stop);
    let began = Instant::now();
    let term = b.recv().await.expect("the other one leads");
    let waited = began.elapsed();
    assert!(waited >= Duration::from_secs(4) && waited <= Duration::from_secs(6), "{waited:?}");
    let error = note(&old, "after").await.expect_err("its time is over");
    assert_eq!(error.reason(), "Fenced");
    assert!(old.namespaced::<ConfigMap>("default").get("before").await.is_ok(), "it may still look");
    note(&term.client, "after").await.expect("the new leader writes");
    stop.cancel();
    task.await.expect("it ends");
}

#[tokio::test(start_paused = true)]
async fn without_its_lease_a_leader_neither_leads_nor_writes() {
    let server = server().await;
    let stop = CancellationToken::new();
    let (mut terms, task) = candidate(&server, "a", &stop);
    let term = terms.recv().await.expect("it leads");
    let leases = server.client().namespaced::<Lease>("kube-system");
    leases.delete("test", &crate::request::DeleteParams::now()).await.expect("deleted");
    let error = note(&term.client, "one").await.expect_err("its time is over");
    assert_eq!(error.reason(), "Fenced");
    term.ended.cancelled().await;
    // And it stands again.
    let next = terms.recv().await.expect("it leads again");
    assert!(next.since > term.since);
    stop.cancel();
    task.await.expect("it ends");
}

#[tokio::test]
async fn of_many_writers_none_writes_after_its_term() {
    let server = server().await;
    let leases = server.client().namespaced::<Lease>("kube-system");
    let writes = Arc::new(AtomicUsize::new(0));
    let mut writers = Vec::new();
    for term in 0..20_usize {
        let candidate = Candidate {
            server: &server,
            election: &election("x"),
            leases: leases.clone(),
            me: format!("x_{term}"),
        };
        let won = candidate.win().await;
        let since = won.metadata.resource_version.expect("a version").parse().expect("a number");
        let (client, writes) = (server.fenced("kube-system", "test", since).client(), writes.clone());
        writers.push(tokio::spawn(async move {
            for number in 0.. {
                if note(&client, &format!("{term}-{number}")).await.is_err() {
                    return;
                }
                writes.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        }));
        tokio::task::yield_now().await;
        // It goes on writing, as one that was paused would.
        candidate.release().await.expect("given away");
    }
    leases.delete("test", &crate::request::DeleteParams::now()).await.expect("deleted");
    for writer in writers {
        writer.await.expect("every writer is stopped");
    }
    let storage = server.storage();
    let maps = storage.list(&crate::storage::Query::prefix("configmaps/")).await.expect("a list").items;
    // Revisions of one term's writes lie before those of the next one's.
    let mut by_revision: Vec<_> = maps.iter().map(|(key, v)| (v.revision(), key.to_string())).collect();
    by_revision.sort();
    let terms: Vec<usize> = by_revision
        .iter()
        .filter_map(|(_, key)| key.rsplit('/').next()?.split('-').next()?.parse().ok())
        .collect();
    assert_eq!(terms.len(), writes.load(Ordering::Relaxed), "what was acknowledged is there");
    assert!(terms.is_sorted(), "{terms:?}");
}
