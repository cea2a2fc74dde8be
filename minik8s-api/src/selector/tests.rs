use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use proptest::prelude::*;

use super::*;

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect()
}

#[test]
fn every_operator() {
    let l = labels(&[("app", "web"), ("tier", "front"), ("n", "5"), ("empty", "")]);
    let cases = [
        ("", true),
        ("app", true),
        ("!app", false),
        ("!other", true),
        ("app=web", true),
        ("app==web,tier!=back", true),
        ("app=api", false),
        ("app in (web,api)", true),
        ("app in(api)", false),
        ("app notin (api), tier", true),
        ("other notin (x)", true),
        ("other!=x", true),
        ("other=", false),
        ("empty=", true),
        ("empty in (,x)", true),
        ("n>4", true),
        ("n > 5", false),
        ("n<6", true),
        ("app>1", false),
        ("in in (in)", false),
        (" app = web ", true),
    ];
    for (text, expected) in cases {
        let selector = Selector::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(selector.matches(&l), expected, "{text}");
    }
    assert!(!Selector::nothing().matches(&l));
    assert!(!Selector::nothing().is_everything());
}

#[test]
fn complaints() {
    let cases = [
        ("app web", "unable to parse requirement: found 'web', expected: in, notin, =, ==, !=, gt, lt"),
        ("=web", "found '=', expected: !, identifier, or 'end of string'"),
        ("a,", "found '', expected: identifier after ','"),
        ("a=b c", "found 'c', expected: ',' or 'end of string'"),
        ("a in b", "unable to parse requirement: found 'b', expected: '('"),
        ("a in (b", "unable to parse requirement: found '', expected: ',' or ')'"),
        ("!", "unable to parse requirement: found '', expected: identifier"),
        (
            "n>x",
            "unable to parse requirement: values[0]: Invalid value: \"x\": for 'Gt', 'Lt' operators, the value must be an integer",
        ),
    ];
    for (text, message) in cases {
        assert_eq!(Selector::parse(text).unwrap_err().to_string(), message, "{text}");
    }
    let bad_value = Selector::parse("a=-b").unwrap_err().to_string();
    assert!(bad_value.contains("values[0][a]: Invalid value: \"-b\": a valid label must be"), "{bad_value}");
    let bad_key = Selector::parse("a/b/c=d").unwrap_err().to_string();
    assert!(bad_key.contains("key: Invalid value: \"a/b/c\": a qualified name"), "{bad_key}");
}

#[test]
fn of_an_object() {
    let mut selector = LabelSelector {
        match_labels: Some(labels(&[("b", "1")])),
        match_expressions: Some(vec![LabelSelectorRequirement {
            key: "a".to_owned(),
            operator: "In".to_owned(),
            values: Some(vec!["y".to_owned(), "x".to_owned(), "x".to_owned()]),
        }]),
    };
    assert_eq!(Selector::from_label_selector(&selector).unwrap().to_string(), "a in (x,y),b=1");
    selector.match_expressions.as_mut().unwrap()[0].values = None;
    let error = Selector::from_label_selector(&selector).unwrap_err().to_string();
    assert_eq!(error, "values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty");
    selector.match_expressions.as_mut().unwrap()[0].operator = "in".to_owned();
    let error = Selector::from_label_selector(&selector).unwrap_err().to_string();
    assert_eq!(error, "\"in\" is not a valid label selector operator");
    assert!(Selector::from_label_selector(&LabelSelector::default()).unwrap().is_everything());
}

#[test]
fn exact_values_are_found() {
    let selector = Selector::parse("a in (x),b in (x,y),c=z,c!=w").unwrap();
    assert_eq!(["a", "b", "c", "d"].map(|k| selector.exact_value(k)), [Some("x"), None, Some("z"), None]);
    let fields = FieldSelector::parse("spec.nodeName=n1,status.phase!=Failed").unwrap();
    assert_eq!(fields.exact_value("spec.nodeName"), Some("n1"));
    assert_eq!(fields.exact_value("status.phase"), None);
}

