//! ResourceQuota: how much there may be in a namespace
//! (<https://kubernetes.io/docs/concepts/policy/resource-quotas/>).
//!
//! What is used is written into the quota's status in the transaction that writes the object, in both directions: more
//! when one is made, less when one is gone. So it can never be exceeded, however many write at once. The controller
//! ([`crate::controllers::resource_quota`]) says what is used when a quota is new, and checks now and then.

pub(crate) mod usage;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, ResourceQuota};
use minik8s_api::{Kind, Object, Quantity};
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::Request;
use super::amounts::Amounts;
use crate::error::ApiError;
use crate::server::key::Scope;
use crate::server::{ApiServer, encoding};
use crate::storage::{Compare, Op, Query};

/// Namespaces whose writes are charged at the same time.
const LANES: usize = 16;

/// One after the other: who is charged for something waits for the one before in the same namespace, instead of being
/// outrun by it again and again.
pub(super) struct Lanes([Arc<Mutex<()>>; LANES]);

impl Default for Lanes {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Arc::default()))
    }
}

impl Lanes {
    async fn enter(&self, namespace: &str) -> OwnedMutexGuard<()> {
        let lane = namespace.bytes().fold(0_usize, |n, b| n.wrapping_mul(31).wrapping_add(b.into())) % LANES;
        self.0[lane].clone().lock_owned().await
    }
}

/// What has to be written along with an object.
#[derive(Default)]
pub(in crate::server) struct Charge {
    pub(in crate::server) compare: Vec<Compare>,
    pub(in crate::server) ops: Vec<Op>,
    /// Held until it is written.
    _turn: Option<OwnedMutexGuard<()>>,
}

impl ApiServer {
    /// What the change of an object does to the quotas of its namespace.
    ///
    /// # Errors
    /// 403: there would be more than a quota allows.
    pub(in crate::server) async fn charge(
        &self,
        request: &Request<'_>,
        new: Option<&dyn Object>,
    ) -> Result<Charge, ApiError> {
        let nothing = Ok(Charge::default());
        let (kind, old) = (request.kind(), request.old());
        let Some(namespace) = request.namespace() else { return nothing };
        let Some(quotas) = self.admission.known.quotas.of(namespace) else { return nothing };
        // Events come and go in numbers that nobody plans.
        if kind.kind == "Event" {
            return nothing;
        }
        let before = old.map(|o| usage::of(kind, o)).unwrap_or_default();
        let after = new.map(|o| usage::of(kind, o)).unwrap_or_default();
        let concerned: Vec<&Arc<ResourceQuota>> = quotas
            .values()
            .filter(|quota| {
                let (is, was) = in_scope(quota, new, old);
                !is_nothing(&difference(quota, &after, &before, is, was))
            })
            .collect();
        if concerned.is_empty() {
            return nothing;
        }
        let turn = self.admission.lanes.enter(namespace).await;
        let mut charge = Charge { _turn: Some(turn), ..Charge::default() };
        let registry = self.registry();
        let quota_kind = registry.of::<ResourceQuota>().ok_or_else(ApiError::no_such_resource)?;
        for known in concerned {
            let name = known.metadata.name.as_deref().unwrap_or_default();
            let key = format!("resourcequotas/{namespace}/{name}");
            // One that is gone forbids nothing.
            let Some(stored) = self.storage.get(&key).await? else { continue };
            let mut quota = (*stored.typed::<ResourceQuota>().map_err(ApiError::internal)?).clone();
            let (is, was) = in_scope(&quota, new, old);
            if let (Some(pod), None, true) = (new.and_then(|o| o.downcast_ref::<Pod>()), old, is)
                && let Some(words) = usage::unsaid(&quota, pod)
            {
                return Err(request.forbidden(format!("failed quota: {name}: {words}")));
            }
            let asked = difference(&quota, &after, &before, is, was);
            let mut used = match used(&quota) {
                Some(used) => used,
                None => self.tally(&quota, request.scope).await?,
            };
            if let Some(words) = exceeded(&quota, &used, &asked) {
                return Err(request.forbidden(words));
            }
            used.add(&asked);
            used.0.values_mut().filter(|q| q.is_negative()).for_each(|q| *q = Quantity::ZERO);
            let status = quota.status.get_or_insert_default();
            status.hard = quota.spec.as_ref().and_then(|s| s.hard.clone());
            status.used = Some(used.to_list());
            let draft = encoding::draft(quota_kind, &mut quota, stored.managed_fields())?;
            // The quota itself may be what is deleted.
            if kind.kind != quota_kind.kind || request.name() != name {
                charge.compare.push(Compare::Revision(key.clone(), stored.revision()));
                charge.ops.push(Op::Put(key, draft));
            }
        }
        Ok(charge)
    }

