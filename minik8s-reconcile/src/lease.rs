//! Leader election: of several servers, one does what only one should, such as running the controllers.
//!
//! Candidates share a [`Lease`] object, as [Kubernetes' own components do](https://kubernetes.io/docs/concepts/architecture/leases/).
//! Whoever holds it renews it; one that has not been renewed for its duration may be taken. Durations are measured by
//! each candidate's own clock from when it saw the last renewal, so clocks need not agree.
//!
//! # Guarantees
//! - Of all that is written through [`Term::client`], nothing is written after somebody else has become the holder:
//!   see [`ApiServer::fenced`]. A leader that was paused for longer than its lease does no harm.
//! - A leader that is told to stop gives the lease away when its work has ended, so that the next one need not wait.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::client::{Api, Client};
use crate::error::ApiError;
use crate::server::ApiServer;

/// Who takes part in which election.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Election {
    /// The namespace of the Lease.
    pub namespace: String,
    /// The name of the Lease.
    pub name: String,
    /// This candidate's name, which no other one has.
    pub identity: String,
    /// For how long a leader that is not heard of is still the leader. Whole seconds. Default: 4 s.
    pub duration: Duration,
    /// For how long a leader tries to renew before it gives up; less than [`Self::duration`]. Default: 3 s.
    pub deadline: Duration,
    /// How often leaders renew and the others look. Default: 1 s.
    pub period: Duration,
}

impl Election {
    /// The election of the holder of the Lease `name` in `namespace`.
    pub fn new(namespace: &str, name: &str, identity: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            identity: identity.to_owned(),
            duration: Duration::from_secs(4),
            deadline: Duration::from_secs(3),
            period: Duration::from_secs(1),
        }
    }
}

/// The time for which somebody leads.
#[derive(Clone)]
pub struct Term {
    /// Writes only as long as this term lasts.
    pub client: Client,
    /// The server that this client is of.
    pub server: ApiServer,
    /// The revision at which it began.
    pub since: u64,
    /// Cancelled when it is over, or about to be: end the work.
    pub ended: CancellationToken,
}

impl fmt::Debug for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Term(since {})", self.since)
    }
}

/// What a candidate is to do about a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Take it.
    Take,
    /// Look again, at the latest after that long.
    Wait(Duration),
}

/// What `me` is to do about a lease that has been as it is for `unchanged`.
pub fn evaluate(lease: Option<&LeaseSpec>, me: &str, unchanged: Duration) -> Verdict {
    let Some(lease) = lease else { return Verdict::Take };
    let holder = lease.holder_identity.as_deref().unwrap_or_default();
    if holder.is_empty() || holder == me {
        return Verdict::Take;
    }
    let seconds = lease.lease_duration_seconds.and_then(|s| u64::try_from(s).ok()).unwrap_or(0);
    match Duration::from_secs(seconds).checked_sub(unchanged) {
        None | Some(Duration::ZERO) => Verdict::Take,
        Some(left) => Verdict::Wait(left),
    }
}

/// How long the work of a term that is over may take to end.
const GRACE: Duration = Duration::from_secs(10);

/// Takes part in the election until `shutdown`, and does `work` whenever it is won.
///
/// Work that does not end within ten seconds after its term is dropped.
pub async fn lead<F>(
    server: &ApiServer,
    election: &Election,
    shutdown: CancellationToken,
    mut work: impl FnMut(Term) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let leases = server.client().field_manager("minik8s-leader-election").namespaced(&election.namespace);
    let mut terms = 0_u64;
    while !shutdown.is_cancelled() {
        // Each attempt under a name of its own: what became of one whose answer was lost need not be known.
        terms += 1;
        let me = format!("{}_{terms}", election.identity);
        let candidate = Candidate { server, election, leases: leases.clone(), me };
        let won = tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            won = candidate.win() => won,
        };
        let since = won.metadata.resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0);
        tracing::info!(lease = election.name, me = candidate.me, since, "leading");
        let fenced = server.fenced(&election.namespace, &election.name, since);
        let ended = CancellationToken::new();
        let term = Term { client: fenced.client(), server: fenced, since, ended: ended.clone() };
        let mut working = tokio::spawn(work(term));
        let held = tokio::select! {
            biased;
            () = shutdown.cancelled() => true,
            done = &mut working => {
                if let Err(error) = done {
                    tracing::error!(%error, "the leader's work has failed");
                }
                true
            }
            why = candidate.hold(won) => {
                tracing::warn!(lease = election.name, why, "not leading any more");
                false
            }
        };
        ended.cancel();
        if !working.is_finished() && tokio::time::timeout(GRACE, &mut working).await.is_err() {
            working.abort();
        }
        if held && let Err(error) = candidate.release().await {
            tracing::warn!(lease = election.name, %error, "cannot give the lease away; it will run out");
        }
    }
}

