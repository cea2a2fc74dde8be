//! JSON patches, RFC 6902.

use serde_json::Value;

use super::PatchError;
use crate::unstructured::depth;

/// The most operations that one patch may have.
pub const MAX_OPERATIONS: usize = 10_000;

/// The most bytes of JSON that the operations of one patch may copy: as many as a request may bring.
pub const MAX_COPIED: usize = 3 * 1024 * 1024;

/// The deepest that an operation may put something.
pub const MAX_DEPTH: usize = 128;

/// The document that the operations of `patch` make of `original`.
///
/// # Errors
/// `patch` is no list of operations, has more than [`MAX_OPERATIONS`], or one of them does not apply; then none has
/// any effect.
pub fn apply(original: &Value, patch: &Value) -> Result<Value, PatchError> {
    if let Some(n) = patch.as_array().map(Vec::len).filter(|&n| n > MAX_OPERATIONS) {
        let message = format!("The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {n}");
        return Err(PatchError::TooLarge(message));
    }
    let operations: json_patch::Patch = serde::Deserialize::deserialize(patch)
        .map_err(|e| PatchError::Malformed(format!("error decoding patch: {e}")))?;
    let mut out = original.clone();
    let mut copied = 0;
    for (index, operation) in operations.0.iter().enumerate() {
        within_bounds(operation, &out, &mut copied)?;
        if is_test_for_nothing(operation, &out) {
            continue;
        }
        json_patch::patch(&mut out, std::slice::from_ref(operation)).map_err(|e| {
            let name = patch.get(index).and_then(|o| o.get("op")).and_then(Value::as_str).unwrap_or("?");
            PatchError::DoesNotApply(format!(
                "operation {index} ({name} {}) of the JSON patch does not apply: {}",
                e.path, e.kind
            ))
        })?;
    }
    Ok(out)
}

/// Refuses what lets a document grow beyond its patch: values that are copied again and again, and trees that are hung
/// into one another.
fn within_bounds(
    operation: &json_patch::PatchOperation,
    document: &Value,
    copied: &mut usize,
) -> Result<(), PatchError> {
    let (path, value) = match operation {
        json_patch::PatchOperation::Add(add) => (&add.path, Ok(&add.value)),
        json_patch::PatchOperation::Replace(replace) => (&replace.path, Ok(&replace.value)),
        json_patch::PatchOperation::Copy(copy) => (&copy.path, copy.from.resolve(document)),
        json_patch::PatchOperation::Move(mv) => (&mv.path, mv.from.resolve(document)),
        json_patch::PatchOperation::Remove(_) | json_patch::PatchOperation::Test(_) => return Ok(()),
    };
    // One that is not there is complained of later.
    let Ok(value) = value else { return Ok(()) };
    if matches!(operation, json_patch::PatchOperation::Copy(_)) {
        *copied += value.to_string().len();
        if *copied > MAX_COPIED {
            let message = format!("The operations of a JSON patch may copy no more than {MAX_COPIED} bytes");
            return Err(PatchError::TooLarge(message));
        }
    }
    if path.count() + depth(value) > MAX_DEPTH {
        return Err(PatchError::TooLarge(format!("A JSON patch may nest no deeper than {MAX_DEPTH} levels")));
    }
    Ok(())
}

/// Whether it is a test that something is null, which is not there at all. Kubernetes takes that for a success, and
/// clients ask in this way whether nobody was there before them.
fn is_test_for_nothing(operation: &json_patch::PatchOperation, document: &Value) -> bool {
    match operation {
        json_patch::PatchOperation::Test(test) => {
            test.value.is_null() && test.path.resolve(document).is_err()
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn operations_apply_in_order() {
        let original = json!({"spec": {"list": ["a", "c"], "a/b": 1}});
        let patch = json!([
            {"op": "test", "path": "/spec/a~1b", "value": 1},
            {"op": "add", "path": "/spec/list/1", "value": "b"},
            {"op": "add", "path": "/spec/list/-", "value": "d"},
            {"op": "move", "from": "/spec/a~1b", "path": "/moved"},
            {"op": "copy", "from": "/spec/list/0", "path": "/first"},
            {"op": "replace", "path": "/spec/list/0", "value": "A"},
            {"op": "remove", "path": "/spec/list/2"},
        ]);
        let expected = json!({"spec": {"list": ["A", "b", "d"]}, "moved": 1, "first": "a"});
        assert_eq!(apply(&original, &patch), Ok(expected));
    }

    #[test]
    fn what_is_not_there_is_null() {
        let patch = json!([
            {"op": "test", "path": "/metadata/finalizers", "value": null},
            {"op": "add", "path": "/metadata/finalizers", "value": ["mine"]},
        ]);
        let patched = apply(&json!({"metadata": {}}), &patch).expect("nobody was there");
        assert_eq!(patched, json!({"metadata": {"finalizers": ["mine"]}}));
        apply(&patched, &patch).expect_err("somebody is there");
    }

    #[test]
    fn a_patch_cannot_make_a_document_grow_without_end() {
        let mut operations = vec![json!({"op": "add", "path": "/a", "value": {"x": 1}})];
        operations.extend((0..64).map(|i| json!({"op": "copy", "from": "/a", "path": format!("/a/{i}")})));
        assert_eq!(apply(&json!({}), &Value::Array(operations)).unwrap_err().code(), 413);

        let mut tree = json!(1);
        (0..60).for_each(|_| tree = json!({"a": tree.take()}));
        let bottom = "/a".repeat(60);
        // Each a little deeper than what the last one added.
        let added = (1..100).map(|n| json!({"op": "add", "path": bottom.repeat(n), "value": tree}));
        let first = json!({"op": "add", "path": "", "value": tree});
        let operations = Value::Array(std::iter::once(first).chain(added).collect());
        assert_eq!(apply(&json!({}), &operations).unwrap_err().code(), 413);
        let mut operations = vec![json!({"op": "add", "path": "/v", "value": tree})];
        for _ in 0..100 {
            operations.push(json!({"op": "add", "path": "/w", "value": tree}));
            operations.push(json!({"op": "move", "from": "/v", "path": format!("/w{bottom}")}));
            operations.push(json!({"op": "move", "from": "/w", "path": "/v"}));
        }
        assert_eq!(apply(&json!({}), &Value::Array(operations)).unwrap_err().code(), 413);
    }

    #[test]
    fn complaints() {
        let original = json!({"a": 1});
        let failed = apply(&original, &json!([{"op": "test", "path": "/a", "value": 2}])).unwrap_err();
        assert_eq!(failed.code(), 422);
        let words = "operation 0 (test /a) of the JSON patch does not apply: value did not match";
        assert_eq!(failed.to_string(), words);
        let missing = apply(&original, &json!([{"op": "remove", "path": "/b"}])).unwrap_err();
        assert_eq!(missing.code(), 422);
        for malformed in [json!({"a": 2}), json!([{"op": "frob", "path": "/a"}]), json!([{"op": "add"}])] {
            assert_eq!(apply(&original, &malformed).unwrap_err().code(), 400, "{malformed}");
        }
        let op = json!({"op": "test", "path": "/a", "value": 1});
        let many = Value::Array(vec![op; MAX_OPERATIONS + 1]);
        assert_eq!(apply(&original, &many).unwrap_err().code(), 413);
    }
}
