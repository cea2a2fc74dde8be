//! Finding keys that stand in a JSON object twice.

use std::borrow::Cow;
use std::collections::BTreeSet;

/// Nobody reads more complaints than that.
const MOST: usize = 100;

/// The paths of the fields that stand twice in a JSON text, such as `spec.containers[0].image`, in the order of the
/// text; at most a hundred. Of text that is not JSON it says something or other.
///
/// ```
/// let twice = br#"{"spec":{"a":1,"b":[{"c":1,"c":2}],"a":3}}"#;
/// assert_eq!(minik8s_api::object::duplicates(twice), ["spec.b[0].c", "spec.a"]);
/// ```
pub fn duplicates(json: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    let mut stack: Vec<Level<'_>> = Vec::new();
    let mut at = 0;
    while at < json.len() && found.len() < MOST {
        match json[at] {
            b'{' => stack.push(Level::Object { seen: BTreeSet::new(), key: Cow::Borrowed(""), named: false }),
            b'[' => stack.push(Level::List { index: 0 }),
            b'}' | b']' => drop(stack.pop()),
            b',' => match stack.last_mut() {
                Some(Level::List { index }) => *index += 1,
                Some(Level::Object { named, .. }) => *named = false,
                None => {}
            },
            b'"' => {
                let end = string_end(json, at + 1);
                if let Some(Level::Object { seen, key, named: named @ false }) = stack.last_mut() {
                    *named = true;
                    *key = unescaped(&json[at..end]);
                    if !seen.insert(key.clone()) {
                        found.push(path(&stack));
                    }
                }
                at = end;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    found
}

/// An object or a list that has begun and not ended.
enum Level<'a> {
    Object {
        seen: BTreeSet<Cow<'a, str>>,
        /// The member that the text has come to.
        key: Cow<'a, str>,
        /// Whether its key has been read, so that the next string is a value.
        named: bool,
    },
    List {
        index: usize,
    },
}

/// What comes after the string that begins (behind its quote) at `at`.
fn string_end(json: &[u8], mut at: usize) -> usize {
    while let Some(&byte) = json.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    json.len()
}

/// The text of a quoted string.
fn unescaped(quoted: &[u8]) -> Cow<'_, str> {
    if quoted.contains(&b'\\')
        && let Ok(text) = serde_json::from_slice::<String>(quoted)
    {
        return text.into();
    }
    let inner = quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default();
    String::from_utf8_lossy(inner)
}

fn path(stack: &[Level<'_>]) -> String {
    let mut path = String::new();
    for level in stack {
        match level {
            Level::Object { key, .. } => {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(key);
            }
            Level::List { index } => path.push_str(&format!("[{index}]")),
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::duplicates;

    #[test]
    fn keys_that_stand_twice() {
        let of = |text: &str| duplicates(text.as_bytes());
        assert!(of(r#"{"a":{"a":"a"},"b":["a","a"],"c":"\"a\":,{"}"#).is_empty());
        assert_eq!(of(r#"{"a":1,"\u0061":2}"#), ["a"]);
        assert_eq!(of(r#"{ "a" : [ {}, { "x" : null , "x" : {"y":1,"y":2} } ] }"#), ["a[1].x", "a[1].x.y"]);
        let many = format!("{{{}}}", vec!["\"a\":1"; 1000].join(","));
        assert_eq!(of(&many).len(), 100);
    }

    proptest! {
        #[test]
        fn any_text_is_looked_at_without_harm(text in "[\\[\\]{}\",:\\\\a0 ]{0,60}") {
            duplicates(text.as_bytes());
        }

        #[test]
        fn what_a_serializer_writes_has_no_key_twice(keys in proptest::collection::btree_set(".{0,5}", 0..20)) {
            let map: serde_json::Map<_, _> = keys.into_iter().map(|k| (k, serde_json::json!([{}, "x"]))).collect();
            prop_assert!(duplicates(&serde_json::to_vec(&map).expect("JSON")).is_empty());
        }
    }
}
