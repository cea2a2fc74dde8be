use minik8s_api::Kind;

use super::Query;
use crate::request::{FieldValidation, VersionMatch};

fn query(text: &str) -> Query {
    Query::parse(Some(text))
}

fn pods() -> Kind {
    Kind::of::<k8s_openapi::api::core::v1::Pod>().build()
}

/// The code and the words of what `list` makes of a query that it refuses.
fn refused(text: &str) -> (u16, String) {
    let error = query(text).list().expect_err(text);
    (error.code(), error.to_string())
}

#[test]
fn what_a_list_may_ask_for() {
    let list = |text: &str| query(text).list().expect(text);
    assert_eq!(list("").version_match, VersionMatch::Unset);
    assert_eq!(list("resourceVersion=0").resource_version, Some(0));
    let exact = list("resourceVersion=7&resourceVersionMatch=Exact&limit=3&unheard=of");
    assert_eq!((exact.version_match, exact.resource_version, exact.limit), (VersionMatch::Exact, Some(7), 3));
    assert_eq!(list("limit=-1").limit, 0);
    assert_eq!(refused("limit=many").0, 400);
    assert_eq!(refused("resourceVersion=new").0, 400);
    let (code, words) = refused("resourceVersionMatch=Exact");
    assert_eq!(
        (code, words.as_str()),
        (
            422,
            "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is \
             forbidden unless resourceVersion is provided"
        )
    );
    for text in [
        "resourceVersionMatch=Exact&resourceVersion=0",
        "resourceVersionMatch=Exact&resourceVersion=5&continue=x",
        "resourceVersionMatch=Newest&resourceVersion=5",
        "sendInitialEvents=true",
    ] {
        assert_eq!(refused(text).0, 422, "{text}");
    }
}

#[test]
fn what_a_watch_may_ask_for() {
    let kind = pods();
    let watch = |text: &str| query(text).watch(&kind);
    let plain = watch("resourceVersion=9&timeoutSeconds=-5&allowWatchBookmarks=1").expect("a watch");
    assert_eq!((plain.resource_version, plain.timeout_s, plain.bookmarks), (Some(9), None, true));
    let listing = watch("sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion=0");
    assert!(listing.expect("a watch").send_initial_events);
    for text in [
        "sendInitialEvents=true",
        "resourceVersionMatch=NotOlderThan",
        "sendInitialEvents=true&resourceVersionMatch=Exact",
        "resourceVersion=new",
    ] {
        assert_eq!(watch(text).expect_err(text).code(), 422, "{text}");
    }
    let words = watch("resourceVersion=x").expect_err("no number").to_string();
    assert_eq!(words, "Pod \"\" is invalid: resourceVersion: Invalid value: \"x\": must be a number");
    assert_eq!(watch("timeoutSeconds=soon").expect_err("no number").code(), 400);
}

#[test]
fn what_a_write_may_ask_for() {
    let write = |text: &str| query(text).write("agent/1.0", "CreateOptions");
    let params = write("dryRun=All&fieldValidation=Strict").expect("parameters");
    assert_eq!((params.dry_run, params.field_validation), (true, FieldValidation::Strict));
    assert_eq!(params.field_manager, "agent");
    let error = write("fieldValidation=Strictly").expect_err("no such");
    assert_eq!(
        (error.code(), error.to_string().as_str()),
        (
            422,
            "CreateOptions.meta.k8s.io \"\" is invalid: fieldValidation: Unsupported value: \"Strictly\": supported \
             values: \"\", \"Ignore\", \"Strict\", \"Warn\""
        )
    );
    assert_eq!(write("dryRun=Some").expect_err("no such").code(), 422);
}

#[test]
fn what_a_delete_may_ask_for() {
    let delete = |text: &str, body: &str| query(text).delete(body.as_bytes());
    let params =
        delete("propagationPolicy=Orphan", r#"{"propagationPolicy":"Foreground"}"#).expect("options");
    assert_eq!(params.propagation, Some(crate::request::Propagation::Foreground), "the body comes first");
    assert!(delete("", r#"{"dryRun":["All"]}"#).expect("options").dry_run);
    for (text, body) in [
        ("propagationPolicy=Sideways", ""),
        ("", r#"{"dryRun":["Some"]}"#),
        ("", r#"{"propagationPolicy":"Orphan","orphanDependents":true}"#),
    ] {
        let error = delete(text, body).expect_err("invalid");
        assert!(error.code() == 422 && error.to_string().starts_with("DeleteOptions.meta.k8s.io"), "{error}");
    }
}
