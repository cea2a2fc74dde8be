//! DELETE.

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use minik8s_api::Object;

use super::admission::{Options, Request, Verb};
use super::create::to_second;
use super::key::Scope;
use super::update::released;
use super::{ApiServer, definitions};
use crate::error::ApiError;
use crate::request::{ApiResponse, DeleteParams, ListParams, Notes, Propagation, ResponseBody};
use crate::storage::{Compare, Op, Txn, TxnOutcome};

/// Kept by the garbage collector until the dependents are gone.
const FOREGROUND: &str = "foregroundDeletion";
/// Kept by the garbage collector until the dependents have been let go.
const ORPHAN: &str = "orphan";

impl ApiServer {
    pub(super) async fn delete(
        &self,
        scope: &Scope,
        name: &str,
        params: &DeleteParams,
    ) -> Result<ApiResponse, ApiError> {
        let mut notes = Notes::default();
        match self.try_delete(scope, name, params, &mut notes).await {
            Ok(body) => Ok(ApiResponse::noted(body, notes)),
            Err(error) => Err(error.with_notes(notes)),
        }
    }

    async fn try_delete(
        &self,
        scope: &Scope,
        name: &str,
        params: &DeleteParams,
        notes: &mut Notes,
    ) -> Result<ResponseBody, ApiError> {
        let kind = &scope.kind;
        loop {
            let stored = self.read(scope, name).await?;
            let served = self.served(kind, &stored).await?;
            let old = served.object(kind).map_err(ApiError::internal)?;
            self.check_preconditions(scope, name, params, &*old, stored.revision())?;
            let mut request =
                Request::new(self, scope, Verb::Delete, name, Options::Delete(params)).in_place_of(&*old);
            self.admission.mutate(&mut request, notes).await?;
            self.admission.validate(&request, notes).await?;
            let mut object = old.boxed_clone();
            let changed = self.mark_deleted(scope, &mut *object, params);
            let gone = released(&*object);
            let uid = object.metadata().uid.clone().unwrap_or_default();
            if params.dry_run || (!changed && !gone) {
                return Ok(ResponseBody::Object { object: served, created: false });
            }
            let key = scope.key(name)?;
            let draft = self.draft(kind, &mut *object, stored.managed_fields()).await?;
            let charge = self.charge(&request, Some(&*object).filter(|_| !gone)).await?;
            let mut ops = charge.ops.clone();
            if gone {
                ops.extend(super::fence::moved(&key, Some(&*object), None));
            }
            // What is written along comes first: callers look at the last one.
            ops.push(if gone { Op::Delete(key.clone(), draft) } else { Op::Put(key.clone(), draft) });
            let mut compare = vec![Compare::Revision(key, stored.revision())];
            compare.extend(charge.compare.iter().cloned());
            match self.storage.txn(Txn { compare, ops }).await? {
                TxnOutcome::Committed(mut written) => {
                    let object = self.served(kind, &written.pop().expect("what was written last")).await?;
                    return Ok(if gone && !kind.returns_deleted {
                        ResponseBody::Deleted { name: name.to_owned(), uid, revision: object.revision() }
                    } else {
                        ResponseBody::Object { object, created: false }
                    });
                }
                // Somebody else was quicker: look again.
                TxnOutcome::Refused { .. } => {}
            }
        }
    }

    pub(super) async fn delete_collection(
        &self,
        scope: &Scope,
        list: &ListParams,
        params: &DeleteParams,
    ) -> Result<ApiResponse, ApiError> {
        let ResponseBody::List(found) = self.list(scope, list).await?.body else {
            return Err(ApiError::internal("a list is a list"));
        };
        for stored in &found.items {
            let metadata = stored.metadata().map_err(ApiError::internal)?;
            let place = Scope { namespace: metadata.namespace, ..scope.clone() };
            match self.delete(&place, metadata.name.as_deref().unwrap_or_default(), params).await {
                Err(e) if !e.is_not_found() => return Err(e),
                _ => {}
            }
        }
        Ok(ResponseBody::List(found).into())
    }

    fn check_preconditions(
        &self,
        scope: &Scope,
        name: &str,
        params: &DeleteParams,
        object: &dyn Object,
        revision: u64,
    ) -> Result<(), ApiError> {
        let uid = object.metadata().uid.as_deref().unwrap_or_default();
        let why = match (&params.uid, params.resource_version) {
            (Some(wanted), _) if wanted != uid => {
                format!("Precondition failed: UID in precondition: {wanted}, UID in object meta: {uid}")
            }
            (_, Some(wanted)) if wanted != revision => format!(
                "Precondition failed: ResourceVersion in precondition: {wanted}, ResourceVersion in object meta: \
                 {revision}"
            ),
            _ => return Ok(()),
        };
        Err(ApiError::conflict(&scope.kind, name, why))
    }

    /// Notes in the object that it is to go, and whether that was news.
    fn mark_deleted(&self, scope: &Scope, object: &mut dyn Object, params: &DeleteParams) -> bool {
        let default = scope.kind.grace_period(object);
        // Nothing to wait for where the kind knows no grace or the object has none to give.
        let grace = match default {
            None | Some(0) => 0,
            Some(default) => params.grace_period_s.unwrap_or(default).max(0),
        };
        let now = self.clock.now();
        let is_namespace = object.downcast_ref::<Namespace>().is_some();
        let metadata = object.metadata_mut();
        let mut changed = false;
        let finalizer = match params.propagation {
            Some(Propagation::Foreground) => Some(FOREGROUND),
            Some(Propagation::Orphan) => Some(ORPHAN),
            Some(Propagation::Background) | None => None,
        };
        if let Some(finalizer) = finalizer.filter(|_| metadata.deletion_timestamp.is_none()) {
            let finalizers = metadata.finalizers.get_or_insert_default();
            if !finalizers.iter().any(|f| f == finalizer) {
                finalizers.push(finalizer.to_owned());
                changed = true;
            }
        }
        // A later DELETE can only make the end come sooner.
        let sooner = metadata.deletion_grace_period_seconds.is_none_or(|left| grace < left);
        if metadata.deletion_timestamp.is_none() || sooner {
            let end = now.saturating_add(SignedDuration::from_secs(grace)).unwrap_or(now);
            metadata.deletion_timestamp = Some(Time(to_second(end)));
            metadata.deletion_grace_period_seconds = Some(grace);
            if let Some(generation) = &mut metadata.generation {
                *generation += 1;
            }
            changed = true;
        }
        if is_namespace
            && changed
            && let Some(namespace) = object.downcast_mut::<Namespace>()
        {
            namespace.status.get_or_insert_default().phase = Some("Terminating".to_owned());
        }
        if changed {
            definitions::mark_deleted(object, now);
        }
        changed
    }
}

/// Whether the object's own spec keeps it, as a namespace's finalizers do.
pub(super) fn held_by_spec(object: &dyn Object) -> bool {
    object
        .downcast_ref::<Namespace>()
        .and_then(|n| n.spec.as_ref()?.finalizers.as_ref())
        .is_some_and(|finalizers| !finalizers.is_empty())
}
