use std::collections::BTreeMap;
use std::ops::ControlFlow;

use k8s_openapi::api::rbac::v1::{RoleRef, Subject};
use proptest::prelude::*;

use super::Policy;
use crate::request::User;

fn role(kind: &str, name: &str) -> RoleRef {
    RoleRef { api_group: None, kind: kind.to_owned(), name: name.to_owned() }
}

fn subject(kind: &str, namespace: &str, name: &str) -> Subject {
    let namespace = Some(namespace.to_owned()).filter(|n| !n.is_empty());
    Subject { api_group: None, kind: kind.to_owned(), name: name.to_owned(), namespace }
}

fn explanations(policy: &Policy, user: &User, namespace: &str) -> Vec<String> {
    let mut found = Vec::new();
    policy.visit(user, namespace, |(grant, rules)| {
        found.push(format!("{}{}", grant.explain(), if rules.is_some() { "" } else { ", missing" }));
        ControlFlow::<()>::Continue(())
    });
    found
}

#[test]
fn grants_are_found_by_user_group_and_account() {
    let mut policy = Policy::default();
    policy.set_role("", "view", Some(Vec::new()));
    policy.set_binding("", "all", Some((role("ClusterRole", "view"), vec![subject("Group", "", "g")])));
    policy.set_binding("a", "one", Some((role("ClusterRole", "view"), vec![subject("User", "", "u")])));
    let accounts = vec![subject("ServiceAccount", "b", "sa")];
    policy.set_binding("a", "robots", Some((role("Role", "gone"), accounts)));
    let by = "RBAC: allowed by";
    assert_eq!(
        explanations(&policy, &User::named("u", &["g"]), "a"),
        [
            format!("{by} ClusterRoleBinding \"all\" of ClusterRole \"view\" to Group \"g\""),
            format!("{by} RoleBinding \"one/a\" of ClusterRole \"view\" to User \"u\""),
        ]
    );
    assert_eq!(explanations(&policy, &User::named("u", &[]), "b"), Vec::<String>::new());
    assert_eq!(
        explanations(&policy, &User::named("system:serviceaccount:b:sa", &[]), "a"),
        [format!("{by} RoleBinding \"robots/a\" of Role \"gone\" to ServiceAccount \"sa/b\", missing")]
    );
    policy.set_binding("a", "one", Some((role("ClusterRole", "view"), Vec::new())));
    assert_eq!(explanations(&policy, &User::named("u", &[]), "a"), Vec::<String>::new());
}

proptest! {
    /// However it came about, the policy is that of what is there.
    #[test]
    fn history_does_not_matter(steps in proptest::collection::vec(
        ((0..3_usize, 0..3_usize), proptest::option::of(proptest::collection::vec((0..3_usize, 0..2_usize), 0..4))),
        0..24,
    )) {
        let names = ["", "a", "b"];
        let kinds = ["User", "Group", "ServiceAccount"];
        let mut policy = Policy::default();
        let mut last = BTreeMap::new();
        for ((namespace, name), subjects) in steps {
            let subjects = subjects.map(|s| {
                s.into_iter().map(|(k, n)| subject(kinds[k], "ns", names[n + 1])).collect::<Vec<_>>()
            });
            let binding = subjects.map(|s| (role("Role", "r"), s));
            policy.set_binding(names[namespace], names[name], binding.clone());
            policy.set_role(names[namespace], names[name], binding.clone().map(|_| Vec::new()));
            last.insert((namespace, name), binding);
        }
        let mut fresh = Policy::default();
        for ((namespace, name), binding) in last {
            if let Some(binding) = binding {
                fresh.set_binding(names[namespace], names[name], Some(binding));
                fresh.set_role(names[namespace], names[name], Some(Vec::new()));
            }
        }
        prop_assert_eq!(policy, fresh);
    }
}
