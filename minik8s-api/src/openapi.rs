//! OpenAPI: the schemas of the kinds, as `kubectl` wants them to validate, explain and merge.
//!
//! Version 2 is one document for everything, as JSON and as the protobuf of google/gnostic, which is what `kubectl`
//! asks for. Version 3 is an index and a document per group and version.
//!
//! These functions build their document anew, in some tens of milliseconds. A server keeps what it got for as long
//! as its registry stays the same.

mod definitions;
mod paths;
mod proto;

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::registry::Registry;
use definitions::{Definitions, references};

/// The extension that says which kind a definition or an operation is about.
const GVK: &str = "x-kubernetes-group-version-kind";

/// The two forms that schemas and operations take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V2,
    V3,
}

impl Version {
    /// The reference to a definition.
    fn reference(self, name: &str) -> String {
        match self {
            Self::V2 => format!("#/definitions/{name}"),
            Self::V3 => format!("#/components/schemas/{name}"),
        }
    }
}

fn info() -> Value {
    json!({"title": "minik8s", "version": env!("CARGO_PKG_VERSION")})
}

/// The OpenAPI version 2 document as JSON: `GET /openapi/v2`.
pub fn v2_json(registry: &Registry) -> Value {
    let definitions = Definitions::of(registry.iter());
    let mut paths = Map::new();
    for kind in registry.iter() {
        paths.extend(paths::of(kind, &definitions, Version::V2));
    }
    let schemas = definitions.written(Version::V2);
    json!({"swagger": "2.0", "info": info(), "paths": paths, "definitions": schemas})
}

/// The same document as protobuf, whose media type is
/// `application/com.github.proto-openapi.spec.v2.v1.0+protobuf`.
pub fn v2_protobuf(registry: &Registry) -> Vec<u8> {
    proto::encode(&v2_json(registry))
}

/// The index of the OpenAPI version 3 documents: `GET /openapi/v3`. Its hashes change with what they stand for.
pub fn v3_index(registry: &Registry) -> Value {
    let versions: BTreeSet<_> =
        registry.iter().map(|k| (k.group.to_string(), k.version.to_string())).collect();
    let documents = versions.iter().filter_map(|(group, version)| {
        let document = v3(registry, group, version)?.to_string();
        Some((group.as_str(), version.as_str(), document))
    });
    v3_index_of(documents)
}

/// The index of these documents: the group and version of each, and its text.
pub fn v3_index_of<'a>(documents: impl Iterator<Item = (&'a str, &'a str, impl AsRef<[u8]>)>) -> Value {
    let mut paths = Map::new();
    for (group, version, document) in documents {
        let path = paths::root(group, version);
        let hash = fnv1a(document.as_ref());
        let url = json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={hash:016X}")});
        paths.insert(path, url);
    }
    json!({"paths": paths})
}

/// The OpenAPI version 3 document of one group and version: `GET /openapi/v3/apis/GROUP/VERSION`, or
/// `GET /openapi/v3/api/v1` for the core group, which is empty. `None` if there are no such kinds.
pub fn v3(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let kinds: Vec<_> = registry.iter().filter(|k| k.group == group && k.version == version).collect();
    if kinds.is_empty() {
        return None;
    }
    let definitions = Definitions::of(kinds.iter().copied());
    let mut paths = Map::new();
    for kind in kinds {
        paths.extend(paths::of(kind, &definitions, Version::V3));
    }
    let schemas = definitions.written(Version::V3);
    debug_assert!(
        schemas.values().flat_map(references).all(|r| schemas.contains_key(&r)),
        "a reference leads nowhere"
    );
    Some(json!({"openapi": "3.0.0", "info": info(), "paths": paths, "components": {"schemas": schemas}}))
}

/// A hash that is the same in every process.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &b| (hash ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests;
