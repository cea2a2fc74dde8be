use serde_json::{Value, json};

use crate::crd::Schema;
use crate::field::FieldPath;
use crate::unstructured::Unstructured;

fn schema(value: Value) -> Result<Schema, Vec<String>> {
    let props = serde_json::from_value(value).expect("a schema");
    Schema::compile(&props, &FieldPath::new("s")).map_err(|e| e.0.iter().map(ToString::to_string).collect())
}

/// A schema whose `spec` has these properties and rules.
fn with_rules(properties: Value, rules: Value) -> Value {
    json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": properties, "x-kubernetes-validations": rules},
    }})
}

fn object(spec: &Value) -> Unstructured {
    let value =
        json!({"apiVersion": "example.dev/v1", "kind": "Thing", "metadata": {"name": "a"}, "spec": spec});
    Unstructured::from_value(value, &mut Vec::new()).expect("an object")
}

fn wrong(schema: &Schema, new: &Value, old: Option<&Value>) -> Vec<String> {
    let errors = schema.validate(&object(new), old.map(object).as_ref());
    errors.0.iter().map(ToString::to_string).collect()
}

/// Whether a rule holds for a spec in which everything may be.
fn holds(rule: &str, spec: &Value) -> Result<bool, String> {
    let schema = schema(json!({"type": "object", "properties": {"spec": {
        "type": "object", "x-kubernetes-preserve-unknown-fields": true,
        "x-kubernetes-validations": [{"rule": rule, "message": "no"}],
    }}}))
    .map_err(|e| e.join("; "))?;
    match wrong(&schema, spec, None).as_slice() {
        [] => Ok(true),
        [one] if one == "spec: Invalid value: \"object\": no" => Ok(false),
        other => Err(other.join("; ")),
    }
}

#[test]
fn rules_hold_or_say_why_not() {
    let integer = json!({"type": "integer"});
    let schema = schema(with_rules(
        json!({"replicas": integer, "minReplicas": integer, "maxReplicas": integer}),
        json!([
            {"rule": "self.minReplicas <= self.replicas", "message": "replicas should be at least minReplicas."},
            {"rule": "self.replicas <= self.maxReplicas", "reason": "FieldValueForbidden", "fieldPath": ".replicas"},
            {"rule": "self.maxReplicas < 100", "message": "too many",
             "messageExpression": "'maxReplicas is ' + string(self.maxReplicas)"},
        ]),
    ))
    .unwrap();
    let spec = |min: i64, n: i64, max: i64| json!({"minReplicas": min, "replicas": n, "maxReplicas": max});
    assert_eq!(wrong(&schema, &spec(1, 2, 3), None), Vec::<String>::new());
    assert_eq!(
        wrong(&schema, &spec(3, 2, 3), None),
        ["spec: Invalid value: \"object\": replicas should be at least minReplicas."]
    );
    assert_eq!(
        wrong(&schema, &spec(1, 4, 3), None),
        ["spec.replicas: Forbidden: failed rule: self.replicas <= self.maxReplicas"]
    );
    assert_eq!(
        wrong(&schema, &spec(1, 4, 100), None),
        ["spec: Invalid value: \"object\": maxReplicas is 100"]
    );
    assert_eq!(
        wrong(&schema, &json!({"minReplicas": 1, "maxReplicas": 2}), None).len(),
        2,
        "a field that is missing is an error of each rule that needs it"
    );
}

#[test]
fn rules_about_changes_need_a_value_before() {
    let rule = json!({"rule": "self == oldSelf", "message": "is immutable"});
    let optional = json!({"rule": "!oldSelf.hasValue() || oldSelf.value() < self", "optionalOldSelf": true,
                          "message": "must grow"});
    let schema = schema(with_rules(
        json!({
            "name": {"type": "string", "x-kubernetes-validations": [rule]},
            "size": {"type": "integer", "x-kubernetes-validations": [optional]},
            "items": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["id"],
                "items": {"type": "object", "required": ["id"], "properties": {
                    "id": {"type": "string"},
                    "value": {"type": "integer", "x-kubernetes-validations": [rule]},
                }}},
        }),
        json!([]),
    ))
    .unwrap();
    let old = json!({"name": "a", "size": 1, "items": [{"id": "x", "value": 1}, {"id": "y", "value": 2}]});
    assert_eq!(wrong(&schema, &old, None), Vec::<String>::new());
    let moved = json!({"name": "a", "size": 2, "items": [{"id": "y", "value": 2}, {"id": "z", "value": 9}]});
    assert_eq!(
        wrong(&schema, &moved, Some(&old)),
        Vec::<String>::new(),
        "elements are followed by their keys"
    );
    let changed = json!({"name": "b", "size": 1, "items": [{"id": "y", "value": 3}]});
    assert_eq!(
        wrong(&schema, &changed, Some(&old)),
        [
            "spec.items[0].value: Invalid value: 3: is immutable",
            "spec.name: Invalid value: \"b\": is immutable",
            "spec.size: Invalid value: 1: must grow",
        ]
    );
}

