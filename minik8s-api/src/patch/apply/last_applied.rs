//! Objects that `kubectl` used to apply on its side. It then keeps what it applied in an annotation.

use serde_json::Value;

use super::Writer;
use super::compare::Changes;
use super::conflict::Conflicts;
use super::field_set::FieldSet;
use super::schema::Schema;
use crate::meta::ANNOTATIONS_MAX;

const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The manager as which `kubectl` applies. Others are not concerned.
const KUBECTL: &str = "kubectl";

fn annotation(object: &Value) -> Option<&str> {
    let text = object.pointer("/metadata/annotations")?.get(ANNOTATION)?.as_str()?;
    Some(text).filter(|t| !t.is_empty())
}

/// Allows conflicts about fields that `kubectl` applied on its side and that are as it left them: it is their owner in
/// truth, whoever wrote them down.
///
/// # Errors
/// The conflicts that are left.
pub(super) fn allow(
    schema: &Schema,
    live: &Value,
    conflicts: Conflicts,
    writer: &Writer<'_>,
) -> Result<(), Conflicts> {
    let last: Value = match annotation(live).map(serde_json::from_str) {
        Some(Ok(last @ Value::Object(_))) if writer.manager == KUBECTL => last,
        _ => return Err(conflicts),
    };
    if last.get("apiVersion").and_then(Value::as_str) != Some(writer.api_version) {
        return Err(conflicts);
    }
    // What has another value now is not what was applied.
    let since = Changes::between(schema, &last, live);
    let own = FieldSet::of(schema, &last).difference(&since.written).difference(&since.removed);
    let left: Vec<_> = conflicts.0.into_iter().filter(|c| !own.contains(&c.path.0)).collect();
    if left.is_empty() { Ok(()) } else { Err(Conflicts(left)) }
}

/// Notes in the annotation, where there is one, what `kubectl` has applied: it may go back to applying on its side.
pub(super) fn renew(object: &mut Value, config: &Value, writer: &Writer<'_>) {
    if writer.manager != KUBECTL || annotation(object).is_none() {
        return;
    }
    let mut config = config.clone();
    if let Some(annotations) = config.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.remove(ANNOTATION);
    }
    let Some(annotations) = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) else {
        return;
    };
    annotations.insert(ANNOTATION.to_owned(), format!("{config}\n").into());
    // Rather without than not at all.
    let size = |(key, value): (&String, &Value)| key.len() + value.as_str().map_or(0, str::len);
    if annotations.iter().map(size).sum::<usize>() > ANNOTATIONS_MAX {
        annotations.remove(ANNOTATION);
    }
}
