//! Which requests webhooks and policies are about.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::admissionregistration::v1::{
    MatchResources, NamedRuleWithOperations, RuleWithOperations,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use minik8s_api::{Kind, Selector};

use super::{Request, Verb};
use crate::error::ApiError;

/// What rules and selectors let through.
#[derive(Clone, Debug)]
pub(super) struct Matcher {
    rules: Vec<NamedRuleWithOperations>,
    excluded: Vec<NamedRuleWithOperations>,
    /// Whether a rule about one version of a resource is about the others too.
    equivalent: bool,
    /// `None` for one that cannot be read; it lets nothing through.
    namespaces: Option<Selector>,
    objects: Option<Selector>,
}

/// In which terms a request is looked at.
pub(super) struct Match {
    /// The kind that the rule is about: that of the request, or another version of it.
    pub(super) kind: Arc<Kind>,
}

fn selector(selector: Option<&LabelSelector>) -> Option<Selector> {
    match selector {
        None => Some(Selector::everything()),
        Some(selector) => Selector::from_label_selector(selector).ok(),
    }
}

fn named(rule: &RuleWithOperations) -> NamedRuleWithOperations {
    NamedRuleWithOperations {
        api_groups: rule.api_groups.clone(),
        api_versions: rule.api_versions.clone(),
        operations: rule.operations.clone(),
        resource_names: None,
        resources: rule.resources.clone(),
        scope: rule.scope.clone(),
    }
}

impl Matcher {
    /// What a webhook says.
    pub(super) fn of_webhook(
        rules: Option<&Vec<RuleWithOperations>>,
        policy: Option<&str>,
        namespaces: Option<&LabelSelector>,
        objects: Option<&LabelSelector>,
    ) -> Self {
        Self {
            rules: rules.into_iter().flatten().map(named).collect(),
            excluded: Vec::new(),
            equivalent: policy != Some("Exact"),
            namespaces: selector(namespaces),
            objects: selector(objects),
        }
    }

    /// What a policy says. Without rules, a binding is about whatever its policy is about.
    pub(super) fn of_policy(resources: Option<&MatchResources>) -> Self {
        let none = MatchResources::default();
        let resources = resources.unwrap_or(&none);
        Self {
            rules: resources.resource_rules.clone().unwrap_or_default(),
            excluded: resources.exclude_resource_rules.clone().unwrap_or_default(),
            equivalent: resources.match_policy.as_deref() != Some("Exact"),
            namespaces: selector(resources.namespace_selector.as_ref()),
            objects: selector(resources.object_selector.as_ref()),
        }
    }

    /// Whether it has no rules, so that all requests are meant.
    pub(super) fn has_no_rules(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether the rules are about the request, and in which version. This asks nobody.
    pub(super) fn rules(&self, request: &Request<'_>) -> Option<Match> {
        let own = request.kind();
        let about = |rules: &[NamedRuleWithOperations], kind: &Kind| {
            rules.iter().any(|rule| applies(rule, kind, request))
        };
        let versions = || -> Vec<Arc<Kind>> {
            let registry = request.server.registry();
            let same = |k: &&Arc<Kind>| k.stored_resource() == own.stored_resource() && !Arc::ptr_eq(k, own);
            registry.iter().filter(same).cloned().collect()
        };
        let excluded = about(&self.excluded, own)
            || (self.equivalent
                && !self.excluded.is_empty()
                && versions().iter().any(|k| about(&self.excluded, k)));
        if excluded {
            return None;
        }
        if about(&self.rules, own) {
            return Some(Match { kind: own.clone() });
        }
        if !self.equivalent {
            return None;
        }
        versions().into_iter().find(|kind| about(&self.rules, kind)).map(|kind| Match { kind })
    }

    /// Whether the selectors let the request through.
    pub(super) async fn selects(&self, request: &Request<'_>) -> Result<bool, ApiError> {
        let (Some(namespaces), Some(objects)) = (&self.namespaces, &self.objects) else { return Ok(false) };
        if !objects.is_everything() {
            let labelled = |object: Option<&dyn minik8s_api::Object>| {
                let none = BTreeMap::new();
                object.is_some_and(|o| objects.matches(o.metadata().labels.as_ref().unwrap_or(&none)))
            };
            if !labelled(request.object()) && !labelled(request.old()) {
                return Ok(false);
            }
        }
        if namespaces.is_everything() {
            return Ok(true);
        }
        let none = BTreeMap::new();
        // A namespace is chosen by its own labels; what is in none is meant in any case.
        if request.kind().kind == "Namespace" && request.kind().group.is_empty() {
            let object = request.object().or(request.old());
            let labels = object.and_then(|o| o.metadata().labels.as_ref());
            return Ok(namespaces.matches(labels.unwrap_or(&none)));
        }
        Ok(match (request.namespace(), request.namespace_object().await?) {
            (None, _) => true,
            (Some(_), Some(namespace)) => {
                namespaces.matches(namespace.metadata.labels.as_ref().unwrap_or(&none))
            }
            (Some(_), None) => false,
        })
    }
}

fn applies(rule: &NamedRuleWithOperations, kind: &Kind, request: &Request<'_>) -> bool {
    let has = |list: &Option<Vec<String>>, value: &str| {
        list.iter().flatten().any(|listed| listed == "*" || listed == value)
    };
    let scope = match rule.scope.as_deref() {
        Some("Namespaced") => kind.namespaced,
        // A namespace counts as being in none.
        Some("Cluster") => !kind.namespaced,
        _ => true,
    };
    let names = rule.resource_names.as_deref().unwrap_or_default();
    scope
        && has(&rule.operations, request.verb().as_str())
        && has(&rule.api_groups, &kind.group)
        && has(&rule.api_versions, &kind.version)
        && (names.is_empty() || names.iter().any(|n| n == request.name()))
        && rule.resources.iter().flatten().any(|r| is_resource(r, &kind.plural, request.subresource()))
}

/// Whether `pattern`, such as `pods`, `pods/*`, `*/scale`, `*` or `*/*`, is about that resource.
fn is_resource(pattern: &str, resource: &str, subresource: &str) -> bool {
    let (of, sub) = pattern.split_once('/').unwrap_or((pattern, ""));
    let below = match sub {
        "*" => true,
        sub => sub == subresource,
    };
    (of == "*" || of == resource) && below
}

/// Objects that no webhook or policy is asked about: nobody is to lock themselves out.
pub(super) fn is_exempt(request: &Request<'_>) -> bool {
    let kind = request.kind();
    kind.group == "admissionregistration.k8s.io" && request.verb() != Verb::Connect
}

#[cfg(test)]
mod tests {
    use super::is_resource;

    #[test]
    fn patterns_are_about_resources_and_what_is_below_them() {
        let cases = [
            ("pods", "pods", "", true),
            ("pods", "pods", "status", false),
            ("pods/status", "pods", "status", true),
            ("pods/*", "pods", "status", true),
            ("pods/*", "pods", "", true),
            ("*", "pods", "", true),
            ("*", "pods", "exec", false),
            ("*/*", "pods", "exec", true),
            ("*/scale", "deployments", "scale", true),
            ("*/scale", "deployments", "", false),
            ("nodes", "pods", "", false),
        ];
        for (pattern, resource, subresource, expected) in cases {
            assert_eq!(
                is_resource(pattern, resource, subresource),
                expected,
                "{pattern} {resource}/{subresource}"
            );
        }
    }
}