    /// What is used of the quota, counted.
    async fn tally(&self, quota: &ResourceQuota, scope: &Scope) -> Result<Amounts, ApiError> {
        let mut used = nothing_of(quota);
        let registry = self.registry();
        for kind in usage::kinds(quota, &registry) {
            let place = Scope { kind: kind.clone(), ..scope.clone() };
            for (_, stored) in self.storage.list(&Query::prefix(place.prefix())).await?.items {
                let object = stored.object(&kind).map_err(ApiError::internal)?;
                add(&mut used, quota, &kind, &*object);
            }
        }
        Ok(used)
    }
}

/// Whether the object is in the quota's scopes, and whether it was.
fn in_scope(quota: &ResourceQuota, new: Option<&dyn Object>, old: Option<&dyn Object>) -> (bool, bool) {
    let within = |object: Option<&dyn Object>| object.is_some_and(|o| usage::is_in_scope(quota, o));
    (within(new), within(old))
}

/// What a change adds to what is used, of what the quota counts.
fn difference(quota: &ResourceQuota, after: &Amounts, before: &Amounts, is: bool, was: bool) -> Amounts {
    let mut asked = Amounts::default();
    for name in quota.spec.iter().flat_map(|s| s.hard.iter().flatten()).map(|(name, _)| name) {
        let of =
            |amounts: &Amounts, counts: bool| amounts.get(name).filter(|_| counts).unwrap_or(Quantity::ZERO);
        let more = of(after, is) - of(before, was);
        if !more.is_zero() {
            asked.0.insert(name.clone(), more);
        }
    }
    asked
}

fn is_nothing(amounts: &Amounts) -> bool {
    amounts.0.is_empty()
}

/// What the quota says is used of it; `None` if it does not speak of all that it limits.
fn used(quota: &ResourceQuota) -> Option<Amounts> {
    let hard = quota.spec.as_ref()?.hard.as_ref()?;
    let used = Amounts::of(quota.status.as_ref()?.used.as_ref());
    let whole = hard.keys().all(|name| used.0.contains_key(name));
    whole.then(|| Amounts(used.0.into_iter().filter(|(name, _)| hard.contains_key(name)).collect()))
}

/// All that the quota limits, none of it used.
pub(crate) fn nothing_of(quota: &ResourceQuota) -> Amounts {
    let hard = quota.spec.iter().flat_map(|s| s.hard.iter().flatten());
    Amounts(hard.map(|(name, _)| (name.clone(), Quantity::ZERO)).collect())
}

/// Adds what an object uses of the quota.
pub(crate) fn add(used: &mut Amounts, quota: &ResourceQuota, kind: &Kind, object: &dyn Object) {
    if usage::is_in_scope(quota, object) {
        for (name, amount) in usage::of(kind, object).0 {
            if let Some(sum) = used.0.get_mut(&name) {
                *sum += amount;
            }
        }
    }
}

/// What to say if more is asked for than there is.
fn exceeded(quota: &ResourceQuota, used: &Amounts, asked: &Amounts) -> Option<String> {
    let hard = Amounts::of(quota.spec.as_ref().and_then(|s| s.hard.as_ref()));
    let too_much: Vec<&String> = asked
        .0
        .iter()
        .filter(|(name, more)| {
            let all = used.get(name).unwrap_or(Quantity::ZERO) + **more;
            !more.is_negative() && hard.get(name).is_some_and(|limit| all > limit)
        })
        .map(|(name, _)| name)
        .collect();
    let listed = |amounts: &Amounts| {
        let each: Vec<String> = too_much
            .iter()
            .map(|name| format!("{name}={}", amounts.get(name).unwrap_or(Quantity::ZERO)))
            .collect();
        each.join(",")
    };
    let name = quota.metadata.name.as_deref().unwrap_or_default();
    (!too_much.is_empty()).then(|| {
        format!(
            "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
            listed(asked),
            listed(used),
            listed(&hard)
        )
    })
}

#[cfg(test)]
mod tests;