#[test]
fn what_was_wrong_before_may_stay() {
    let schema = schema(with_rules(
        json!({"a": {"type": "integer", "maximum": 5, "x-kubernetes-validations": [{"rule": "self != 3"}]},
               "b": {"type": "integer"}}),
        json!([]),
    ))
    .unwrap();
    for bad in [7, 3] {
        assert_ne!(wrong(&schema, &json!({"a": bad}), None), Vec::<String>::new());
        let (new, old) = (json!({"a": bad, "b": 1}), json!({"a": bad}));
        assert_eq!(wrong(&schema, &new, Some(&old)), Vec::<String>::new());
    }
}

#[test]
fn kubernetes_functions() {
    let spec = json!({
        "list": [1, 2, 3], "words": ["b", "a"], "text": " Hello World ", "limit": "1.5Gi", "request": "500Mi",
        "empty": [], "map": {"b": 1, "a": 2}, "null": null,
    });
    for rule in [
        "self.list.isSorted() && !self.words.isSorted()",
        "self.list.sum() == 6 && self.list.min() == 1 && self.list.max() == 3 && self.empty.sum() == 0",
        "self.list.indexOf(2) == 1 && self.list.lastIndexOf(7) == -1",
        "self.list.all(x, x > 0) && self.list.exists(x, x == 2) && self.list.exists_one(x, x == 3)",
        "self.list.map(x, x * 2) == [2, 4, 6] && self.list.filter(x, x > 1).size() == 2",
        "self.text.trim().lowerAscii() == 'hello world' && self.text.contains('World')",
        "self.text.trim().split(' ').join('-') == 'Hello-World' && self.text.trim().startsWith('Hell')",
        "self.text.trim().substring(0, 4).replace('l', 'L') == 'HeLL' && self.text.matches('H.*d')",
        "self.text.find('W[a-z]+') == 'World' && self.text.findAll('o', 1).size() == 1",
        "quantity(self.request).isLessThan(quantity(self.limit)) && isQuantity('3k') && !isQuantity('three')",
        "quantity('1k').add(quantity('500')).compareTo(quantity('1500')) == 0 && quantity('2').asInteger() == 2",
        "isURL('https://example.com:80/a') && url('https://[::1]:80/a?b').getHostname() == '::1'",
        "url('https://example.com:80/a/b').getPort() == '80' && !isURL('no url')",
        "isIP('10.0.0.1') && !isIP('10.0.0.256') && ip('::1').isLoopback() && ip('10.0.0.1').family() == 4",
        "cidr('10.0.0.0/8').containsIP('10.1.2.3') && !cidr('10.0.0.0/8').containsCIDR('11.0.0.0/16')",
        "cidr('10.1.2.3/8').masked().ip() == ip('10.0.0.0') && cidr('0.0.0.0/0').containsIP('9.9.9.9')",
        "sets.contains([1, 2, 3], [2]) && sets.equivalent([1, 2], [2, 1]) && !sets.intersects([1], [2])",
        "has(self.map) && !has(self.nothing) && 'a' in self.map && self.map.all(k, self.map[k] > 0)",
        "self.map.map(k, k) == ['a', 'b'] && self.map.size() == 2 && self.map == {'a': 2, 'b': 1}",
        "self.?nothing.orValue(5) == 5 && self.__null__ == null",
        "type(self.list) == list && type(self.map.a) == int && dyn(1) == 1.0",
        "duration('1h') < duration('90m') && timestamp('2024-01-01T00:00:00Z').getFullYear() == 2024",
    ] {
        assert_eq!(holds(rule, &spec), Ok(true), "{rule}");
    }
    assert_eq!(holds("self.list.max() > 3", &spec), Ok(false));
    let error = holds("self.empty.max() > 3", &spec).unwrap_err();
    assert!(error.contains("max called on empty list evaluating rule: no"), "{error}");
}

