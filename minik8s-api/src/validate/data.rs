//! The kinds that hold data and the cluster's own: ConfigMap, Secret, Namespace, Node.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, NodeSpec, Secret};

use super::{IMMUTABLE, one_of, required};
use crate::field::{FieldErrors, FieldPath};
use crate::{Cidr, name};

/// The most bytes that the values of a ConfigMap or Secret may have together: 1 MiB.
pub const DATA_MAX: usize = 1024 * 1024;

const SEALED: &str = "field is immutable when `immutable` is set";

/// What is wrong with a ConfigMap.
pub fn config_map(map: &ConfigMap) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let (data, binary) = (FieldPath::new("data"), FieldPath::new("binaryData"));
    let mut size = 0;
    for (key, value) in map.data.iter().flatten() {
        errors.invalid_each(&data.key(key), key, name::data_key(key));
        if map.binary_data.as_ref().is_some_and(|b| b.contains_key(key)) {
            errors.invalid(data.key(key), key, "duplicate of key present in binaryData");
        }
        size += value.len();
    }
    for (key, value) in map.binary_data.iter().flatten() {
        errors.invalid_each(&binary.key(key), key, name::data_key(key));
        size += value.0.len();
    }
    if size > DATA_MAX {
        errors.too_long(FieldPath::root(), DATA_MAX);
    }
    errors
}

/// What is wrong with a change of a ConfigMap.
pub fn config_map_update(new: &ConfigMap, old: &ConfigMap) -> FieldErrors {
    let mut errors = FieldErrors::new();
    if old.immutable == Some(true) {
        for (field, same) in [
            ("immutable", new.immutable == Some(true)),
            ("data", new.data.iter().flatten().eq(old.data.iter().flatten())),
            ("binaryData", new.binary_data.iter().flatten().eq(old.binary_data.iter().flatten())),
        ] {
            if !same {
                errors.forbidden(FieldPath::new(field), SEALED);
            }
        }
    }
    errors
}

/// What is wrong with a Secret. Its values are never quoted.
pub fn secret(secret: &Secret) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let path = FieldPath::new("data");
    let empty = BTreeMap::new();
    let data = secret.data.as_ref().unwrap_or(&empty);
    for key in data.keys() {
        errors.invalid_each(&path.key(key), key, name::data_key(key));
    }
    if data.values().map(|v| v.0.len()).sum::<usize>() > DATA_MAX {
        errors.too_long(path.clone(), DATA_MAX);
    }
    let mut needs = |key: &str| match data.get(key) {
        None => errors.required(path.key(key), ""),
        Some(ByteString(bytes)) if key.starts_with(".docker") => {
            if let Err(error) = serde_json::from_slice::<BTreeMap<String, serde_json::Value>>(bytes) {
                // serde_json says where the error is, not what stands there.
                errors.invalid(path.key(key), "<secret contents redacted>", error.to_string());
            }
        }
        Some(_) => {}
    };
    match secret.type_.as_deref().unwrap_or_default() {
        "kubernetes.io/service-account-token" => {
            let annotation = "kubernetes.io/service-account.name";
            let owner = secret.metadata.annotations.as_ref().and_then(|a| a.get(annotation));
            if owner.is_none_or(String::is_empty) {
                errors.required(FieldPath::new("metadata").child("annotations").key(annotation), "");
            }
        }
        "kubernetes.io/dockerconfigjson" => needs(".dockerconfigjson"),
        "kubernetes.io/dockercfg" => needs(".dockercfg"),
        "kubernetes.io/ssh-auth" => needs("ssh-privatekey"),
        "kubernetes.io/tls" => {
            needs("tls.crt");
            needs("tls.key");
        }
        "kubernetes.io/basic-auth" if !data.contains_key("username") && !data.contains_key("password") => {
            needs("username");
            needs("password");
        }
        _ => {}
    }
    errors
}

/// What is wrong with a change of a Secret.
pub fn secret_update(new: &Secret, old: &Secret) -> FieldErrors {
    let mut errors = FieldErrors::new();
    if new.type_ != old.type_ {
        errors.invalid(FieldPath::new("type"), &new.type_, IMMUTABLE);
    }
    if old.immutable == Some(true) {
        if new.immutable != Some(true) {
            errors.forbidden(FieldPath::new("immutable"), SEALED);
        }
        if !new.data.iter().flatten().eq(old.data.iter().flatten()) {
            errors.forbidden(FieldPath::new("data"), SEALED);
        }
    }
    errors
}

/// What is wrong with a Namespace.
pub fn namespace(namespace: &Namespace) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let path = FieldPath::new("spec").child("finalizers");
    let finalizers = namespace.spec.iter().flat_map(|s| s.finalizers.iter().flatten());
    for (i, finalizer) in finalizers.enumerate() {
        errors.invalid_each(&path.index(i), finalizer, name::qualified(finalizer));
    }
    errors
}

