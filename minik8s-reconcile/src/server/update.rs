//! PUT, and what every change of an object goes through.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use minik8s_api::patch::apply::{self, ManagedFields};
use minik8s_api::validate::pod_parts;
use minik8s_api::{FieldErrors, FieldPath, Kind, Object, meta};
use serde_json::Value;

use std::sync::Arc;

use super::admission::{Options, Request, Verb};
use super::key::Scope;
use super::part::Part;
use super::{ApiServer, certificate, encoding, managed_fields, rbac};
use crate::error::ApiError;
use crate::request::{ApiResponse, Notes, Payload, ResponseBody, WriteParams};
use crate::storage::{Compare, Op, Txn, TxnOutcome};
use crate::stored::Stored;

/// What a change makes of an object.
pub(super) struct Edited {
    pub(super) object: Value,
    /// Who owns what then; `None` if it is to be found out from what changed.
    pub(super) managed: Option<ManagedFields>,
}

impl From<Value> for Edited {
    fn from(object: Value) -> Self {
        Self { object, managed: None }
    }
}

/// How a change is to be made.
#[derive(Clone, Copy)]
pub(super) struct Write<'a> {
    /// What Kubernetes calls the options of the request.
    pub(super) options: &'static str,
    pub(super) params: &'a WriteParams,
    /// Whether the edit is to see who owns what in the object itself.
    pub(super) whole: bool,
}

/// What came of an attempt.
enum Attempt {
    Done(Stored),
    /// Somebody else wrote this meanwhile.
    Outrun(Stored),
}

/// A change that has been worked out, but not admitted.
struct Proposed {
    old: Box<dyn Object>,
    old_value: Value,
    new: Box<dyn Object>,
    /// Who owns what then, if that is known.
    managed: Option<ManagedFields>,
    /// Who owns what before it, by what the writer says.
    before: ManagedFields,
    /// Whether it insists on the version it was made for.
    insists: bool,
}

/// A change that is ready.
struct Changed {
    new: Box<dyn Object>,
    managed: ManagedFields,
    /// Whether nothing keeps the object any more.
    gone: bool,
}

/// How often a change without a version of its own is tried on top of others'.
const ATTEMPTS: usize = 16;

impl ApiServer {
    pub(super) async fn update(
        &self,
        scope: &Scope,
        name: &str,
        part: Part,
        payload: Payload,
        params: &WriteParams,
    ) -> Result<ApiResponse, ApiError> {
        managed_fields::check_manager("UpdateOptions", params)?;
        let kind = &scope.kind;
        let mut notes = Notes::default();
        let object = encoding::read(kind, payload, params.field_validation, &mut notes.warnings)?;
        let metadata = object.metadata();
        if metadata.name.as_deref().is_some_and(|n| n != name) {
            return Err(ApiError::bad_request(format!(
                "the name of the object ({}) does not match the name on the URL ({name})",
                metadata.name.as_deref().unwrap_or_default()
            )));
        }
        if let (Some(here), Some(there)) = (&metadata.namespace, &scope.namespace)
            && !here.is_empty()
            && here != there
        {
            return Err(ApiError::bad_request(format!(
                "the namespace of the object ({here}) does not match the namespace on the URL ({there})"
            )));
        }
        if kind.custom && metadata.resource_version.as_deref().unwrap_or_default().is_empty() {
            let mut errors = FieldErrors::new();
            let path = FieldPath::new("metadata").child("resourceVersion");
            errors.invalid(path, 0, "must be specified for an update");
            return Err(ApiError::invalid(kind, name, &errors));
        }
        let new = object.to_value();
        let write = Write { options: "UpdateOptions", params, whole: false };
        self.change(scope, name, part, write, notes, |_, _| Ok(Edited::from(new.clone()))).await
    }

    /// Reads the object, lets `edit` change it and writes it back; again, if someone else wrote in between and
    /// `edit` does not insist on a version. `edit` is told who owns what.
    pub(super) async fn change(
        &self,
        scope: &Scope,
        name: &str,
        part: Part,
        write: Write<'_>,
        notes: Notes,
        edit: impl Fn(&Value, &ManagedFields) -> Result<Edited, ApiError>,
    ) -> Result<ApiResponse, ApiError> {
        let mut stored = self.read(scope, name).await?;
        for _ in 0..ATTEMPTS {
            let mut said = notes.clone();
            match self.try_change(scope, name, part, write, &stored, &mut said, &edit).await {
                Ok(Attempt::Done(object)) => {
                    let body = ResponseBody::Object { object, created: false };
                    return Ok(ApiResponse::noted(body, said));
                }
                Ok(Attempt::Outrun(current)) => stored = current,
                Err(error) => return Err(error.with_notes(said)),
            }
        }
        Err(modified(&scope.kind, name))
    }

