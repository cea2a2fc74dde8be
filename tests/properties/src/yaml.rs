//! YAML of manifests and of request bodies.

use minik8s_api::manifest;
use serde_json::Value;

use crate::tree;

/// The most that aliases may make of a text, and the comma or two behind it.
const EXPANDED: usize = 17 * 1024 * 1024;

/// What is read comes out as JSON, within bounds, and is the same when it is written as YAML and read again.
pub(crate) fn holds(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(json) = manifest::to_json("the body", text) {
        assert!(json.len() <= EXPANDED, "{} bytes", json.len());
        let value: Value = serde_json::from_slice(&json).expect("what is written is JSON");
        let again = serde_yaml::to_string(&value).expect("JSON is YAML");
        let again = manifest::to_json("the body", &again).expect("what was written is read");
        assert_eq!(serde_json::from_slice::<Value>(&again).expect("JSON"), value);
    }
    match manifest::load("x.yaml", text) {
        Ok(documents) => {
            for document in documents {
                assert!(!document.kind().is_empty() && !document.api_version().is_empty());
                assert!(tree::depth(&document.value) <= tree::DEEPEST);
                let again = manifest::load("x.yaml", &document.value.to_string()).expect("it is read again");
                assert_eq!(again.len(), 1);
                assert_eq!(again[0].value, document.value);
            }
        }
        Err(errors) => {
            // YAML knows more ways to end a line than others do.
            let ends = ['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}'];
            let lines = text.matches(ends).count() + 2;
            assert!(
                !errors.0.is_empty() && errors.0.iter().all(|e| (1..=lines).contains(&e.line)),
                "{errors}"
            );
        }
    }
}
