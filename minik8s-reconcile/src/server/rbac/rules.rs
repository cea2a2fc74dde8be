//! What rules of roles allow, and whether some of them cover others. Pure functions.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::rbac::v1::PolicyRule;

use crate::server::authorizer::Action;

/// Stands for everything.
const ALL: &str = "*";

/// A list of a rule; the same whether it is missing or empty.
fn list(values: &Option<Vec<String>>) -> &[String] {
    values.as_deref().unwrap_or_default()
}

fn has(values: &[String], value: &str) -> bool {
    values.iter().any(|v| v == value)
}

/// Whether the rule allows the action. A rule about resources says nothing of paths, and the other way round.
pub(super) fn allows(rule: &PolicyRule, action: &Action<'_>) -> bool {
    let verb_matches = |verb: &str| rule.verbs.iter().any(|v| v == ALL || v == verb);
    match *action {
        Action::Resource { verb, group, resource, subresource, name, .. } => {
            verb_matches(verb)
                && list(&rule.api_groups).iter().any(|g| g == ALL || g == group)
                && list(&rule.resources).iter().any(|r| is_resource(r, resource, subresource))
                && (list(&rule.resource_names).is_empty() || has(list(&rule.resource_names), name))
        }
        Action::NonResource { verb, path } => {
            verb_matches(verb) && list(&rule.non_resource_urls).iter().any(|url| covers_path(url, path))
        }
    }
}

/// Whether `pattern` (`pods`, `pods/log`, `*/scale` or `*`) stands for the resource.
fn is_resource(pattern: &str, resource: &str, subresource: &str) -> bool {
    match (pattern.split_once('/'), subresource) {
        _ if pattern == ALL => true,
        (None, "") => pattern == resource,
        (Some((of, part)), subresource) => {
            !subresource.is_empty() && part == subresource && (of == ALL || of == resource)
        }
        (None, _) => false,
    }
}

/// Whether `pattern`, which may end with `*`, stands for the path.
fn covers_path(pattern: &str, path: &str) -> bool {
    match pattern.strip_suffix(ALL) {
        Some(start) => path.starts_with(start.trim_end_matches('*')),
        None => pattern == path,
    }
}

/// What of `wanted` nobody who has `held` can do, in rules that are as short as can be. Nothing: `held` covers it all.
pub(super) fn missing(held: &[PolicyRule], wanted: &[PolicyRule]) -> Vec<PolicyRule> {
    let parts = wanted.iter().flat_map(simple);
    compact(parts.filter(|part| !held.iter().any(|rule| covers(rule, part))))
}

/// The rule as rules with one verb and one resource (or one path) and one name at most.
fn simple(rule: &PolicyRule) -> Vec<PolicyRule> {
    let mut parts = Vec::new();
    for group in list(&rule.api_groups) {
        for resource in list(&rule.resources) {
            for verb in &rule.verbs {
                let part = |names: Option<Vec<String>>| PolicyRule {
                    api_groups: Some(vec![group.clone()]),
                    resources: Some(vec![resource.clone()]),
                    verbs: vec![verb.clone()],
                    resource_names: names,
                    non_resource_urls: None,
                };
                match list(&rule.resource_names) {
                    [] => parts.push(part(None)),
                    names => parts.extend(names.iter().map(|name| part(Some(vec![name.clone()])))),
                }
            }
        }
    }
    for url in list(&rule.non_resource_urls) {
        for verb in &rule.verbs {
            let non_resource_urls = Some(vec![url.clone()]);
            parts.push(PolicyRule { non_resource_urls, verbs: vec![verb.clone()], ..PolicyRule::default() });
        }
    }
    parts
}

/// Whether all that the simple rule `part` allows is allowed by `rule`.
fn covers(rule: &PolicyRule, part: &PolicyRule) -> bool {
    let all = |held: &[String], wanted: &[String]| has(held, ALL) || wanted.iter().all(|w| has(held, w));
    let resource = |wanted: &String| {
        let held = list(&rule.resources);
        has(held, ALL)
            || has(held, wanted)
            || wanted
                .split_once('/')
                .is_some_and(|(_, part)| held.iter().any(|h| h.strip_prefix("*/") == Some(part)))
    };
    let names = match (list(&rule.resource_names), list(&part.resource_names)) {
        ([], _) => true,
        (_, []) => false,
        (held, wanted) => wanted.iter().all(|w| has(held, w)),
    };
    all(&rule.verbs, &part.verbs)
        && all(list(&rule.api_groups), list(&part.api_groups))
        && list(&part.resources).iter().all(resource)
        && names
        && list(&part.non_resource_urls)
            .iter()
            .all(|wanted| list(&rule.non_resource_urls).iter().any(|held| covers_path(held, wanted)))
}

/// Puts simple rules together that differ in their verbs alone.
fn compact(parts: impl Iterator<Item = PolicyRule>) -> Vec<PolicyRule> {
    let mut together: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
    for part in parts {
        let key = (part.api_groups, part.resources, part.resource_names, part.non_resource_urls);
        together.entry(key).or_default().extend(part.verbs);
    }
    let rule =
        |((api_groups, resources, resource_names, non_resource_urls), verbs): (_, BTreeSet<String>)| {
            let verbs = verbs.into_iter().collect();
            PolicyRule { api_groups, resources, resource_names, non_resource_urls, verbs }
        };
    together.into_iter().map(rule).collect()
}

/// The rule in one line, as refusals cite it: `{APIGroups:[""], Resources:["pods"], Verbs:["get"]}`.
pub(super) fn describe(rule: &PolicyRule) -> String {
    let parts = [
        ("APIGroups", list(&rule.api_groups)),
        ("Resources", list(&rule.resources)),
        ("NonResourceURLs", list(&rule.non_resource_urls)),
        ("ResourceNames", list(&rule.resource_names)),
        ("Verbs", &rule.verbs),
    ];
    let parts = parts.iter().filter(|(_, values)| !values.is_empty());
    let parts: Vec<String> = parts.map(|(name, values)| format!("{name}:{}", quoted(values))).collect();
    format!("{{{}}}", parts.join(", "))
}

/// `["a" "b"]`: how Go prints lists of strings.
pub(super) fn quoted(values: &[String]) -> String {
    let values: Vec<String> = values.iter().map(|v| format!("{v:?}")).collect();
    format!("[{}]", values.join(" "))
}

#[cfg(test)]
mod tests;
