use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use minik8s_api::Resource;
use serde_json::{Value, json};

use super::AUDIT;
use crate::request::{ApiResponse, Operation, Payload, WriteParams};
use crate::storage::memory::MemoryStorage;
use crate::{ApiError, ApiServer};

fn read<K: Resource>(value: Value) -> K {
    serde_json::from_value(value).expect("an object")
}

/// A server with one policy about deployments and config maps, and a binding of it.
async fn server(policy: Value, binding: Value) -> ApiServer {
    let server = ApiServer::new(MemoryStorage::new());
    server.bootstrap().await.expect("bootstrap");
    let mut spec = json!({ "matchConstraints": { "resourceRules": [
        { "apiGroups": ["", "apps"], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"],
          "resources": ["deployments", "configmaps"] }] } });
    spec.as_object_mut().unwrap().extend(policy.as_object().unwrap().clone());
    let policy: ValidatingAdmissionPolicy =
        read(json!({ "metadata": { "name": "policy.example.dev" }, "spec": spec }));
    server.client().all::<ValidatingAdmissionPolicy>().create(&policy).await.expect("a policy");
    let mut spec = json!({ "policyName": "policy.example.dev", "validationActions": ["Deny"] });
    spec.as_object_mut().unwrap().extend(binding.as_object().unwrap().clone());
    let binding: ValidatingAdmissionPolicyBinding =
        read(json!({ "metadata": { "name": "binding.example.dev" }, "spec": spec }));
    server.client().all::<ValidatingAdmissionPolicyBinding>().create(&binding).await.expect("a binding");
    server
}

async fn make(server: &ApiServer, plural: (&str, &str), object: Value) -> Result<ApiResponse, ApiError> {
    let kind = server.registry().by_path(plural.0, "v1", plural.1).expect("a kind").clone();
    let operation = Operation::Create(Payload::Json(object.to_string().into()), WriteParams::default());
    let client = server.client();
    client.call(client.request(kind, Some("default"), operation)).await
}

async fn deploy(server: &ApiServer, replicas: i32) -> Result<ApiResponse, ApiError> {
    let labels = json!({ "app": "web" });
    let object = json!({ "metadata": { "name": format!("web-{replicas}") }, "spec": {
        "replicas": replicas, "selector": { "matchLabels": labels },
        "template": { "metadata": { "labels": labels },
                      "spec": { "containers": [{ "name": "web", "image": "web:1" }] } } } });
    make(server, ("apps", "deployments"), object).await
}

async fn configure(server: &ApiServer, name: &str) -> Result<ApiResponse, ApiError> {
    make(server, ("", "configmaps"), json!({ "metadata": { "name": name } })).await
}

/// What is said about a request that is refused.
fn said(error: &ApiError) -> String {
    let message = error.to_string();
    let (_, words) = message.split_once(" denied request: ").unwrap_or(("", &message));
    words.to_owned()
}

#[tokio::test]
async fn the_example_of_the_documentation() {
    let five = json!({ "validations": [{ "expression": "object.spec.replicas <= 5" }],
        "matchConstraints": { "resourceRules": [{ "apiGroups": ["apps"], "apiVersions": ["v1"],
            "operations": ["CREATE", "UPDATE"], "resources": ["deployments"] }] } });
    let test =
        json!({ "matchResources": { "namespaceSelector": { "matchLabels": { "environment": "test" } } } });
    let server = server(five, test).await;
    deploy(&server, 7).await.expect("the namespace is not one for tests");
    let namespaces = server.client().all::<Namespace>();
    let mut namespace = (*namespaces.get("default").await.expect("a namespace")).clone();
    namespace.metadata.labels.get_or_insert_default().insert("environment".to_owned(), "test".to_owned());
    namespaces.update(&namespace).await.expect("a label");
    deploy(&server, 5).await.expect("few");
    let error = deploy(&server, 6).await.expect_err("many");
    assert_eq!((error.code(), error.reason()), (422, "Invalid"));
    assert_eq!(
        error.to_string(),
        "deployments.apps \"web-6\" is forbidden: ValidatingAdmissionPolicy 'policy.example.dev' with binding \
         'binding.example.dev' denied request: failed expression: object.spec.replicas <= 5"
    );
}

