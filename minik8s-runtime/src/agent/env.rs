//! The environment of a container, and `$(VAR)` in its command.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, EnvVarSource, Pod};

use super::downward::{self, Place};
use super::sources::{Objects, Wanted};

/// The ConfigMaps and Secrets that the container's environment refers to.
pub(crate) fn wanted(container: &Container) -> Wanted {
    let mut wanted = Wanted::default();
    for from in container.env_from.iter().flatten() {
        wanted.config_maps.extend(from.config_map_ref.iter().map(|r| r.name.clone()));
        wanted.secrets.extend(from.secret_ref.iter().map(|r| r.name.clone()));
    }
    for source in container.env.iter().flatten().filter_map(|e| e.value_from.as_ref()) {
        wanted.config_maps.extend(source.config_map_key_ref.iter().map(|r| r.name.clone()));
        wanted.secrets.extend(source.secret_key_ref.iter().map(|r| r.name.clone()));
    }
    wanted
}

/// The container's variables in order; a later one of the same name wins. `given` come first.
///
/// # Errors
/// What is missing, in the words of a `CreateContainerConfigError`.
pub(crate) fn environment(
    pod: &Pod,
    container: &Container,
    place: &Place,
    objects: &Objects,
    given: &[(String, String)],
) -> Result<Vec<(String, String)>, String> {
    let mut out: Vec<(String, String)> = given.to_vec();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        let mut data = BTreeMap::new();
        if let Some(r) = &from.config_map_ref {
            match objects.config_maps.get(&r.name).cloned().flatten() {
                Some(map) => data.extend(map.data.clone().unwrap_or_default()),
                None if r.optional == Some(true) => {}
                None => return Err(format!("configmap \"{}\" not found", r.name)),
            }
        }
        if let Some(r) = &from.secret_ref {
            match objects.secrets.get(&r.name).cloned().flatten() {
                Some(secret) => {
                    for (key, value) in secret.data.iter().flatten() {
                        data.insert(key.clone(), String::from_utf8_lossy(&value.0).into_owned());
                    }
                }
                None if r.optional == Some(true) => {}
                None => return Err(format!("secret \"{}\" not found", r.name)),
            }
        }
        for (key, value) in data {
            let name = format!("{prefix}{key}");
            // What cannot be a variable's name is left out.
            if is_name(&name) {
                set(&mut out, name, value);
            }
        }
    }
    for var in container.env.iter().flatten() {
        let value = match &var.value_from {
            None => Some(expand(var.value.as_deref().unwrap_or_default(), &out)),
            Some(source) => from_source(pod, container, place, objects, source, namespace)?,
        };
        if let Some(value) = value {
            set(&mut out, var.name.clone(), value);
        }
    }
    Ok(out)
}

fn from_source(
    pod: &Pod,
    container: &Container,
    place: &Place,
    objects: &Objects,
    source: &EnvVarSource,
    namespace: &str,
) -> Result<Option<String>, String> {
    if let Some(r) = &source.field_ref {
        return downward::field(pod, place, &r.field_path).map(Some);
    }
    if let Some(r) = &source.resource_field_ref {
        return downward::resource(pod, Some(container), place, r).map(Some);
    }
    if let Some(r) = &source.config_map_key_ref {
        let optional = r.optional == Some(true);
        let Some(map) = objects.config_maps.get(&r.name).cloned().flatten() else {
            return missing(optional, format!("configmap \"{}\" not found", r.name));
        };
        return match map.data.as_ref().and_then(|d| d.get(&r.key)) {
            Some(value) => Ok(Some(value.clone())),
            None => {
                missing(optional, format!("couldn't find key {} in ConfigMap {namespace}/{}", r.key, r.name))
            }
        };
    }
    if let Some(r) = &source.secret_key_ref {
        let optional = r.optional == Some(true);
        let Some(secret) = objects.secrets.get(&r.name).cloned().flatten() else {
            return missing(optional, format!("secret \"{}\" not found", r.name));
        };
        return match secret.data.as_ref().and_then(|d| d.get(&r.key)) {
            Some(value) => Ok(Some(String::from_utf8_lossy(&value.0).into_owned())),
            None => {
                missing(optional, format!("couldn't find key {} in Secret {namespace}/{}", r.key, r.name))
            }
        };
    }
    Err("invalid valueFrom: no source that this node knows".to_owned())
}

