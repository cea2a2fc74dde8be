//! JSON of objects.

use std::collections::BTreeSet;
use std::fmt;

use minik8s_api::object::duplicates;
use minik8s_api::{Kind, Unstructured};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// What is read is written in a way that is read again to the same; defaults are filled in once.
pub(crate) fn holds(data: &[u8]) {
    let twice = duplicates(data);
    if let Ok(Twice(really)) = serde_json::from_slice(data) {
        assert_eq!(twice.is_empty(), !really, "{twice:?}");
    }
    let Ok(value) = serde_json::from_slice::<Value>(data) else { return };
    let mut unknown = Vec::new();
    if let Ok(object) = Unstructured::from_value(value.clone(), &mut unknown) {
        let written = minik8s_api::Object::to_json(&object);
        let again = Unstructured::read(&written, &mut Vec::new()).expect("it is read again");
        assert_eq!(again, object);
    }
    let word = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default();
    let Some(kind) = crate::registry().by_kind(word("apiVersion"), word("kind")) else { return };
    object_of(kind, data);
}

/// An object of the kind, if it is one, survives being written, read, filled in and checked.
pub(crate) fn object_of(kind: &Kind, json: &[u8]) {
    let Ok(decoded) = kind.decode(json) else { return };
    let mut object = decoded.object;
    let written = object.to_json();
    let again =
        kind.decode(&written).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&written)));
    assert!(again.unknown.is_empty(), "{:?}", again.unknown);
    assert_eq!(again.object.to_value(), object.to_value());
    kind.default(&mut *object);
    let once = object.to_value();
    kind.default(&mut *object);
    assert_eq!(object.to_value(), once, "defaults are filled in once");
    let errors = kind.validate(&*object);
    kind.row(&*object, jiff::Timestamp::UNIX_EPOCH);
    if errors.is_empty() {
        let errors = kind.validate_update(&*object, &*object);
        assert!(errors.is_empty(), "what was valid may stay as it is: {errors}");
    }
}

/// Whether a key stands twice in one object.
struct Twice(bool);

impl<'de> Deserialize<'de> for Twice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Look).map(Self)
    }
}

struct Look;

impl<'de> Visitor<'de> for Look {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_bool<E>(self, _: bool) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_i64<E>(self, _: i64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_u64<E>(self, _: u64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_f64<E>(self, _: f64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_str<E>(self, _: &str) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<bool, A::Error> {
        let mut twice = false;
        while let Some(Twice(below)) = list.next_element()? {
            twice |= below;
        }
        Ok(twice)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        let (mut twice, mut seen) = (false, BTreeSet::new());
        while let Some((key, Twice(below))) = map.next_entry::<String, Twice>()? {
            twice |= below | !seen.insert(key);
        }
        Ok(twice)
    }
}
