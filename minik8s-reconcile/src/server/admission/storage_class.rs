//! DefaultStorageClass: claims that name no class get the default one
//! (<https://kubernetes.io/docs/concepts/storage/persistent-volumes/#class-1>).

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::api::storage::v1::StorageClass;

use super::known::Known;
use super::{Admission, Notes, Request, Verb};
use crate::error::ApiError;

/// The annotations that mark the default class.
const MARKS: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
/// How classes were named once.
const OLD_NAME: &str = "volume.beta.kubernetes.io/storage-class";

pub(super) struct DefaultStorageClass(pub(super) Arc<Known>);

#[async_trait]
impl Admission for DefaultStorageClass {
    fn name(&self) -> &'static str {
        "DefaultStorageClass"
    }

    fn handles(&self, request: &Request<'_>) -> bool {
        request.verb() == Verb::Create
            && request.is("", "PersistentVolumeClaim")
            && self.0.storage_classes.any("")
    }

    async fn mutate(&self, request: &mut Request<'_>, _: &mut Notes) -> Result<bool, ApiError> {
        let classes = self.0.storage_classes.all();
        let Some(class) = default(classes.iter().flat_map(|c| c.values()).map(|c| &**c)) else {
            return Ok(false);
        };
        let claim = request.object_mut().and_then(|o| o.downcast_mut::<PersistentVolumeClaim>());
        Ok(claim.is_some_and(|claim| give(claim, class)))
    }
}

/// Gives the claim the class, if it does not say which one it wants. An empty name says so too: none.
fn give(claim: &mut PersistentVolumeClaim, class: &str) -> bool {
    let named = claim.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(OLD_NAME));
    let spec = claim.spec.get_or_insert_default();
    if named || spec.storage_class_name.is_some() {
        return false;
    }
    spec.storage_class_name = Some(class.to_owned());
    true
}

/// The name of the default class: of several, the one that was made last, and of these, the first by name.
fn default<'a>(classes: impl Iterator<Item = &'a StorageClass>) -> Option<&'a str> {
    let marked = classes.filter(|class| {
        let annotations = class.metadata.annotations.as_ref();
        MARKS.iter().any(|mark| annotations.and_then(|a| a.get(*mark)).is_some_and(|v| v == "true"))
    });
    let newest = marked.min_by_key(|class| {
        let made = class.metadata.creation_timestamp.as_ref().map(|t| t.0);
        (std::cmp::Reverse(made), class.metadata.name.as_deref())
    });
    newest.and_then(|class| class.metadata.name.as_deref())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_newest_default_is_given_to_claims_that_name_none() {
        let class = |name: &str, made: &str, mark: Option<(&str, &str)>| -> StorageClass {
            let annotations: serde_json::Map<_, _> =
                mark.into_iter().map(|(k, v)| (k.to_owned(), v.into())).collect();
            serde_json::from_value(json!({
                "metadata": { "name": name, "creationTimestamp": made, "annotations": annotations },
                "provisioner": "x",
            }))
            .unwrap()
        };
        let classes = [
            class("old", "2020-01-01T00:00:00Z", Some((MARKS[0], "true"))),
            class("none", "2024-01-01T00:00:00Z", None),
            class("no", "2024-01-01T00:00:00Z", Some((MARKS[0], "false"))),
            class("b", "2023-01-01T00:00:00Z", Some((MARKS[1], "true"))),
            class("a", "2023-01-01T00:00:00Z", Some((MARKS[0], "true"))),
        ];
        assert_eq!(default(classes.iter()), Some("a"));
        assert_eq!(default(classes[1..3].iter()), None);
        let cases = [
            (json!({ "spec": {} }), Some("a")),
            (json!({ "spec": { "storageClassName": "" } }), Some("")),
            (json!({ "spec": { "storageClassName": "mine" } }), Some("mine")),
            (json!({ "metadata": { "annotations": { OLD_NAME: "mine" } }, "spec": {} }), None),
        ];
        for (claim, expected) in cases {
            let mut claim: PersistentVolumeClaim = serde_json::from_value(claim).unwrap();
            give(&mut claim, "a");
            assert_eq!(claim.spec.unwrap().storage_class_name.as_deref(), expected);
        }
    }
}