/// One attempt to lead.
struct Candidate<'a> {
    server: &'a ApiServer,
    election: &'a Election,
    leases: Api<Lease>,
    me: String,
}

impl Candidate<'_> {
    fn now(&self) -> MicroTime {
        // Clients expect microseconds.
        let now = self.server.clock().now();
        MicroTime(Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now))
    }

    /// Waits until the lease is this candidate's.
    async fn win(&self) -> Lease {
        let mut seen: Option<(Option<String>, Instant)> = None;
        loop {
            let wait = match self.try_to_win(&mut seen).await {
                Ok(Some(won)) => return won,
                Ok(None) => self.election.period,
                Err(error) => {
                    tracing::debug!(lease = self.election.name, %error, "cannot take part in the election");
                    self.election.period
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    async fn try_to_win(
        &self,
        seen: &mut Option<(Option<String>, Instant)>,
    ) -> Result<Option<Lease>, ApiError> {
        let found = self.leases.get_opt(&self.election.name).await?;
        let version = found.as_ref().and_then(|l| l.metadata.resource_version.clone());
        let since = match seen {
            Some((known, since)) if *known == version => *since,
            _ => seen.insert((version, Instant::now())).1,
        };
        let spec = found.as_ref().map(|l| l.spec.clone().unwrap_or_default());
        if let Verdict::Wait(_) = evaluate(spec.as_ref(), &self.me, since.elapsed()) {
            return Ok(None);
        }
        let spec = spec.unwrap_or_default();
        let now = self.now();
        let taken = LeaseSpec {
            holder_identity: Some(self.me.clone()),
            lease_duration_seconds: Some(i32::try_from(self.election.duration.as_secs()).unwrap_or(i32::MAX)),
            acquire_time: Some(now.clone()),
            renew_time: Some(now),
            lease_transitions: Some(spec.lease_transitions.map_or(0, |n| n.saturating_add(1))),
            ..spec
        };
        let written = match found {
            Some(found) => {
                let mut lease = (*found).clone();
                lease.spec = Some(taken);
                self.leases.update(&lease).await
            }
            None => {
                let mut lease = Lease { spec: Some(taken), ..Lease::default() };
                lease.metadata.name = Some(self.election.name.clone());
                self.leases.create(&lease).await
            }
        };
        match written {
            Ok(won) => Ok(Some((*won).clone())),
            // Somebody else was quicker.
            Err(e) if e.is_conflict() || e.is_already_exists() => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Renews the lease until that fails, and says why.
    async fn hold(&self, mut lease: Lease) -> String {
        let mut renewed = Instant::now();
        loop {
            tokio::time::sleep(self.election.period).await;
            let left = self.election.deadline.saturating_sub(renewed.elapsed());
            let began = Instant::now();
            match tokio::time::timeout(left, self.renew(&mut lease)).await {
                Ok(Ok(true)) => renewed = began,
                Ok(Ok(false)) => return "somebody else has taken the lease".into(),
                Ok(Err(error)) if renewed.elapsed() >= self.election.deadline => return error.to_string(),
                Ok(Err(error)) => tracing::warn!(%error, "cannot renew the lease; trying again"),
                Err(_) => return "the lease could not be renewed in time".into(),
            }
        }
    }

    /// Renews once; `false` if it has another holder.
    async fn renew(&self, lease: &mut Lease) -> Result<bool, ApiError> {
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() != Some(&self.me) {
            return Ok(false);
        }
        spec.renew_time = Some(self.now());
        match self.leases.update(lease).await {
            Ok(written) => *lease = (*written).clone(),
            // An answer that was lost, or somebody who has put a label on it.
            Err(e) if e.is_conflict() => match self.leases.get_opt(&self.election.name).await? {
                Some(current) => {
                    *lease = (*current).clone();
                    return Box::pin(self.renew(lease)).await;
                }
                None => return Ok(false),
            },
            Err(e) if e.is_not_found() => return Ok(false),
            Err(e) => return Err(e),
        }
        Ok(true)
    }

    /// Gives the lease away, if it is still this candidate's.
    async fn release(&self) -> Result<(), ApiError> {
        let Some(found) = self.leases.get_opt(&self.election.name).await? else { return Ok(()) };
        let mut lease = (*found).clone();
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() != Some(&self.me) {
            return Ok(());
        }
        spec.holder_identity = Some(String::new());
        match self.leases.update(&lease).await {
            Err(e) if !e.is_conflict() => Err(e),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