/// What is wrong with a Node.
pub fn node(node: &Node) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let Some(spec) = &node.spec else { return errors };
    pod_cidrs(&mut errors, spec);
    let path = FieldPath::new("spec").child("taints");
    let mut seen = BTreeSet::new();
    for (i, taint) in spec.taints.iter().flatten().enumerate() {
        let path = path.index(i);
        if required(&mut errors, path.child("key"), Some(&taint.key)).is_some() {
            errors.invalid_each(&path.child("key"), &taint.key, name::qualified(&taint.key));
        }
        let value = taint.value.as_deref().unwrap_or_default();
        errors.invalid_each(&path.child("value"), value, name::label_value(value));
        let effects = ["NoExecute", "NoSchedule", "PreferNoSchedule"];
        one_of(&mut errors, path.child("effect"), Some(&taint.effect), &effects);
        if !seen.insert((&taint.key, &taint.effect)) {
            errors.duplicate(path, taint);
        }
    }
    errors
}

/// One block of each family at most, of which `podCIDR` is the first.
fn pod_cidrs(errors: &mut FieldErrors, spec: &NodeSpec) {
    let path = FieldPath::new("spec");
    let all = spec.pod_cidrs.as_deref().unwrap_or_default();
    let blocks: Vec<Option<Cidr>> = all.iter().map(|text| text.parse().ok()).collect();
    for (i, text) in all.iter().enumerate().filter(|(i, _)| blocks[*i].is_none()) {
        let detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
        errors.invalid(path.child("podCIDRs").index(i), text, detail);
    }
    let known: Vec<_> = blocks.iter().flatten().collect();
    let same_family = known.len() == 2 && known[0].is_ipv4() == known[1].is_ipv4();
    if all.len() > 2 || same_family {
        errors.invalid(
            path.child("podCIDRs"),
            all.join(","),
            "may specify no more than one CIDR for each IP family",
        );
    }
    let first = spec.pod_cidr.as_deref().filter(|text| !text.is_empty());
    if let (Some(first), Some(listed)) = (first, all.first())
        && first != listed
    {
        errors.invalid(path.child("podCIDR"), first, "must be the first of `podCIDRs`");
    }
}

/// What is wrong with a change of a Node.
pub fn node_update(new: &Node, old: &Node) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let path = FieldPath::new("spec");
    let cidrs = |n: &Node| {
        let spec = n.spec.clone().unwrap_or_default();
        let one = spec.pod_cidr.filter(|text| !text.is_empty()).into_iter().collect();
        spec.pod_cidrs.filter(|all| !all.is_empty()).unwrap_or(one)
    };
    let (now, before) = (cidrs(new), cidrs(old));
    if !before.is_empty() && now != before {
        let detail = "node updates may not change podCIDR except from \"\" to valid";
        errors.forbidden(path.child("podCIDRs"), detail);
    }
    let provider = |n: &Node| n.spec.as_ref().and_then(|s| s.provider_id.clone()).unwrap_or_default();
    if !provider(old).is_empty() && provider(new) != provider(old) {
        let detail = "node updates may not change providerID except from \"\" to valid";
        errors.forbidden(path.child("providerID"), detail);
    }
    errors
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn with(spec: Value) -> Node {
        serde_json::from_value(json!({ "metadata": { "name": "n" }, "spec": spec })).expect("a node")
    }

    #[test]
    fn blocks_of_nodes_are_blocks_and_stay() {
        let block = |cidr: &str| with(json!({ "podCIDR": cidr, "podCIDRs": [cidr] }));
        assert!(node(&block("10.244.1.0/24")).is_empty());
        let dual = with(json!({ "podCIDR": "10.0.0.0/24", "podCIDRs": ["10.0.0.0/24", "fd00::/64"] }));
        assert!(node(&dual).is_empty());
        for (spec, why) in [
            (json!({ "podCIDRs": ["10.0.0.0"] }), "spec.podCIDRs[0]: Invalid value: \"10.0.0.0\""),
            (
                json!({ "podCIDRs": ["10.0.0.0/24", "10.0.1.0/24"] }),
                "no more than one CIDR for each IP family",
            ),
            (json!({ "podCIDR": "10.0.1.0/24", "podCIDRs": ["10.0.0.0/24"] }), "spec.podCIDR: Invalid value"),
        ] {
            let told = node(&with(spec)).to_string();
            assert!(told.contains(why), "{told}");
        }
        let (none, one, other) = (with(json!({})), block("10.244.1.0/24"), block("10.244.2.0/24"));
        assert!(node_update(&one, &none).is_empty());
        for changed in [&other, &none] {
            let told = node_update(changed, &one).to_string();
            assert!(told.contains("may not change podCIDR"), "{told}");
        }
    }
}
