//! Finding members of an object's metadata in JSON text, without reading the text into a tree.

use std::borrow::Cow;
use std::ops::Range;

/// A member of a JSON object: where its name and its value stand, quotes included.
struct Member {
    name: Range<usize>,
    value: Range<usize>,
}

/// The members of the object that begins at an offset.
struct Members<'a> {
    json: &'a [u8],
    /// At the next name, the comma before it or the end of the object.
    at: usize,
}

impl Iterator for Members<'_> {
    type Item = Member;

    fn next(&mut self) -> Option<Member> {
        let at = skip(self.json, self.at, |b| b.is_ascii_whitespace() || b == b',');
        self.at = at;
        if self.json.get(at) != Some(&b'"') {
            return None;
        }
        let name = at..value_end(self.json, at)?;
        let value = skip(self.json, name.end, |b| b.is_ascii_whitespace() || b == b':');
        let value = value..value_end(self.json, value)?;
        self.at = value.end;
        Some(Member { name, value })
    }
}

/// The first offset from `at` on whose byte is not one of these.
fn skip(json: &[u8], at: usize, these: impl Fn(u8) -> bool) -> usize {
    at + json[at.min(json.len())..].iter().take_while(|b| these(**b)).count()
}

/// Where the value that begins at `at` ends.
fn value_end(json: &[u8], mut at: usize) -> Option<usize> {
    let mut depth = 0;
    loop {
        match json.get(at)? {
            b'"' => at = string_end(json, at + 1)?,
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            _ if depth > 0 => {}
            _ => {
                return Some(skip(json, at, |b| {
                    !matches!(b, b',' | b'}' | b']') && !b.is_ascii_whitespace()
                }));
            }
        }
        at += 1;
        if depth == 0 {
            return Some(at);
        }
    }
}

/// The offset of the quote that ends the string whose text begins at `at`.
fn string_end(json: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match json.get(at)? {
            b'\\' => at += 2,
            b'"' => return Some(at),
            _ => at += 1,
        }
    }
}

fn members(json: &[u8], object: usize) -> Members<'_> {
    let open = skip(json, object, |b| b.is_ascii_whitespace());
    Members { json, at: if json.get(open) == Some(&b'{') { open + 1 } else { json.len() } }
}

fn member(json: &[u8], object: usize, name: &[u8]) -> Option<Member> {
    members(json, object).find(|m| json.get(m.name.start + 1..m.name.end - 1) == Some(name))
}

/// Where the value of a member of `metadata` stands.
pub(crate) fn metadata_member(json: &[u8], name: &str) -> Option<Range<usize>> {
    let metadata = member(json, 0, b"metadata")?;
    member(json, metadata.value.start, name.as_bytes()).map(|m| m.value)
}

/// Where `metadata` ends: the offset of its closing brace.
pub(crate) fn metadata_end(json: &[u8]) -> Option<usize> {
    Some(member(json, 0, b"metadata")?.value.end - 1)
}

/// The object without `metadata.managedFields`, which are often the larger part of it and which few look at.
pub(crate) fn without_managed_fields(json: &[u8]) -> Cow<'_, [u8]> {
    let Some(metadata) = member(json, 0, b"metadata") else { return Cow::Borrowed(json) };
    let Some(fields) = member(json, metadata.value.start, b"managedFields") else {
        return Cow::Borrowed(json);
    };
    let before = json[..fields.name.start].iter().rposition(|b| !b.is_ascii_whitespace());
    let after = skip(json, fields.value.end, |b| b.is_ascii_whitespace());
    // With one of the commas that part it from its neighbours.
    let (start, end) = match (before, json.get(after)) {
        (_, Some(b',')) => (fields.name.start, after + 1),
        (Some(comma), _) if json[comma] == b',' => (comma, fields.value.end),
        _ => (fields.name.start, fields.value.end),
    };
    let mut out = Vec::with_capacity(json.len() - (end - start));
    out.extend_from_slice(&json[..start]);
    out.extend_from_slice(&json[end..]);
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{metadata_end, metadata_member, without_managed_fields};

    #[test]
    fn members_are_those_of_the_objects_own_metadata() {
        let json = br#"{"involvedObject":{"resourceVersion":""},"metadata":{"annotations":{"resourceVersion":"","a":"\"metadata\":{"},"generation": 3,"resourceVersion":"7"},"spec":{}}"#;
        let text = |name| metadata_member(json, name).map(|r| std::str::from_utf8(&json[r]).expect("UTF-8"));
        assert_eq!(text("resourceVersion"), Some("\"7\""));
        assert_eq!(text("generation"), Some("3"));
        assert_eq!(text("name"), None);
        assert!(json[metadata_end(json).expect("metadata")..].starts_with(br#"},"spec""#));
        assert_eq!(metadata_member(b"{}", "name"), None);
        assert_eq!(metadata_member(br#"{"metadata":null}"#, "name"), None);
    }

    #[test]
    fn managed_fields_go_wherever_they_stand() {
        let fields = json!([{ "manager": "a,]}\"", "fieldsV1": { "f:data": { "f:\\": {} } } }]);
        for text in [
            format!(r#"{{"metadata":{{"managedFields":{fields}}},"data":{{}}}}"#),
            format!(r#"{{"metadata":{{"managedFields":{fields},"name":"a"}}}}"#),
            format!(r#"{{"kind":"K","metadata":{{"name":"a","managedFields":{fields}}}}}"#),
            format!(
                "{{ \"metadata\" : {{ \"name\": \"a\",\n \"managedFields\" : {fields} ,\n \"uid\": \"u\" }} }}"
            ),
        ] {
            let mut expected: Value = serde_json::from_str(&text).expect("JSON");
            expected["metadata"].as_object_mut().expect("metadata").remove("managedFields");
            let lean = without_managed_fields(text.as_bytes());
            assert_eq!(serde_json::from_slice::<Value>(&lean).expect("JSON"), expected, "{text}");
        }
        for text in ["{}", r#"{"managedFields":[],"metadata":{"name":"a"}}"#, "nonsense"] {
            assert_eq!(&*without_managed_fields(text.as_bytes()), text.as_bytes());
        }
    }
}
