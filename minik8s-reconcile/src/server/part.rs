//! The parts of objects that are written apart from one another.

use k8s_openapi::api::core::v1::PodSpec;
use minik8s_api::Kind;
use minik8s_api::validate::pod_parts;
use serde_json::{Value, json};

use super::certificate;
use crate::error::ApiError;

/// The part of an object that a change is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// All but the status, where that is a part of its own.
    Main,
    /// The status alone.
    Status,
    /// A namespace's `spec.finalizers` alone.
    Finalize,
    /// Whether a certificate may be signed: the conditions of its request alone.
    Approval,
    /// How many there should be, of a kind that can be scaled.
    Scale,
    /// A pod's ephemeral containers alone.
    EphemeralContainers,
    /// What a pod's containers are given of a node, alone.
    Resize,
}

impl Part {
    pub(super) fn of(kind: &Kind, subresource: Option<&str>) -> Result<Self, ApiError> {
        match subresource {
            None => Ok(Self::Main),
            Some("status") if kind.status => Ok(Self::Status),
            Some("finalize") if kind.kind == "Namespace" => Ok(Self::Finalize),
            Some("approval") if certificate::is_request(kind) => Ok(Self::Approval),
            Some("scale") if kind.scale.is_some() => Ok(Self::Scale),
            Some("ephemeralcontainers") if is_pod(kind) => Ok(Self::EphemeralContainers),
            Some("resize") if is_pod(kind) => Ok(Self::Resize),
            Some(_) => Err(ApiError::no_such_resource()),
        }
    }

    /// The subresource through which it is written; empty for the object itself.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Main => "",
            Self::Status => "status",
            Self::Finalize => "finalize",
            Self::Approval => "approval",
            Self::Scale => "scale",
            Self::EphemeralContainers => "ephemeralcontainers",
            Self::Resize => "resize",
        }
    }

    /// Whether it covers that field of an object.
    pub(super) fn covers(self, kind: &Kind, field: &str) -> bool {
        match (self, field) {
            (Self::Main, "status") => !kind.status,
            // It holds nothing but finalizers.
            (Self::Main, "spec") => kind.kind != "Namespace" || !kind.group.is_empty(),
            (Self::Main, _) => true,
            (Self::Status | Self::Approval, _) => matches!(field, "metadata" | "status"),
            (Self::Finalize | Self::Scale | Self::EphemeralContainers | Self::Resize, _) => field == "spec",
        }
    }

    /// Whether a change of it is one that `metadata.generation` counts.
    pub(super) fn counts(self) -> bool {
        !matches!(self, Self::Status | Self::Finalize | Self::Approval)
    }

    /// `new`, with what this part does not cover as it was in `old`.
    pub(super) fn confine(self, kind: &Kind, old: &Value, mut new: Value) -> Value {
        match self {
            Self::Main | Self::Scale => {
                if kind.status {
                    replace(&mut new, "status", old.get("status"));
                }
                if kind.kind == "Namespace" {
                    let finalizers = old.pointer("/spec/finalizers");
                    if let (Some(spec), Some(finalizers)) = (new.get_mut("spec"), finalizers) {
                        replace(spec, "finalizers", Some(finalizers));
                    }
                }
                new
            }
            Self::Status => {
                let mut confined = old.clone();
                replace(&mut confined, "status", new.get("status"));
                if certificate::is_request(kind) {
                    certificate::keep_verdict(&mut confined, old);
                }
                // Controllers keep notes about a status in its object's annotations and labels.
                if kind.custom {
                    confine_metadata(&mut confined, &new);
                } else {
                    replace(&mut confined, "metadata", new.get("metadata"));
                }
                confined
            }
            Self::Approval => {
                let mut confined = old.clone();
                if confined.get("status").is_none_or(|s| !s.is_object()) {
                    replace(&mut confined, "status", Some(&json!({})));
                }
                let conditions = new.pointer("/status/conditions");
                replace(&mut confined["status"], "conditions", conditions);
                replace(&mut confined, "metadata", new.get("metadata"));
                confined
            }
            Self::EphemeralContainers => {
                let mut confined = old.clone();
                let containers = new.pointer("/spec/ephemeralContainers");
                replace(&mut confined["spec"], "ephemeralContainers", containers);
                keep_wishes(&mut confined, &new);
                confined
            }
            Self::Resize => {
                let mut confined = old.clone();
                let spec = |of: &Value| serde_json::from_value::<PodSpec>(of["spec"].clone()).ok();
                if let (Some(before), Some(wanted)) = (spec(old), spec(&new)) {
                    confined["spec"] = json!(pod_parts::resized(&before, &wanted));
                }
                keep_wishes(&mut confined, &new);
                confined
            }
            Self::Finalize => {
                let mut confined = old.clone();
                replace(&mut confined, "spec", new.get("spec"));
                confined
            }
        }
    }
}

fn is_pod(kind: &Kind) -> bool {
    kind.kind == "Pod" && kind.group.is_empty()
}

/// The version and the identity that a change was made for.
fn keep_wishes(confined: &mut Value, new: &Value) {
    for field in ["resourceVersion", "uid"] {
        replace(&mut confined["metadata"], field, new.get("metadata").and_then(|m| m.get(field)));
    }
}

/// With the status of a custom kind come the version that it was made for, and who manages it.
fn confine_metadata(confined: &mut Value, new: &Value) {
    let Some(metadata) = confined.get_mut("metadata") else { return };
    for field in ["resourceVersion", "uid", "managedFields"] {
        replace(metadata, field, new.get("metadata").and_then(|m| m.get(field)));
    }
}

/// Sets or removes a field of a JSON object.
fn replace(object: &mut Value, field: &str, value: Option<&Value>) {
    let Some(map) = object.as_object_mut() else { return };
    match value {
        Some(value) => {
            map.insert(field.to_owned(), value.clone());
        }
        None => {
            map.remove(field);
        }
    }
}

#[cfg(test)]
mod tests;
