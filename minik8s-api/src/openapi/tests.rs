use std::collections::BTreeSet;

use super::*;
use crate::patch::merge_keys;

#[test]
fn version_2_describes_every_kind() {
    let registry = Registry::builtin();
    let document = v2_json(&registry);
    let definitions = document["definitions"].as_object().unwrap();
    for kind in registry.iter() {
        let gvk = definitions::gvk(kind, "");
        let of_kind = |(_, d): &(&String, &Value)| d[GVK].as_array().is_some_and(|a| a.contains(&gvk));
        assert!(definitions.iter().any(|d| of_kind(&d)), "{kind:?} has no definition");
    }
    let known: BTreeSet<_> = definitions.keys().cloned().collect();
    let missing: Vec<_> = references(&document).into_iter().filter(|r| !known.contains(r)).collect();
    assert_eq!(missing, Vec::<String>::new());
    let text = document.to_string();
    for leftover in
        ["#/$defs", "\"null\"", "\"oneOf\":[", "\"anyOf\":[", "json-schema.org/draft/2020", "\"title\":\"io."]
    {
        assert!(!text.contains(leftover), "{leftover} is left");
    }
}

#[test]
fn fields_keep_their_words_and_get_their_merge_keys() {
    let document = v2_json(&Registry::builtin());
    let spec = &document["definitions"]["io.k8s.api.core.v1.PodSpec"]["properties"];
    assert!(spec["containers"]["description"].as_str().unwrap().contains("containers"));
    assert_eq!(spec["containers"]["items"]["$ref"], "#/definitions/io.k8s.api.core.v1.Container");
    assert_eq!(spec["containers"]["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(spec["containers"]["x-kubernetes-list-type"], "map");
    assert_eq!(spec["containers"]["x-kubernetes-list-map-keys"], json!(["name"]));
    assert_eq!(spec["tolerations"]["x-kubernetes-list-type"], "atomic");
    assert_eq!(spec["nodeSelector"]["x-kubernetes-map-type"], "atomic");
    assert_eq!(spec["volumes"]["x-kubernetes-patch-strategy"], "merge,retainKeys");
    let port = &document["definitions"]["io.k8s.apimachinery.pkg.util.intstr.IntOrString"];
    assert_eq!((&port["type"], &port["format"]), (&json!("string"), &json!("int-or-string")));
    assert_eq!(document["definitions"]["io.k8s.apimachinery.pkg.api.resource.Quantity"]["type"], "string");
    let dns = &document["definitions"]["io.minik8s.v1.DNS"]["properties"];
    assert_eq!(dns["spec"]["$ref"], "#/definitions/io.minik8s.v1.DnsSpec");
    assert_eq!(dns["metadata"]["$ref"], "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta");
}

#[test]
fn patches_say_that_they_can_be_dry() {
    let registry = Registry::builtin();
    let two = v2_json(&registry);
    let three = v3(&registry, "apps", "v1").unwrap();
    for document in [two, three] {
        let patch = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
        assert_eq!(patch[GVK], json!({"group": "apps", "version": "v1", "kind": "Deployment"}));
        let names: Vec<_> = patch["parameters"].as_array().unwrap().iter().map(|p| &p["name"]).collect();
        for name in ["dryRun", "fieldValidation", "fieldManager", "force"] {
            assert!(names.contains(&&json!(name)), "{name} in {names:?}");
        }
    }
}

#[test]
fn version_3_by_group() {
    let registry = Registry::builtin();
    let index = v3_index(&registry);
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap();
    assert!(url.starts_with("/openapi/v3/apis/apps/v1?hash="), "{url}");
    assert_eq!(v3_index(&registry), index);
    let core = v3(&registry, "", "v1").unwrap();
    let pod = &core["components"]["schemas"]["io.k8s.api.core.v1.Pod"];
    assert_eq!(pod[GVK], json!([{"group": "", "version": "v1", "kind": "Pod"}]));
    let reference = json!([{"$ref": "#/components/schemas/io.k8s.api.core.v1.PodSpec"}]);
    assert_eq!(pod["properties"]["spec"]["allOf"], reference);
    assert!(core["components"]["schemas"].get("io.k8s.api.apps.v1.Deployment").is_none());
    assert_eq!(v3(&registry, "apps", "v2"), None);
}

/// The table of merge keys names types and fields that exist, and leads to the types that they really have.
#[test]
fn merge_keys_agree_with_the_schemas() {
    let document = v2_json(&Registry::builtin());
    let mut marked = 0;
    for (name, definition) in document["definitions"].as_object().unwrap() {
        let short = name.rsplit('.').next().unwrap();
        for (property, schema) in definition["properties"].as_object().into_iter().flatten() {
            let Some(field) = merge_keys::field(short, property).filter(|_| name.starts_with("io.k8s."))
            else {
                continue;
            };
            let target = schema["$ref"].as_str().or(schema["items"]["$ref"].as_str());
            if !field.type_name.is_empty() && property != "metadata" {
                assert_eq!(target.unwrap().rsplit('.').next().unwrap(), field.type_name, "{name}.{property}");
            }
            if let Some(key) = field.strategy.merge_key() {
                assert_eq!(schema["type"], "array", "{name}.{property}");
                if !key.is_empty() {
                    let element = target.unwrap().rsplit('/').next().unwrap();
                    let fields = &document["definitions"][element]["properties"];
                    assert!(fields.get(key).is_some(), "{name}.{property} has no {key}");
                    marked += 1;
                }
            }
        }
    }
    assert!(marked > 40, "only {marked} lists have a merge key");
}

/// A second reader of the wire format, which knows nothing but varints and lengths, walks the whole document.
#[test]
fn the_protobuf_says_the_same() {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = bytes[0];
            *bytes = &bytes[1..];
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                return value;
            }
        }
    }
    fn fields(mut bytes: &[u8]) -> Vec<(u64, &[u8])> {
        let mut out = Vec::new();
        while !bytes.is_empty() {
            let key = varint(&mut bytes);
            match key & 7 {
                0 => {
                    varint(&mut bytes);
                }
                2 => {
                    let length = varint(&mut bytes) as usize;
                    out.push((key >> 3, &bytes[..length]));
                    bytes = &bytes[length..];
                }
                other => panic!("wire type {other}"),
            }
        }
        out
    }
    fn get(message: &[u8], number: u64) -> impl Iterator<Item = &[u8]> {
        fields(message).into_iter().filter(move |(n, _)| *n == number).map(|(_, b)| b)
    }
    fn named<'a>(entries: &'a [u8], number: u64, name: &str) -> &'a [u8] {
        let entry = get(entries, number).find(|e| get(e, 1).next() == Some(name.as_bytes()));
        get(entry.unwrap_or_else(|| panic!("no {name}")), 2).next().unwrap()
    }

    let registry = Registry::builtin();
    let json = v2_json(&registry);
    let bytes = v2_protobuf(&registry);
    let definitions = get(&bytes, 9).next().unwrap();
    assert_eq!(get(definitions, 1).count(), json["definitions"].as_object().unwrap().len());
    let spec = named(definitions, 1, "io.k8s.api.core.v1.PodSpec");
    let containers = named(get(spec, 25).next().unwrap(), 1, "containers");
    assert_eq!(get(get(containers, 22).next().unwrap(), 1).next(), Some(&b"array"[..]));
    let key = named(containers, 31, "x-kubernetes-patch-merge-key");
    assert_eq!(get(key, 2).next(), Some(&b"\"name\""[..]));

    let paths = get(&bytes, 8).next().unwrap();
    let item = named(paths, 2, "/api/v1/namespaces/{namespace}/pods/{name}");
    let patch = get(item, 8).next().unwrap();
    let gvk = named(patch, 13, GVK);
    let gvk: Value = serde_json::from_slice(get(gvk, 2).next().unwrap()).unwrap();
    assert_eq!(gvk, json!({"group": "", "version": "v1", "kind": "Pod"}));
    let queries = get(patch, 8).filter_map(|p| get(get(get(p, 1).next()?, 2).next()?, 3).next());
    let names: Vec<_> = queries.map(|q| get(q, 4).next().unwrap()).collect();
    assert!(names.contains(&&b"dryRun"[..]));
}
