//! The operations on the objects of a kind.

use serde_json::{Map, Value, json};

use super::definitions::{self, Definitions};
use super::{GVK, Version};
use crate::kind::Kind;
use crate::patch::merge_keys;

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

/// `api/v1` or `apis/GROUP/VERSION`.
pub(super) fn root(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// A query parameter: its name, its type and what it does.
type Parameter = (&'static str, &'static str, &'static str);

const PRETTY: Parameter = ("pretty", "string", "If `true`, the answer is indented.");
const DRY_RUN: Parameter = ("dryRun", "string", "With `All`, everything is checked and nothing is changed.");
const MANAGER: Parameter = ("fieldManager", "string", "Who makes the change, for `managedFields`.");
const VALIDATION: Parameter = (
    "fieldValidation",
    "string",
    "What to do about fields that the kind does not have: `Ignore`, `Warn` or `Strict`.",
);
const FORCE: Parameter =
    ("force", "boolean", "For apply patches: take over fields that another manager owns.");
const LIST: [Parameter; 10] = [
    ("labelSelector", "string", "Only objects with these labels."),
    ("fieldSelector", "string", "Only objects with these fields."),
    ("limit", "integer", "At most that many objects."),
    ("continue", "string", "The token of the page before."),
    ("resourceVersion", "string", "How recent the answer must be."),
    ("resourceVersionMatch", "string", "How to read `resourceVersion`: `Exact` or `NotOlderThan`."),
    ("timeoutSeconds", "integer", "End the watch after that many seconds."),
    ("watch", "boolean", "Follow changes instead of listing."),
    ("allowWatchBookmarks", "boolean", "Send a bookmark now and then."),
    ("sendInitialEvents", "boolean", "Begin the watch with the present state."),
];
const DELETE: [Parameter; 3] = [
    ("gracePeriodSeconds", "integer", "Seconds that the object is given to end; 0 for none."),
    ("propagationPolicy", "string", "What becomes of what it owns: `Orphan`, `Background` or `Foreground`."),
    DRY_RUN,
];

/// One verb on one path.
struct Operation {
    method: &'static str,
    action: &'static str,
    parameters: Vec<Parameter>,
    /// The definitions of the body that is sent and of the one that comes back.
    body: Option<String>,
    answer: String,
}

/// The paths of `kind`.
pub(super) fn of(kind: &Kind, definitions: &Definitions, version: Version) -> Map<String, Value> {
    let name = definitions.name(kind).to_owned();
    let list = format!("{name}List");
    let root = format!("/{}", root(&kind.group, &kind.version));
    let home = if kind.namespaced { format!("{root}/namespaces/{{namespace}}") } else { root.clone() };
    let mut paths = Map::new();
    let mut add = |path: String, operations: Vec<Operation>| {
        paths.insert(path.clone(), item(kind, &path, operations, version));
    };

    let status = format!("{META}.Status");
    let options = || Some(format!("{META}.DeleteOptions"));
    let read = |method, action, parameters: &[Parameter], answer: &String| Operation {
        method,
        action,
        parameters: parameters.to_vec(),
        body: None,
        answer: answer.clone(),
    };
    let write = |method, action, parameters: &[Parameter]| Operation {
        method,
        action,
        parameters: parameters.to_vec(),
        // A patch is whatever its media type says.
        body: (method != "patch").then(|| name.clone()),
        answer: name.clone(),
    };
    let listing: Vec<_> = LIST.into_iter().chain([PRETTY]).collect();
    let deleting: Vec<_> = DELETE.into_iter().chain([PRETTY]).collect();
    let writing = [DRY_RUN, MANAGER, VALIDATION, PRETTY];
    let patching = [DRY_RUN, MANAGER, VALIDATION, FORCE, PRETTY];
    let change = || {
        vec![
            read("get", "get", &[PRETTY], &name),
            write("put", "put", &writing),
            write("patch", "patch", &patching),
        ]
    };

    let collection = format!("{home}/{}", kind.plural);
    if !kind.stored {
        add(collection, vec![write("post", "post", &writing)]);
        return paths;
    }
    let mut delete_many = read("delete", "deletecollection", &LIST, &status);
    delete_many.parameters.extend(&deleting);
    delete_many.body = options();
    add(
        collection.clone(),
        vec![read("get", "list", &listing, &list), write("post", "post", &writing), delete_many],
    );
    if kind.namespaced {
        add(format!("{root}/{}", kind.plural), vec![read("get", "list", &listing, &list)]);
    }
    let object = format!("{collection}/{{name}}");
    let mut delete = read("delete", "delete", &deleting, &status);
    delete.body = options();
    let mut operations = change();
    operations.push(delete);
    add(object.clone(), operations);
    if kind.status {
        add(format!("{object}/status"), change());
    }
    paths
}

fn item(kind: &Kind, path: &str, operations: Vec<Operation>, version: Version) -> Value {
    let mut item = Map::new();
    let in_path = [("name", "The name of the object."), ("namespace", "The namespace of the object.")];
    let in_path = in_path.into_iter().filter(|(name, _)| path.contains(&format!("{{{name}}}")));
    let shared: Vec<_> =
        in_path.map(|(name, description)| parameter(name, "path", "string", description, version)).collect();
    if !shared.is_empty() {
        item.insert("parameters".to_owned(), shared.into());
    }
    for operation in operations {
        item.insert(operation.method.to_owned(), written(kind, path, &operation, version));
    }
    Value::Object(item)
}

fn parameter(name: &str, place: &str, type_: &str, description: &str, version: Version) -> Value {
    let mut out = json!({"name": name, "in": place, "description": description});
    if place == "path" {
        out["required"] = true.into();
    }
    match version {
        Version::V2 => {
            out["type"] = type_.into();
            out["uniqueItems"] = true.into();
        }
        Version::V3 => out["schema"] = json!({"type": type_, "uniqueItems": true}),
    }
    out
}

fn written(kind: &Kind, path: &str, operation: &Operation, version: Version) -> Value {
    let mut parameters: Vec<_> = operation
        .parameters
        .iter()
        .map(|(name, type_, description)| parameter(name, "query", type_, description, version))
        .collect();
    let reference = |name: &String| json!({"$ref": version.reference(name)});
    let mut out = json!({
        "operationId": id(path, operation),
        "x-kubernetes-action": operation.action,
        GVK: definitions::gvk(kind, ""),
    });
    let codes: &[(&str, &str)] = match operation.method {
        "post" | "put" | "patch" => &[("200", "OK"), ("201", "Created")],
        _ => &[("200", "OK")],
    };
    let mut responses = Map::new();
    for (code, words) in codes {
        let schema = reference(&operation.answer);
        let response = match version {
            Version::V2 => json!({"description": words, "schema": schema}),
            Version::V3 => json!({"description": words, "content": {"application/json": {"schema": schema}}}),
        };
        responses.insert((*code).to_owned(), response);
    }
    let patch = operation.method == "patch";
    let schema = operation.body.as_ref().map_or_else(|| json!({"type": "object"}), reference);
    match version {
        Version::V2 => {
            out["produces"] = json!(["application/json"]);
            out["consumes"] = if patch { json!(patches(kind)) } else { json!(["*/*"]) };
            if patch || operation.body.is_some() {
                let required = operation.method != "delete";
                parameters
                    .push(json!({"name": "body", "in": "body", "required": required, "schema": schema}));
            }
        }
        Version::V3 if patch => {
            let content: Map<_, _> =
                patches(kind).into_iter().map(|t| (t.to_owned(), json!({"schema": schema}))).collect();
            out["requestBody"] = json!({"required": true, "content": content});
        }
        Version::V3 if operation.body.is_some() => {
            out["requestBody"] = json!({"content": {"*/*": {"schema": schema}}});
        }
        Version::V3 => {}
    }
    out["parameters"] = parameters.into();
    out["responses"] = responses.into();
    out
}

/// The languages in which a kind can be patched. Strategic merge needs lists that are described, as those of the
/// built-in types are.
fn patches(kind: &Kind) -> Vec<&'static str> {
    let mut all =
        vec!["application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml"];
    if merge_keys::is_built_in(&kind.group) {
        all.insert(2, "application/strategic-merge-patch+json");
    }
    all
}

/// A name of its own for every operation: `patch_apps_v1_namespaces_deployments_name`.
fn id(path: &str, operation: &Operation) -> String {
    let place: Vec<_> = path
        .split('/')
        .filter(|p| !matches!(*p, "" | "api" | "apis" | "{namespace}"))
        .map(|p| p.trim_matches(['{', '}']).replace(['.', '-'], "_"))
        .collect();
    format!("{}_{}", operation.action, place.join("_"))
}