#[tokio::test]
async fn messages_variables_and_conditions() {
    let rules = json!({
        "variables": [
            { "name": "name", "expression": "object.metadata.name" },
            { "name": "short", "expression": "size(variables.name) < 4" },
        ],
        "matchConditions": [{ "name": "maps", "expression": "request.resource.resource == 'configmaps'" }],
        "validations": [
            { "expression": "variables.short", "messageExpression": "variables.name + ' is long'",
              "reason": "Forbidden" },
            { "expression": "variables.name != 'x'", "message": "x is no name" },
            { "expression": "oldObject == null && namespaceObject.metadata.name == 'default'" },
            { "expression": "authorizer.requestResource.check('delete').allowed()" },
        ],
    });
    let server = server(rules, json!({})).await;
    configure(&server, "abc").await.expect("short");
    deploy(&server, 1).await.expect("no config map");
    let error = configure(&server, "abcd").await.expect_err("long");
    assert_eq!((error.code(), said(&error).as_str()), (403, "abcd is long"));
    let error = configure(&server, "x").await.expect_err("x");
    assert_eq!((error.code(), said(&error).as_str()), (422, "x is no name"));
}

#[tokio::test]
async fn failures_are_denials_unless_they_are_ignored() {
    let broken = |policy: &str| json!({ "failurePolicy": policy, "validations": [{ "expression": "object.spec.none == 1" }] });
    let strict = server(broken("Fail"), json!({})).await;
    let error = configure(&strict, "a").await.expect_err("it fails");
    assert!(said(&error).starts_with("expression 'object.spec.none == 1' resulted in error: "), "{error}");
    configure(&server(broken("Ignore"), json!({})).await, "a").await.expect("it is ignored");
}

#[tokio::test]
async fn warnings_and_audits_let_through() {
    let rules = json!({
        "validations": [{ "expression": "false", "message": "never" }],
        "auditAnnotations": [{ "key": "who", "valueExpression": "'by ' + request.userInfo.username" }],
    });
    let server = server(rules, json!({ "validationActions": ["Warn", "Audit"] })).await;
    let response = configure(&server, "a").await.expect("let through");
    assert_eq!(
        response.warnings,
        [
            "Validation failed for ValidatingAdmissionPolicy 'policy.example.dev' with binding 'binding.example.dev': \
          never"
        ]
    );
    assert_eq!(response.annotations["policy.example.dev/who"], "by system:apiserver");
    let audited: Value = serde_json::from_str(&response.annotations[AUDIT]).expect("JSON");
    assert_eq!((&audited[0]["message"], &audited[0]["expressionIndex"]), (&json!("never"), &json!(0)));
}

#[tokio::test]
async fn parameters_are_objects() {
    let rules = json!({
        "paramKind": { "apiVersion": "v1", "kind": "ConfigMap" },
        "matchConstraints": { "resourceRules": [{ "apiGroups": ["apps"], "apiVersions": ["v1"],
            "operations": ["CREATE"], "resources": ["deployments"] }] },
        "validations": [{ "expression": "object.spec.replicas <= int(params.data.max)" }],
    });
    let named = json!({ "paramRef": { "name": "limits", "parameterNotFoundAction": "Deny" } });
    let server = server(rules.clone(), named).await;
    let error = deploy(&server, 1).await.expect_err("no parameters");
    assert_eq!(said(&error), "no params found for policy binding with `Deny` parameterNotFoundAction");
    let limits = |name: &str, max: &str| -> ConfigMap {
        read(json!({ "metadata": { "name": name, "labels": { "of": "limits" } }, "data": { "max": max } }))
    };
    let maps = server.client().namespaced::<ConfigMap>("default");
    maps.create(&limits("limits", "3")).await.expect("parameters");
    deploy(&server, 3).await.expect("few");
    assert!(deploy(&server, 4).await.is_err());
    // Of several, all have to be content.
    let selected = json!({ "paramRef": { "selector": { "matchLabels": { "of": "limits" } },
        "parameterNotFoundAction": "Allow" } });
    let server = self::server(rules, selected).await;
    deploy(&server, 9).await.expect("nobody says anything");
    let maps = server.client().namespaced::<ConfigMap>("default");
    maps.create(&limits("a", "5")).await.expect("parameters");
    maps.create(&limits("b", "2")).await.expect("parameters");
    assert!(deploy(&server, 3).await.is_err());
    deploy(&server, 2).await.expect("few");
}