#[test]
fn fields() {
    let selector = FieldSelector::parse("metadata.name=a,status.phase!=Failed,,x==a\\,b\\=c\\\\").unwrap();
    let got: Vec<_> = selector.requirements().iter().map(|r| (r.path.as_str(), r.op, &*r.value)).collect();
    let expected = [
        ("metadata.name", FieldOp::Equals, "a"),
        ("status.phase", FieldOp::NotEquals, "Failed"),
        ("x", FieldOp::Equals, "a,b=c\\"),
    ];
    assert_eq!(got, expected);
    let object = |path: &str| match path {
        "metadata.name" => Some("a".to_owned()),
        "x" => Some("a,b=c\\".to_owned()),
        _ => None,
    };
    assert!(selector.matches(object));
    assert!(!FieldSelector::parse("x=").unwrap().matches(object));
    assert!(FieldSelector::parse("y=").unwrap().matches(object));
    for (text, message) in [
        ("a", "invalid selector: 'a'; can't understand 'a'"),
        ("a=b=c", "invalid field selector: unescaped character in value: ="),
        ("a=\\n", "invalid field selector: invalid escape sequence: \\n"),
        ("a=\\", "invalid field selector: invalid escape sequence: \\"),
    ] {
        assert_eq!(FieldSelector::parse(text).unwrap_err().to_string(), message);
    }
}

fn key() -> impl Strategy<Value = String> {
    "([a-c]\\.[a-c]/)?[a-d]([a-z_.-]{0,2}[A-Z0-9])?|in|notin"
}

fn requirement() -> impl Strategy<Value = Requirement> {
    let value = "([a-c]([a-c_.-]?[0-2])?)?|in|notin";
    let many = prop::collection::vec(value, 1..4);
    prop_oneof![
        (key(), value, 0..3).prop_map(|(k, v, op)| {
            let op = [Operator::Equals, Operator::DoubleEquals, Operator::NotEquals][op as usize];
            Requirement::new(k, op, [v]).unwrap()
        }),
        (key(), many, any::<bool>()).prop_map(|(k, v, op)| {
            Requirement::new(k, if op { Operator::In } else { Operator::NotIn }, v).unwrap()
        }),
        (key(), any::<bool>()).prop_map(|(k, op)| {
            Requirement::new(k, if op { Operator::Exists } else { Operator::DoesNotExist }, []).unwrap()
        }),
        (key(), 0..9i64, any::<bool>()).prop_map(|(k, v, op)| {
            let op = if op { Operator::GreaterThan } else { Operator::LessThan };
            Requirement::new(k, op, [v.to_string()]).unwrap()
        }),
    ]
}

/// What the documentation says of each operator, written down a second time.
fn naive(r: &Requirement, labels: &BTreeMap<String, String>) -> bool {
    let pairs: Vec<_> = labels.iter().filter(|(k, _)| *k == r.key()).map(|(_, v)| v).collect();
    let number = |s: &String| s.parse::<i64>();
    match r.operator() {
        Operator::Exists => !pairs.is_empty(),
        Operator::DoesNotExist => pairs.is_empty(),
        Operator::Equals | Operator::DoubleEquals | Operator::In => {
            pairs.iter().any(|v| r.values().contains(v))
        }
        Operator::NotEquals | Operator::NotIn => !pairs.iter().any(|v| r.values().contains(v)),
        Operator::GreaterThan => {
            pairs.iter().any(|v| number(v).is_ok_and(|n| n > number(&r.values()[0]).unwrap()))
        }
        Operator::LessThan => {
            pairs.iter().any(|v| number(v).is_ok_and(|n| n < number(&r.values()[0]).unwrap()))
        }
    }
}

proptest! {
    #[test]
    fn display_parses_back(requirements in prop::collection::vec(requirement(), 0..4)) {
        let selector = Selector::new(requirements);
        prop_assert_eq!(Selector::parse(&selector.to_string()).unwrap(), selector);
    }

    #[test]
    fn matches_like_the_model(
        requirements in prop::collection::vec(requirement(), 0..3),
        labels in prop::collection::btree_map("[a-d]|in", "([a-c]?|[0-9])", 0..4),
    ) {
        let expected = requirements.iter().all(|r| naive(r, &labels));
        prop_assert_eq!(Selector::new(requirements).matches(&labels), expected);
    }

    #[test]
    fn any_text_is_read_or_refused(text in "[ab=!<>(), \\\\in]{0,12}") {
        if let Ok(selector) = Selector::parse(&text) {
            prop_assert_eq!(Selector::parse(&selector.to_string()).unwrap(), selector);
        }
        if let Ok(selector) = FieldSelector::parse(&text) {
            prop_assert_eq!(FieldSelector::parse(&selector.to_string()).unwrap(), selector);
        }
    }
}