#[test]
fn values_have_the_types_of_their_schema() {
    let schema = schema(with_rules(
        json!({
            "ratio": {"type": "number"}, "from": {"type": "string", "format": "date-time"},
            "wait": {"type": "string", "format": "duration"}, "my-field": {"type": "integer"},
            "port": {"x-kubernetes-int-or-string": true}, "namespace": {"type": "string"},
        }),
        json!([
            {"rule": "!has(self.ratio) || self.ratio * 2.0 == 6.0", "message": "ratio"},
            {"rule": "self.from > timestamp('2020-01-01T00:00:00Z')", "message": "from"},
            {"rule": "self.wait <= duration('1h30m')", "message": "wait"},
            {"rule": "duration(self.wait) < duration('2h') && timestamp(self.from) == self.from"},
            {"rule": "self.my__dash__field == 1", "message": "escaped"},
            {"rule": "self.__namespace__ == 'x'", "message": "reserved"},
            {"rule": "type(self.port) == int ? self.port > 0 : self.port != ''", "message": "port"},
        ]),
    ))
    .unwrap();
    let spec = json!({"ratio": 3, "from": "2024-01-01T00:00:00Z", "wait": "90m", "my-field": 1, "port": "http",
                      "namespace": "x"});
    assert_eq!(wrong(&schema, &spec, None), Vec::<String>::new());
    let spec = json!({"ratio": 2, "from": "2004-01-01T00:00:00Z", "wait": "91m", "my-field": 2, "port": 0,
                      "namespace": "y"});
    assert_eq!(wrong(&schema, &spec, None).len(), 6);
}

#[test]
fn the_whole_object_can_be_looked_at() {
    let rules =
        json!([{"rule": "self.metadata.name.startsWith('a') && self.kind == 'Thing' && self.spec.n == 1"}]);
    let schema = schema(json!({"type": "object", "x-kubernetes-validations": rules, "properties": {
        "spec": {"type": "object", "properties": {"n": {"type": "integer"}}},
    }}))
    .unwrap();
    assert_eq!(wrong(&schema, &json!({"n": 1}), None), Vec::<String>::new());
    assert_eq!(wrong(&schema, &json!({"n": 2}), None).len(), 1);
}

#[test]
fn rules_that_make_no_sense_are_refused() {
    for (rule, complaint) in [
        (json!({"rule": "self.size >"}), "rule: Invalid value"),
        (json!({"rule": " "}), "rule is not specified"),
        (json!({"rule": "self.colour == 'red'"}), "ERROR: <input>:1:5: undefined field 'colour'"),
        (json!({"rule": "size(self.list.map(x, x.y)) > 0"}), "undefined field 'y'"),
        (json!({"rule": "other.size > 1"}), "undeclared reference to 'other'"),
        (json!({"rule": "frobnicate(self)"}), "undeclared reference to 'frobnicate'"),
        (json!({"rule": "true", "fieldPath": ".nowhere"}), "fieldPath: Invalid value: \".nowhere\""),
        (json!({"rule": "true", "messageExpression": "self.gone"}), "messageExpression: Invalid value"),
        (json!({"rule": "true", "reason": "Because"}), "reason: Invalid value"),
        (json!({"rule": "true", "optionalOldSelf": true}), "optionalOldSelf: Invalid value"),
    ] {
        let properties = json!({
            "size": {"type": "integer"},
            "list": {"type": "array", "items": {"type": "object", "properties": {"x": {"type": "integer"}}}},
        });
        let found = schema(with_rules(properties, json!([rule]))).unwrap_err();
        let place = "s.properties[spec].x-kubernetes-validations[0].";
        assert!(found[0].starts_with(place) && found[0].contains(complaint), "{rule}: {found:?}");
    }
}

#[test]
fn work_is_bounded() {
    let list = json!({"type": "array", "items": {"type": "integer"}});
    let rule = "self.a.all(x, self.a.all(y, self.a.all(z, x + y + z > 0)))";
    let schema = schema(with_rules(json!({"a": list}), json!([{"rule": rule}]))).unwrap();
    assert_eq!(wrong(&schema, &json!({"a": vec![1; 20]}), None), Vec::<String>::new());
    let found = wrong(&schema, &json!({"a": vec![1; 2000]}), None);
    assert!(found[0].contains("running out of cost budget"), "{found:?}");
}
