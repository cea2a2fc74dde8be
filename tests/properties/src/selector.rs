//! Selectors of labels and fields.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use minik8s_api::{FieldSelector, Selector};

/// What is read is written in a way that is read again to the same, and selects the same.
pub(crate) fn holds(data: &[u8]) {
    if let Ok(selector) = serde_json::from_slice::<LabelSelector>(data)
        && let Ok(selector) = Selector::from_label_selector(&selector)
    {
        of_labels(&selector);
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(selector) = Selector::parse(text) {
        of_labels(&selector);
    }
    if let Ok(selector) = FieldSelector::parse(text) {
        assert_eq!(FieldSelector::parse(&selector.to_string()).as_ref(), Ok(&selector), "{text:?}");
        let exact = selector.exact_value("metadata.name").map(ToOwned::to_owned);
        for name in [exact.clone().unwrap_or_default(), "a".to_owned()] {
            let matches = selector.matches(|path| (path == "metadata.name").then(|| name.clone()));
            assert!(!matches || exact.as_ref().is_none_or(|exact| *exact == name), "{text:?}: {name:?}");
        }
    }
}

fn of_labels(selector: &Selector) {
    let again = Selector::parse(&selector.to_string());
    let labels: BTreeMap<String, String> = [("app", "web"), ("a", ""), ("n", "5"), ("a/b", "c")]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into();
    let matches = selector.matches(&labels);
    // What selects nothing at all cannot be written.
    if !Selector::nothing().eq(selector) {
        assert_eq!(again.as_ref(), Ok(selector), "{selector}");
        assert_eq!(again.is_ok_and(|again| again.matches(&labels)), matches, "{selector}");
    }
    for (key, value) in &labels {
        let exact = selector.exact_value(key);
        assert!(!matches || exact.is_none_or(|exact| exact == value), "{selector}: {key}");
    }
}