    #[allow(clippy::too_many_arguments)]
    async fn try_change(
        &self,
        scope: &Scope,
        name: &str,
        part: Part,
        write: Write<'_>,
        stored: &Stored,
        notes: &mut Notes,
        edit: &impl Fn(&Value, &ManagedFields) -> Result<Edited, ApiError>,
    ) -> Result<Attempt, ApiError> {
        let (kind, params) = (&scope.kind, write.params);
        let served = self.served(kind, stored).await?;
        let proposed = self.proposed(kind, name, part, write, &served, edit, &mut notes.warnings)?;
        let Proposed { old, old_value, new, managed, before, insists } = proposed;
        let mut request =
            Request::new(self, scope, Verb::Update, name, Options::Write(write.options, params))
                .of_part(part.name())
                .in_place_of(&*old)
                .with_object(new);
        let changed = match part {
            // A scale is judged as such, and changed by nobody else.
            Part::Scale => {
                self.admit_scale(scope, name, write, &old_value, request.object(), notes).await?;
                false
            }
            _ => self.admission.mutate(&mut request, notes).await?,
        };
        let mut new = request.take_object().expect("it was put in");
        if changed {
            let confined = part.confine(kind, &old_value, new.to_value());
            new = encoding::checked(
                kind,
                kind.decode_value(&confined),
                params.field_validation,
                &mut notes.warnings,
            )?;
            keep(new.metadata_mut(), old.metadata());
            kind.default(&mut *new);
        }
        let changed = self.settled(kind, name, part, params, (&*old, &old_value), new, managed, before)?;
        let Changed { new, managed, gone } = changed;
        if kind.group == rbac::GROUP {
            rbac::may_grant(self, scope, Some(&*old), &*new).await?;
        }
        request.set_object(new);
        if part != Part::Scale {
            self.admission.validate(&request, notes).await?;
        }
        let charge = self.charge(&request, request.object().filter(|_| !gone)).await?;
        let mut new = request.take_object().expect("it was put in");
        let draft = self.draft(kind, &mut *new, Some(managed.to_json().as_bytes())).await?;
        if params.dry_run || draft.same_as(stored) {
            let object = if params.dry_run { draft.stamp(stored.revision()) } else { stored.clone() };
            return Ok(Attempt::Done(self.served(kind, &object).await?));
        }
        let key = scope.key(name)?;
        let mut compare = vec![Compare::Revision(key.clone(), stored.revision())];
        compare.extend(charge.compare.iter().cloned());
        let mut ops = charge.ops.clone();
        ops.extend(super::fence::moved(&key, Some(&*old), (!gone).then_some(&*new)));
        // What is written along comes first: callers look at the last one.
        ops.push(if gone { Op::Delete(key, draft) } else { Op::Put(key, draft) });
        match self.storage.txn(Txn { compare, ops }).await? {
            TxnOutcome::Committed(mut written) => {
                Ok(Attempt::Done(self.served(kind, &written.pop().expect("what was written last")).await?))
            }
            // Somebody else has changed a quota.
            TxnOutcome::Refused { index: 1.., .. } => Ok(Attempt::Outrun(stored.clone())),
            TxnOutcome::Refused { current: None, .. } => Err(ApiError::not_found(kind, name)),
            TxnOutcome::Refused { .. } if insists => Err(modified(kind, name)),
            TxnOutcome::Refused { current: Some(current), .. } => Ok(Attempt::Outrun(current)),
        }
    }

    /// What `edit` makes of the object.
    #[allow(clippy::too_many_arguments)]
    fn proposed(
        &self,
        kind: &Arc<Kind>,
        name: &str,
        part: Part,
        write: Write<'_>,
        stored: &Stored,
        edit: &impl Fn(&Value, &ManagedFields) -> Result<Edited, ApiError>,
        warnings: &mut Vec<String>,
    ) -> Result<Proposed, ApiError> {
        let lean = stored.lean();
        let text = if write.whole { stored.json() } else { &*lean };
        let mut old_value: Value = serde_json::from_slice(text).map_err(ApiError::internal)?;
        let old = kind.decode(&lean).map_err(ApiError::internal)?.object;
        let live_managed = managed_fields::stored(stored);
        let Edited { object: mut edited, managed } = edit(&old_value, &live_managed)?;
        take_managed_fields(&mut old_value);
        let sent = take_managed_fields(&mut edited).filter(|_| part == Part::Main);
        let version = edited.pointer("/metadata/resourceVersion").and_then(Value::as_str).unwrap_or_default();
        let insists = !version.is_empty();
        if insists && version != stored.revision().to_string() {
            return Err(modified(kind, name));
        }
        let new_value = part.confine(kind, &old_value, edited);
        let decoded = kind.decode_value(&new_value);
        let mut new = encoding::checked(kind, decoded, write.params.field_validation, warnings)?;
        if let (Some(uid), Some(expected)) = (&new.metadata().uid, &old.metadata().uid)
            && !uid.is_empty()
            && uid != expected
        {
            let why =
                format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {expected}");
            return Err(ApiError::conflict(kind, name, why));
        }
        keep(new.metadata_mut(), old.metadata());
        kind.default(&mut *new);
        let before = managed_fields::asked(sent.as_ref(), live_managed);
        Ok(Proposed { old, old_value, new, managed, before, insists })
    }

