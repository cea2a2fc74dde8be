//! `apply` and `create`.
//!
//! `apply` remembers what it was given in the annotation that kubectl uses too, so that a field that is taken out of
//! a manifest is taken out of the object.

use std::process::ExitCode;

use minik8s_reconcile::request::{FieldValidation, Operation, Patch, Payload, ResponseBody, WriteParams};
use minik8s_reconcile::{ApiError, Stored};
use serde_json::{Map, Value, json};

use super::manifests::{self, Manifest};
use super::session::Session;
use super::{print, print_error};
use crate::args::Files;

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

pub async fn create(session: &Session, files: &Files) -> anyhow::Result<ExitCode> {
    each(session, files, async |manifest| {
        make(session, manifest, manifest.document.value.clone(), files.dry_run).await
    })
    .await
}

pub async fn apply(session: &Session, files: &Files) -> anyhow::Result<ExitCode> {
    each(session, files, async |manifest| apply_one(session, manifest, files.dry_run).await).await
}

/// Does something for each manifest; one that fails does not keep the others back.
async fn each(
    session: &Session,
    files: &Files,
    act: impl AsyncFn(&Manifest) -> Result<&'static str, ApiError>,
) -> anyhow::Result<ExitCode> {
    let manifests = manifests::load(session, &files.filename)?;
    let mut code = ExitCode::SUCCESS;
    let suffix = if files.dry_run { " (dry run)" } else { "" };
    for manifest in &manifests {
        match act(manifest).await {
            Ok(done) => print(&format!("{} {done}{suffix}\n", manifest.title()))?,
            Err(error) => {
                code = ExitCode::FAILURE;
                print_error(&anyhow::Error::new(error).context(manifest.place()));
            }
        }
    }
    Ok(code)
}

fn params(dry_run: bool) -> WriteParams {
    WriteParams {
        field_manager: "minik8s-client-side-apply".to_owned(),
        dry_run,
        field_validation: FieldValidation::Strict,
    }
}

async fn make(
    session: &Session,
    manifest: &Manifest,
    value: Value,
    dry_run: bool,
) -> Result<&'static str, ApiError> {
    let payload = Payload::Json(value.to_string().into());
    let mut request = manifest.request(session, Operation::Create(payload, params(dry_run)));
    request.name = None;
    session.call(request).await.map(|_| "created")
}

async fn apply_one(session: &Session, manifest: &Manifest, dry_run: bool) -> Result<&'static str, ApiError> {
    if manifest.name().is_empty() {
        return Err(ApiError::bad_request(
            "metadata.name: Required value: apply needs a name; create does not",
        ));
    }
    let mut wanted = manifest.document.value.clone();
    remember(&mut wanted);
    let live = match session.call(manifest.request(session, Operation::Get)).await {
        Ok(response) => match response.body {
            ResponseBody::Object { object, .. } => object,
            other => return Err(ApiError::internal(format!("unexpected answer {other:?}"))),
        },
        Err(error) if error.is_not_found() => return make(session, manifest, wanted, dry_run).await,
        Err(error) => return Err(error),
    };
    let live_value: Value = serde_json::from_slice(live.json()).map_err(ApiError::internal)?;
    let patch = three_way(&last_applied(&live_value), &wanted, &live_value);
    if patch.as_object().is_some_and(Map::is_empty) {
        return Ok("unchanged");
    }
    let operation = Operation::Patch(Patch::merge(&patch), params(dry_run));
    let changed = session.call(manifest.request(session, operation)).await?;
    Ok(if same_version(&changed.body, &live) && !dry_run { "unchanged" } else { "configured" })
}

fn same_version(body: &ResponseBody, live: &Stored) -> bool {
    matches!(body, ResponseBody::Object { object, .. } if object.revision() == live.revision())
}

/// Puts the manifest as it is into its own annotation.
fn remember(value: &mut Value) {
    if let Some(annotations) = value.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.remove(LAST_APPLIED);
    }
    let text = format!("{value}\n");
    let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
    if annotations.is_null() {
        *annotations = json!({});
    }
    annotations[LAST_APPLIED] = text.into();
}

fn last_applied(live: &Value) -> Value {
    let annotations = live.pointer("/metadata/annotations");
    let text = annotations.and_then(|a| a.get(LAST_APPLIED)).and_then(Value::as_str).unwrap_or("{}");
    serde_json::from_str(text).unwrap_or_else(|_| json!({}))
}

/// The merge patch that brings `live` to `wanted` and takes out what `last` had and `wanted` has no more.
fn three_way(last: &Value, wanted: &Value, live: &Value) -> Value {
    let mut patch = Map::new();
    let empty = Map::new();
    let fields = |value: &Value| value.as_object().cloned().unwrap_or_else(|| empty.clone());
    let (last, wanted, live) = (fields(last), fields(wanted), fields(live));
    for (name, value) in &wanted {
        let present = live.get(name).unwrap_or(&Value::Null);
        if value.is_object() && present.is_object() {
            let inner = three_way(last.get(name).unwrap_or(&Value::Null), value, present);
            if inner.as_object().is_some_and(|i| !i.is_empty()) {
                patch.insert(name.clone(), inner);
            }
        } else if !covers(present, value) {
            patch.insert(name.clone(), value.clone());
        }
    }
    for name in last.keys().filter(|n| !wanted.contains_key(*n) && live.contains_key(*n)) {
        patch.insert(name.clone(), Value::Null);
    }
    Value::Object(patch)
}

/// Whether `live` says all that `wanted` says; the server may have filled in more.
fn covers(live: &Value, wanted: &Value) -> bool {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => {
            wanted.iter().all(|(name, value)| covers(live.get(name).unwrap_or(&Value::Null), value))
        }
        (Value::Array(live), Value::Array(wanted)) => {
            live.len() == wanted.len() && live.iter().zip(wanted).all(|(l, w)| covers(l, w))
        }
        (live, wanted) => live == wanted || (live.is_null() && wanted.as_object().is_some_and(Map::is_empty)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_has_what_changed_and_what_went() {
        let last = json!({ "spec": { "a": 1, "b": { "c": 1 } } });
        let wanted = json!({ "spec": { "b": { "d": 2 }, "list": [{ "x": 1 }] } });
        let live =
            json!({ "spec": { "a": 1, "b": { "c": 1, "z": 9 }, "list": [{ "x": 1, "defaulted": true }] } });
        let patch = three_way(&last, &wanted, &live);
        assert_eq!(patch, json!({ "spec": { "a": null, "b": { "c": null, "d": 2 } } }));
    }

    #[test]
    fn nothing_changed_is_no_patch() {
        let mut wanted = json!({ "metadata": { "name": "a" }, "spec": { "resources": {} } });
        remember(&mut wanted);
        let mut live = wanted.clone();
        live["status"] = json!({});
        live["spec"] = json!({ "other": 1 });
        assert_eq!(three_way(&last_applied(&live), &wanted, &live), json!({}));
    }
}
