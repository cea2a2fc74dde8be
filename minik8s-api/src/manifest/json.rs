//! One YAML document as JSON text, with everything that stands in it: a key that stands twice stands twice in the
//! JSON, for whoever reads it to complain of.

use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};

/// The most that a document may grow to when its aliases are written out.
const MAX_BYTES: usize = 16 * 1024 * 1024;
/// The deepest nesting.
const MAX_DEPTH: usize = 100;

/// The JSON text of the one document of `yaml`; `None` if it is not as simple as that, and [`super::load`] has to
/// say what is wrong with it or to make something of its merge keys.
pub(super) fn of(yaml: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(yaml.len() + yaml.len() / 4);
    let writer = Writer { out: &mut out, depth: 0 };
    writer.deserialize(serde_yaml::Deserializer::from_str(yaml)).ok()?;
    Some(out)
}

/// Writes a value as JSON.
struct Writer<'a> {
    out: &'a mut Vec<u8>,
    depth: usize,
}

impl Writer<'_> {
    fn below(&mut self) -> Writer<'_> {
        Writer { out: &mut *self.out, depth: self.depth + 1 }
    }

    fn write<E: Error>(self, value: impl serde::Serialize) -> Result<(), E> {
        if self.out.len() > MAX_BYTES || self.depth > MAX_DEPTH {
            return Err(E::custom("too large"));
        }
        serde_json::to_writer(self.out, &value).map_err(E::custom)
    }
}

impl<'de> DeserializeSeed<'de> for Writer<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Writer<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value that JSON has")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.write(())
    }

    fn visit_none<E: Error>(self) -> Result<(), E> {
        self.write(())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.write(value)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.write(value)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.write(value)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        if value.is_finite() { self.write(value) } else { Err(E::custom("no number of JSON")) }
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        self.write(value)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
        self.out.push(b'[');
        let mut end = self.out.len();
        while list.next_element_seed(self.below())?.is_some() {
            end = self.out.len();
            self.out.push(b',');
        }
        // The comma behind the last one.
        self.out.truncate(end);
        self.out.push(b']');
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        self.out.push(b'{');
        let mut first = true;
        while let Some(key) = map.next_key_seed(Key)? {
            if !std::mem::take(&mut first) {
                self.out.push(b',');
            }
            self.below().write(key)?;
            self.out.push(b':');
            map.next_value_seed(self.below())?;
        }
        self.out.push(b'}');
        Ok(())
    }
}

/// Reads a key as text: `80: x` and `true: x` are the keys "80" and "true".
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for Key {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_unit<E: Error>(self) -> Result<String, E> {
        Ok("null".to_owned())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<String, E> {
        // A merge key is more than a key.
        if value == "<<" { Err(E::custom("a merge key")) } else { Ok(value.to_owned()) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::to_json;
    use super::of;

    fn text(yaml: &str) -> String {
        String::from_utf8(of(yaml).expect(yaml)).expect("text")
    }

    #[test]
    fn what_stands_there_is_written() {
        assert_eq!(
            text("a: 1\nb: [x, '2', null, -1, 1.5, true]\na: {}\n"),
            r#"{"a":1,"b":["x","2",null,-1,1.5,true],"a":{}}"#
        );
        assert_eq!(text("80: x\ntrue: []\n"), r#"{"80":"x","true":[]}"#);
        assert_eq!(text(r#"{"a": "\u00e4\n"}"#), r#"{"a":"ä\n"}"#);
        for yaml in ["a: 1\n---\nb: 2\n", "a: [", "a: .inf", "b: &b {x: 1}\nc: {<<: *b}\n"] {
            assert!(of(yaml).is_none(), "{yaml}");
        }
    }

    #[test]
    fn what_is_not_simple_is_loaded() {
        let merged =
            to_json("the body", "apiVersion: v1\nkind: A\nb: &b {x: 1}\nc: {<<: *b}\n").expect("merge keys");
        assert_eq!(
            String::from_utf8(merged).expect("text"),
            r#"{"apiVersion":"v1","b":{"x":1},"c":{"x":1},"kind":"A"}"#
        );
        assert!(to_json("the body", "a: [").is_err());
        let two = to_json("the body", "apiVersion: v1\nkind: A\n---\napiVersion: v1\nkind: B\n")
            .expect_err("two documents");
        assert!(two.contains("2 documents"), "{two}");
        // Aliases of aliases.
        let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned();
        for i in 1..12 {
            let list = vec![format!("*a{}", i - 1); 9].join(",");
            bomb.push_str(&format!("a{i}: &a{i} [{list}]\n"));
        }
        assert!(to_json("the body", &bomb).is_err());
    }
}
