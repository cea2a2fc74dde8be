use proptest::prelude::*;
use serde_json::json;

use super::*;

fn good(text: &str) -> Vec<Value> {
    load("f.yaml", text).unwrap_or_else(|e| panic!("{e}")).into_iter().map(|d| d.value).collect()
}

fn wrong(text: &str) -> String {
    load("f.yaml", text).unwrap_err().to_string()
}

#[test]
fn documents() {
    let text = "# first\n---\napiVersion: v1\nkind: A\n---\n---   \n# nothing\n\n--- # with a comment\n\nkind: B\n\
                apiVersion: x/v1\n...\n";
    let documents = load("f.yaml", text).unwrap();
    let places: Vec<_> = documents.iter().map(|d| (d.kind(), d.api_version(), d.index, d.line)).collect();
    assert_eq!(places, [("A", "v1", 0, 3), ("B", "x/v1", 1, 11)]);
    assert_eq!(good(""), Vec::<Value>::new());
    assert_eq!(good("# only\n---\n# comments"), Vec::<Value>::new());
    let crlf = "apiVersion: v1\r\nkind: A\r\n---\r\napiVersion: v1\r\nkind: B\r\n";
    assert_eq!(good(crlf).len(), 2);
}

#[test]
fn a_marker_within_a_text_is_none() {
    let text = "apiVersion: v1\nkind: A\ndata: |\n  one\n  ---\n  two\n";
    assert_eq!(good(text)[0]["data"], "one\n---\ntwo\n");
}

#[test]
fn json_with_tabs_and_several_objects() {
    let text =
        "{\n\t\"apiVersion\": \"v1\",\n\t\"kind\": \"A\"\n}\n{\"apiVersion\": \"v1\", \"kind\": \"B\"}";
    assert_eq!(
        good(text),
        [json!({"apiVersion": "v1", "kind": "A"}), json!({"apiVersion": "v1", "kind": "B"})]
    );
    let words = wrong("{\"apiVersion\": \"v1\",\n \"kind\": \"A\",\n \"kind\": \"B\"}");
    assert!(words.starts_with("f.yaml:3:") && words.contains("the key `kind` stands here twice"), "{words}");
}

#[test]
fn lists_stand_for_their_items() {
    let text = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: A}\n- apiVersion: v1\n  kind: BList\n  \
                items: [{x: 1}]\n";
    let expected =
        [json!({"apiVersion": "v1", "kind": "A"}), json!({"apiVersion": "v1", "kind": "B", "x": 1})];
    assert_eq!(good(text), expected);
    assert!(wrong("apiVersion: v1\nkind: List\nitems: [{kind: Pod}]").contains("add `apiVersion: v1`"));
}

#[test]
fn what_kubernetes_reads() {
    let text = "apiVersion: v1\nkind: Pod\n\
                base: &base {a: 1, b: 2}\nmerged: {<<: *base, b: 3}\n\
                keys: {80: x, true: y}\n\
                spec:\n  volumes: [{configMap: {defaultMode: 0644, items: [{mode: 0400}]}}]\n  mode: \"0644\"\n";
    let value = &good(text)[0];
    assert_eq!(value["merged"], json!({"a": 1, "b": 3}));
    assert_eq!(value["keys"], json!({"80": "x", "true": "y"}));
    assert_eq!(
        value["spec"]["volumes"],
        json!([{"configMap": {"defaultMode": 420, "items": [{"mode": 256}]}}])
    );
    assert_eq!(value["spec"]["mode"], "0644");
}

#[test]
fn errors_say_where() {
    let text =
        "apiVersion: v1\nkind: A\n---\napiVersion: v1\nkind: B\nspec:\n  a: [1, 2\n  b: 3\n---\nkind: Pod\n";
    let errors = load("f.yaml", text).unwrap_err();
    let places: Vec<_> = errors.0.iter().map(|e| (e.index, e.line)).collect();
    assert_eq!(places, [(1, 8), (2, 10)], "{errors}");
    assert_eq!(
        errors.0[1].to_string(),
        "f.yaml:10:1: document 3: apiVersion of the Pod is missing (add `apiVersion: v1`)"
    );
    let cases = [
        ("apiVersion: v1\nkind: A\nspec:\n\tx: 1\n", "indent with spaces"),
        ("apiVersion: v1\nkind: A\nspec:\n  x: 1\n  x: 2\n", "the key `x` stands here twice"),
        ("- a\n- b\n", "expected an object, found a list"),
        ("just a text", "expected an object, found a text"),
        ("apiVersion: v1\nmetadata: {}\n", "kind is missing (every object says what it is"),
        ("apiVersion: v1\nKind: Pod\n", "`Kind` must be written `kind`"),
        ("apiversion: v1\nkind: Pod\n", "`apiversion` must be written `apiVersion`"),
        ("kind: Deployment\n", "add `apiVersion: apps/v1`"),
        ("apiVersion: v1\nkind: A\nx: !tag 1\n", "tags such as"),
        ("apiVersion: v1\nkind: A\nx: .nan\n", "no number of JSON"),
    ];
    for (text, words) in cases {
        assert!(wrong(text).contains(words), "{text}: {}", wrong(text));
    }
}

#[test]
fn bombs_are_refused() {
    let mut bomb = "apiVersion: v1\nkind: A\na0: &a0 [xxxxxxxx]\n".to_owned();
    for i in 1..12 {
        let list = vec![format!("*a{}", i - 1); 10].join(", ");
        bomb += &format!("a{i}: &a{i} [{list}]\n");
    }
    let words = wrong(&bomb);
    assert!(words.contains("aliases make it larger") || words.contains("repetition limit"), "{words}");
    // Just one level, but of a long text.
    let long = "x".repeat(1024 * 1024);
    let aliases = vec!["*a"; 20].join(", ");
    let words = wrong(&format!("apiVersion: v1\nkind: A\na: &a {long}\nb: [{aliases}]\n"));
    assert!(words.contains("aliases make it larger"), "{words}");
    let deep = format!("apiVersion: v1\nkind: A\na: {}{}\n", "[".repeat(101), "]".repeat(101));
    assert!(wrong(&deep).contains("nested more than 100 deep"), "{}", wrong(&deep));
    let large = " ".repeat(MAX_BYTES + 1);
    assert!(wrong(&large).contains("more than the 3145728 that a manifest may have"));
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[ -~\n\t\u{e9}]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z]{1,4}", inner, 0..4)
                .prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

proptest! {
    /// What is written as JSON or as YAML, alone or in a row, is read as it was.
    #[test]
    fn what_is_written_is_read(specs in prop::collection::vec(value(), 1..4), json in any::<bool>()) {
        let objects: Vec<_> =
            specs.into_iter().map(|s| json!({"apiVersion": "a.example/v1", "kind": "K", "spec": s})).collect();
        let write = |o: &Value| match json {
            true => serde_json::to_string_pretty(o).unwrap() + "\n",
            false => serde_yaml::to_string(o).unwrap(),
        };
        let text = objects.iter().map(write).collect::<Vec<_>>().join("---\n");
        prop_assert_eq!(good(&text), objects);
    }

    #[test]
    fn no_text_panics(text in "[a:{}&*<|>\"'!\\[\\], \n\t#%.-]{0,40}") {
        let _ = load("f", &text);
    }
}