    /// The change as it is to be written, if it is valid.
    #[allow(clippy::too_many_arguments)]
    fn settled(
        &self,
        kind: &Kind,
        name: &str,
        part: Part,
        params: &WriteParams,
        (old, old_value): (&dyn Object, &Value),
        mut new: Box<dyn Object>,
        managed: Option<ManagedFields>,
        before: ManagedFields,
    ) -> Result<Changed, ApiError> {
        let new_value = new.to_value();
        let managed = managed.unwrap_or_else(|| {
            let mut managed = before;
            self.as_writer(kind, part, params, |writer| {
                apply::update(kind.apply_schema(), old_value, &new_value, &mut managed, writer);
            });
            managed
        });
        if kind.generation && part.counts() && differs(kind, &new_value, old_value) {
            let generation = old.metadata().generation.unwrap_or(0) + 1;
            new.metadata_mut().generation = Some(generation);
        }
        let mut errors = meta::validate(new.metadata(), kind);
        errors.extend(meta::validate_update(new.metadata(), old.metadata(), kind));
        if part == Part::Approval {
            certificate::date_conditions(&mut *new, self.clock.now());
        }
        match (part, new.downcast_ref::<Pod>(), old.downcast_ref::<Pod>()) {
            (Part::EphemeralContainers, Some(new), Some(old)) => {
                errors.extend(pod_parts::ephemeral_containers(new, old));
            }
            (Part::Resize, Some(new), Some(old)) => errors.extend(pod_parts::resize(new, old)),
            _ => {
                let of_a_part = !matches!(part, Part::Main | Part::Scale | Part::Approval);
                errors.extend(kind.validate_change(&*new, old, of_a_part));
            }
        }
        if !errors.is_empty() {
            return Err(ApiError::invalid(kind, name, &errors));
        }
        let gone = released(&*new);
        Ok(Changed { new, managed, gone })
    }
}

/// 409 for a write on top of a version that is no longer the newest.
pub(super) fn modified(kind: &Kind, name: &str) -> ApiError {
    ApiError::conflict(
        kind,
        name,
        "the object has been modified; please apply your changes to the latest version and try again",
    )
}

/// What a client cannot change of an object's metadata stays as it was.
fn keep(new: &mut ObjectMeta, old: &ObjectMeta) {
    new.name.clone_from(&old.name);
    new.namespace.clone_from(&old.namespace);
    new.uid.clone_from(&old.uid);
    new.creation_timestamp.clone_from(&old.creation_timestamp);
    new.deletion_timestamp.clone_from(&old.deletion_timestamp);
    new.deletion_grace_period_seconds = old.deletion_grace_period_seconds;
    new.generation = old.generation;
    new.generate_name.clone_from(&old.generate_name);
    new.self_link.clone_from(&old.self_link);
}

/// Whether anything but metadata and status has changed. A custom kind whose status is no part of its own has none.
fn differs(kind: &Kind, new: &Value, old: &Value) -> bool {
    let part_of_its_own = kind.status || !kind.custom;
    fn body(value: &Value, part_of_its_own: bool) -> impl Iterator<Item = (&String, &Value)> {
        let fields = value.as_object().into_iter().flatten();
        fields.filter(move |(name, _)| *name != "metadata" && !(part_of_its_own && *name == "status"))
    }
    !body(new, part_of_its_own).eq(body(old, part_of_its_own))
}

/// Takes `metadata.managedFields` out of an object.
fn take_managed_fields(object: &mut Value) -> Option<Value> {
    object.get_mut("metadata")?.as_object_mut()?.remove("managedFields")
}

/// Whether the object was deleted and nothing keeps it any more.
pub(super) fn released(object: &dyn Object) -> bool {
    let metadata = object.metadata();
    metadata.deletion_timestamp.is_some()
        && metadata.deletion_grace_period_seconds.unwrap_or(0) == 0
        && metadata.finalizers.as_ref().is_none_or(Vec::is_empty)
        && !super::delete::held_by_spec(object)
}
