//! POST.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use minik8s_api::patch::apply::ManagedFields;
use minik8s_api::{Object, meta};

use super::admission::{Options, Request, Verb, no_namespace};
use super::key::{Scope, namespace_key};
use super::{ApiServer, certificate, encoding, managed_fields, rbac};
use crate::error::ApiError;
use crate::request::{ApiResponse, Notes, Payload, ResponseBody, WriteParams};
use crate::storage::{Compare, Op, Txn, TxnOutcome};

/// Generated names that are tried before giving up.
const NAME_ATTEMPTS: usize = 8;
/// Bytes of a generated name before its random end.
const NAME_BASE: usize = 58;

impl ApiServer {
    pub(super) async fn create(
        &self,
        scope: &Scope,
        payload: Payload,
        params: &WriteParams,
    ) -> Result<ApiResponse, ApiError> {
        managed_fields::check_manager("CreateOptions", params)?;
        let mut notes = Notes::default();
        let object = encoding::read(&scope.kind, payload, params.field_validation, &mut notes.warnings)?;
        self.insert(scope, object, None, ("CreateOptions", params), notes).await
    }

    /// Makes the object. It belongs to its maker, unless it has been `applied`.
    pub(super) async fn insert(
        &self,
        scope: &Scope,
        object: Box<dyn Object>,
        applied: Option<ManagedFields>,
        (options, params): (&'static str, &WriteParams),
        mut notes: Notes,
    ) -> Result<ApiResponse, ApiError> {
        let options = Options::Write(options, params);
        match self.try_insert(scope, object, applied, options, params, &mut notes).await {
            Ok(body) => Ok(ApiResponse::noted(body, notes)),
            Err(error) => Err(error.with_notes(notes)),
        }
    }

    async fn try_insert(
        &self,
        scope: &Scope,
        mut object: Box<dyn Object>,
        applied: Option<ManagedFields>,
        options: Options<'_>,
        params: &WriteParams,
        notes: &mut Notes,
    ) -> Result<ResponseBody, ApiError> {
        let kind = &scope.kind;
        if kind.terminating {
            let message = "create not allowed while custom resource definition is terminating";
            return Err(ApiError::new(405, "MethodNotAllowed", message));
        }
        self.stamp_metadata(scope, object.metadata_mut())?;
        certificate::stamp(&mut *object, &scope.user);
        kind.default(&mut *object);
        kind.prepare_for_create(&mut *object);
        let stamp = object.metadata().clone();
        let name = stamp.name.as_deref().unwrap_or_default();
        let mut request = Request::new(self, scope, Verb::Create, name, options).with_object(object);
        let changed = self.admission.mutate(&mut request, notes).await?;
        let mut object = request.take_object().expect("it was put in");
        if changed {
            restamp(object.metadata_mut(), stamp);
            certificate::stamp(&mut *object, &scope.user);
            kind.default(&mut *object);
            kind.prepare_for_create(&mut *object);
        }
        let sent = object.metadata_mut().managed_fields.take();
        let managed = applied.unwrap_or_else(|| {
            let mut managed = managed_fields::asked_of_new(sent.as_deref());
            self.own_new(kind, &object.to_value(), &mut managed, params);
            managed
        });
        let managed = managed.to_json();
        let generated = object.metadata().name.is_none();
        let mut attempt = 0;
        loop {
            if generated {
                let metadata = object.metadata_mut();
                let base = metadata.generate_name.clone().unwrap_or_default();
                if base.is_empty() {
                    let mut errors = minik8s_api::FieldErrors::new();
                    errors.required(
                        minik8s_api::FieldPath::new("metadata").child("name"),
                        "name or generateName is required",
                    );
                    return Err(ApiError::invalid(kind, "", &errors));
                }
                let base: String = base.chars().take(NAME_BASE).collect();
                metadata.name = Some(format!("{base}{}", self.rng.suffix(5)));
            }
            let name = object.metadata().name.clone().unwrap_or_default();
            let mut errors = meta::validate(object.metadata(), kind);
            errors.extend(kind.validate(&*object));
            if !errors.is_empty() {
                return Err(ApiError::invalid(kind, &name, &errors));
            }
            if kind.group == rbac::GROUP {
                rbac::may_grant(self, scope, None, &*object).await?;
            }
            request.set_name(&name);
            request.set_object(object);
            self.admission.validate(&request, notes).await?;
            let mut compare = vec![Compare::Absent(scope.key(&name)?)];
            if let Some(namespace) = &scope.namespace {
                compare.push(Compare::Present(namespace_key(namespace)));
            }
            let charge = self.charge(&request, request.object()).await?;
            let own = compare.len();
            compare.extend(charge.compare.iter().cloned());
            object = request.take_object().expect("it was put in");
            let draft = self.draft(kind, &mut *object, Some(managed.as_bytes())).await?;
            if params.dry_run {
                if self.storage.get(compare[0].key()).await?.is_some() {
                    return Err(ApiError::already_exists(kind, &name));
                }
                let object = self.served(kind, &draft.stamp(0)).await?;
                return Ok(ResponseBody::Object { object, created: true });
            }
            let key = scope.key(&name)?;
            let mut ops = charge.ops.clone();
            ops.extend(super::fence::moved(&key, None, Some(&*object)));
            // What is written along comes first: callers look at the last one.
            ops.push(Op::Put(key, draft));
            match self.storage.txn(Txn { compare, ops }).await? {
                TxnOutcome::Committed(mut written) => {
                    let object = self.served(kind, &written.pop().expect("what was written last")).await?;
                    return Ok(ResponseBody::Object { object, created: true });
                }
                TxnOutcome::Refused { index: 0, .. } if generated && attempt < NAME_ATTEMPTS => attempt += 1,
                TxnOutcome::Refused { index: 0, .. } => return Err(ApiError::already_exists(kind, &name)),
                // Somebody else has changed a quota.
                TxnOutcome::Refused { index, .. } if index >= own => {}
                // The namespace went away between the check and the write.
                TxnOutcome::Refused { .. } => {
                    return Err(no_namespace(scope.namespace.as_deref().unwrap_or_default()));
                }
            }
        }
    }

    /// What only the server may say of a new object.
    fn stamp_metadata(&self, scope: &Scope, metadata: &mut ObjectMeta) -> Result<(), ApiError> {
        if metadata.resource_version.as_deref().is_some_and(|v| !v.is_empty()) {
            return Err(ApiError::bad_request("resourceVersion should not be set on objects to be created"));
        }
        match (&scope.namespace, metadata.namespace.as_deref().filter(|n| !n.is_empty())) {
            (Some(there), Some(here)) if there != here => {
                return Err(ApiError::bad_request(format!(
                    "the namespace of the provided object does not match the namespace sent on the request \
                     ({here} is not {there})"
                )));
            }
            (None, Some(here)) if !scope.kind.namespaced => {
                return Err(ApiError::bad_request(format!(
                    "a {} has no namespace, but the object provided says {here}",
                    scope.kind.kind
                )));
            }
            (None, _) if scope.kind.namespaced => {
                return Err(ApiError::bad_request(format!(
                    "an empty namespace may not be set during creation of a {}",
                    scope.kind.singular
                )));
            }
            (there, _) => metadata.namespace = there.clone(),
        }
        metadata.name = metadata.name.take().filter(|n| !n.is_empty());
        metadata.uid = Some(self.rng.uid());
        metadata.creation_timestamp = Some(Time(to_second(self.clock.now())));
        metadata.deletion_timestamp = None;
        metadata.deletion_grace_period_seconds = None;
        metadata.generation = scope.kind.generation.then_some(1);
        metadata.self_link = None;
        Ok(())
    }
}

/// What clients cannot say of an object stays as the server said it, whatever plugins made of that.
fn restamp(metadata: &mut ObjectMeta, stamp: ObjectMeta) {
    metadata.namespace = stamp.namespace;
    metadata.uid = stamp.uid;
    metadata.creation_timestamp = stamp.creation_timestamp;
    metadata.deletion_timestamp = None;
    metadata.deletion_grace_period_seconds = None;
    metadata.generation = stamp.generation;
    metadata.resource_version = stamp.resource_version;
    metadata.self_link = None;
    metadata.name = metadata.name.take().filter(|n| !n.is_empty());
}

/// Kubernetes' `Time` has whole seconds.
pub(super) fn to_second(time: jiff::Timestamp) -> jiff::Timestamp {
    jiff::Timestamp::from_second(time.as_second()).unwrap_or(time)
}