fn missing(optional: bool, message: String) -> Result<Option<String>, String> {
    if optional { Ok(None) } else { Err(message) }
}

fn set(env: &mut Vec<(String, String)>, name: String, value: String) {
    env.retain(|(known, _)| *known != name);
    env.push((name, value));
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'=')
}

/// Replaces `$(NAME)` by the variable's value; `$$` is a dollar sign, and what is not defined stays as it is.
pub(crate) fn expand(text: &str, env: &[(String, String)]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|r| r.split_once(')')) {
            match env.iter().rev().find(|(known, _)| known == name) {
                Some((_, value)) => out.push_str(value),
                None => {
                    out.push_str("$(");
                    out.push_str(name);
                    out.push(')');
                }
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::api::core::v1::{ConfigMap, Secret};
    use serde_json::json;

    use super::*;

    #[test]
    fn expansion() {
        let env = [("A".to_owned(), "1".to_owned()), ("B".to_owned(), "$(A)".to_owned())];
        for (text, expected) in [
            ("$(A)-$(B)", "1-$(A)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$(C)", "$(C)"),
            ("$A ${A} $(A", "$A ${A} $(A"),
            ("cost: 5$", "cost: 5$"),
        ] {
            assert_eq!(expand(text, &env), expected, "{text}");
        }
    }

    fn objects() -> Objects {
        let map: ConfigMap = serde_json::from_value(json!({"data": {"k": "v", "bad=key": "x"}})).unwrap();
        let secret: Secret = serde_json::from_value(json!({"data": {"pw": "c2VjcmV0"}})).unwrap();
        let mut objects = Objects::default();
        objects.config_maps.insert("m".into(), Some(Arc::new(map)));
        objects.config_maps.insert("none".into(), None);
        objects.secrets.insert("s".into(), Some(Arc::new(secret)));
        objects
    }

    fn env(container: serde_json::Value) -> Result<Vec<(String, String)>, String> {
        let container: Container = serde_json::from_value(container).unwrap();
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "ns"}})).unwrap();
        environment(&pod, &container, &Place::default(), &objects(), &[("G".into(), "g".into())])
    }

    #[test]
    fn every_source_in_order() {
        let got = env(json!({
            "name": "c",
            "envFrom": [{"prefix": "P_", "configMapRef": {"name": "m"}},
                        {"configMapRef": {"name": "none", "optional": true}}],
            "env": [
                {"name": "A", "value": "$(G)$(P_k)"},
                {"name": "PW", "valueFrom": {"secretKeyRef": {"name": "s", "key": "pw"}}},
                {"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": "O", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "zz", "optional": true}}},
                {"name": "A", "value": "$(A)!"}
            ]
        }))
        .unwrap();
        let text: Vec<String> = got.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(text, ["G=g", "P_k=v", "PW=secret", "N=p", "A=gv!"]);
    }

    #[test]
    fn what_is_missing_is_named() {
        let key = |name: &str, key: &str| {
            env(json!({"name": "c", "env": [
                {"name": "A", "valueFrom": {"configMapKeyRef": {"name": name, "key": key}}}]}))
            .unwrap_err()
        };
        assert_eq!(key("none", "k"), "configmap \"none\" not found");
        assert_eq!(key("m", "zz"), "couldn't find key zz in ConfigMap ns/m");
        let from = env(json!({"name": "c", "envFrom": [{"secretRef": {"name": "gone"}}]})).unwrap_err();
        assert_eq!(from, "secret \"gone\" not found");
    }
}
