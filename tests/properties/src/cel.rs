//! Rules in CEL.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaProps;
use minik8s_api::crd::Schema;
use minik8s_api::{FieldPath, Unstructured};
use serde_json::{Value, json};

/// The most bytes of complaints about one object.
const WORDS: usize = 1 << 20;

/// A rule is refused or runs to its end on any object, within its limits. The input is a rule, and an object's spec on the
/// last line.
pub(crate) fn holds(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (rule, spec) = text.rsplit_once('\n').unwrap_or((text, "{}"));
    let number = json!({ "type": "integer" });
    let string = json!({ "type": "string" });
    let schema = json!({ "type": "object", "properties": { "spec": {
        "type": "object",
        "properties": {
            "n": number, "x": { "type": "number" }, "s": string, "b": { "type": "boolean" },
            "t": { "type": "string", "format": "date-time" },
            "list": { "type": "array", "items": string },
            "numbers": { "type": "array", "items": number },
            "map": { "type": "object", "additionalProperties": string },
            "sub": { "type": "object", "properties": { "a": number, "b": string } },
        },
        "x-kubernetes-validations": [{ "rule": rule, "messageExpression": rule }, { "rule": rule }],
    } } });
    let props: JSONSchemaProps = serde_json::from_value(schema).expect("a schema");
    let Ok(schema) = Schema::compile(&props, &FieldPath::root()) else { return };
    let Ok(spec) = serde_json::from_str::<Value>(spec) else { return };
    let object = |spec: Value| {
        let value = json!({ "apiVersion": "v1", "kind": "Thing", "metadata": { "name": "a" }, "spec": spec });
        Unstructured::from_value(value, &mut Vec::new()).ok()
    };
    let (Some(new), Some(old)) = (object(spec), object(json!({ "n": 1, "s": "a", "list": ["x"] }))) else {
        return;
    };
    for old in [None, Some(&old)] {
        let errors = schema.validate(&new, old);
        let again = schema.validate(&new, old);
        assert_eq!(errors, again, "the same object gets the same answer");
        assert!(errors.to_string().len() <= WORDS);
    }
}
