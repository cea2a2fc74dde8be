//! What is noted, in the words of `audit.k8s.io/v1`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::policy::{Level, Stage};
use crate::http::route::Place;
use crate::request::User;

/// What a request is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ObjectReference {
    group: String,
    version: String,
    resource: String,
    namespace: String,
    name: String,
    subresource: String,
}

impl ObjectReference {
    pub(super) fn of(place: &Place) -> Self {
        let given = |text: &Option<String>| text.clone().unwrap_or_default();
        Self {
            group: place.group.clone(),
            version: place.version.clone(),
            resource: place.plural.clone(),
            namespace: given(&place.namespace),
            name: given(&place.name),
            subresource: given(&place.subresource),
        }
    }
}

/// One note.
#[derive(Clone, Debug, Default)]
pub(super) struct Event {
    pub(super) level: Level,
    pub(super) audit_id: String,
    pub(super) stage: Stage,
    pub(super) request_uri: String,
    pub(super) verb: String,
    pub(super) user: Option<User>,
    pub(super) impersonated_user: Option<User>,
    pub(super) source_ips: Vec<IpAddr>,
    pub(super) user_agent: String,
    pub(super) object_ref: Option<ObjectReference>,
    /// 0 before there is one.
    pub(super) code: u16,
    pub(super) status: Option<Value>,
    pub(super) request_object: Option<Value>,
    pub(super) response_object: Option<Value>,
    pub(super) request_received_timestamp: Timestamp,
    pub(super) stage_timestamp: Timestamp,
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) omit_managed_fields: bool,
}

impl Event {
    /// The note as a line of JSON.
    pub(super) fn to_line(&self) -> String {
        let mut out = Map::new();
        let mut put = |key: &str, value: Value| {
            let empty = match &value {
                Value::Null => true,
                Value::String(text) => text.is_empty(),
                Value::Array(items) => items.is_empty(),
                Value::Object(fields) => fields.is_empty(),
                _ => false,
            };
            if !empty {
                out.insert(key.to_owned(), value);
            }
        };
        put("kind", "Event".into());
        put("apiVersion", "audit.k8s.io/v1".into());
        put("level", self.level.name().into());
        put("auditID", self.audit_id.as_str().into());
        put("stage", self.stage.name().into());
        put("requestURI", self.request_uri.as_str().into());
        put("verb", self.verb.as_str().into());
        put("user", self.user.as_ref().map_or(json!({}), user));
        put("impersonatedUser", self.impersonated_user.as_ref().map_or(Value::Null, user));
        put("sourceIPs", self.source_ips.iter().map(ToString::to_string).collect::<Vec<_>>().into());
        put("userAgent", self.user_agent.as_str().into());
        put("objectRef", self.object_ref.as_ref().map_or(Value::Null, object_ref));
        if self.code != 0 {
            let mut status = json!({ "metadata": {}, "code": self.code });
            for field in ["status", "reason", "message", "details"] {
                if let Some(value) = self.status.as_ref().and_then(|s| s.get(field)) {
                    status[field] = value.clone();
                }
            }
            put("responseStatus", status);
        }
        let lean = |object: &Option<Value>| {
            let mut object = object.clone().unwrap_or_default();
            if self.omit_managed_fields {
                forget_managed_fields(&mut object);
            }
            object
        };
        put("requestObject", lean(&self.request_object));
        put("responseObject", lean(&self.response_object));
        let time = |at: Timestamp| Value::from(format!("{at:.6}"));
        put("requestReceivedTimestamp", time(self.request_received_timestamp));
        put("stageTimestamp", time(self.stage_timestamp));
        put("annotations", json!(self.annotations));
        Value::Object(out).to_string()
    }
}

fn user(user: &User) -> Value {
    let mut out = json!({ "username": &*user.name });
    if !user.uid.is_empty() {
        out["uid"] = json!(&*user.uid);
    }
    if !user.groups.is_empty() {
        out["groups"] = json!(&*user.groups);
    }
    if !user.extra.is_empty() {
        out["extra"] = json!(&*user.extra);
    }
    out
}

fn object_ref(of: &ObjectReference) -> Value {
    let fields = [
        ("resource", &of.resource),
        ("namespace", &of.namespace),
        ("name", &of.name),
        ("apiGroup", &of.group),
        ("apiVersion", &of.version),
        ("subresource", &of.subresource),
    ];
    let given = fields.into_iter().filter(|(_, text)| !text.is_empty());
    Value::Object(given.map(|(key, text)| (key.to_owned(), text.as_str().into())).collect())
}

fn forget_managed_fields(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    for item in object.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten() {
        forget_managed_fields(item);
    }
}
