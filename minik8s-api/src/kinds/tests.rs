use serde_json::{Value, json};

use crate::kind::Kind;
use crate::registry::Registry;

#[test]
fn names_find_their_kinds() {
    let registry = Registry::builtin();
    for (word, plural, group) in [
        ("po", "pods", ""),
        ("Pod", "pods", ""),
        ("deploy", "deployments", "apps"),
        ("events", "events", ""),
        ("events.events.k8s.io", "events", "events.k8s.io"),
        ("hpa", "horizontalpodautoscalers", "autoscaling"),
        ("ing", "ingresses", "networking.k8s.io"),
        ("netpol", "networkpolicies", "networking.k8s.io"),
        ("crd", "customresourcedefinitions", "apiextensions.k8s.io"),
        ("ep", "endpoints", ""),
        ("pdb", "poddisruptionbudgets", "policy"),
    ] {
        let kind = registry.find(word).unwrap_or_else(|| panic!("no {word}"));
        assert_eq!((&*kind.plural, &*kind.group), (plural, group), "{word}");
    }
}

#[test]
fn short_names_are_unambiguous_within_a_group() {
    let registry = Registry::builtin();
    let mut seen = std::collections::BTreeMap::new();
    for kind in registry.iter() {
        for name in &kind.short_names {
            let owner = seen.entry(name.clone()).or_insert_with(|| kind.plural.clone());
            assert_eq!(*owner, kind.plural, "short name {name}");
        }
    }
}

/// An object of `kind` with nothing but what its type demands. Kubernetes' own types demand nothing.
fn smallest(kind: &Kind) -> Value {
    let mut object = json!({
        "apiVersion": kind.api_version(), "kind": &*kind.kind, "metadata": {"name": "x"},
    });
    if kind.kind == "DNS" {
        object["spec"] = json!({"host": "a.example"});
    }
    object
}

#[test]
fn every_kind_has_a_schema_and_a_row_for_its_columns() {
    for kind in Registry::builtin().iter() {
        assert!(kind.schema().is_some(), "{kind:?} has no schema");
        let decoded = kind.decode_value(&smallest(kind)).unwrap();
        let row = kind.row(&*decoded.object, jiff::Timestamp::UNIX_EPOCH);
        assert_eq!(row.len(), kind.columns.len(), "{kind:?}");
        assert!(row.contains(&"x".into()), "{kind:?}: no name in {row:?}");
    }
}

/// Whatever a client leaves out, no step of a write may panic, and a second defaulting changes nothing.
#[test]
fn the_smallest_objects_pass_through_every_step() {
    for kind in Registry::builtin().iter() {
        let mut object = kind.decode_value(&smallest(kind)).unwrap().object;
        kind.default(&mut *object);
        kind.prepare_for_create(&mut *object);
        let once = object.to_value();
        kind.validate(&*object);
        assert!(kind.validate_update(&*object, &*object).is_empty(), "{kind:?} differs from itself");
        kind.default(&mut *object);
        assert_eq!(object.to_value(), once, "{kind:?}");
    }
}

/// `kubectl api-resources -o wide` of Kubernetes 1.34, as its documentation has it: name, short names, categories,
/// and `-` for what belongs to the cluster. Component statuses are left out: they have been of no use since 1.19.
const KUBERNETES: &[(&str, &[&str])] = &[
    (
        "v1",
        &[
            "bindings",
            "configmaps cm",
            "endpoints ep",
            "events ev",
            "limitranges limits",
            "-namespaces ns",
            "-nodes no",
            "persistentvolumeclaims pvc",
            "-persistentvolumes pv",
            "pods po +all",
            "podtemplates",
            "replicationcontrollers rc +all",
            "resourcequotas quota",
            "secrets",
            "serviceaccounts sa",
            "services svc +all",
        ],
    ),
    (
        "admissionregistration.k8s.io/v1",
        &[
            "-mutatingwebhookconfigurations +api-extensions",
            "-validatingadmissionpolicies +api-extensions",
            "-validatingadmissionpolicybindings +api-extensions",
            "-validatingwebhookconfigurations +api-extensions",
        ],
    ),
    ("apiextensions.k8s.io/v1", &["-customresourcedefinitions crd crds +api-extensions"]),
    ("apiregistration.k8s.io/v1", &["-apiservices +api-extensions"]),
    (
        "apps/v1",
        &[
            "controllerrevisions",
            "daemonsets ds +all",
            "deployments deploy +all",
            "replicasets rs +all",
            "statefulsets sts +all",
        ],
    ),
    ("authentication.k8s.io/v1", &["-selfsubjectreviews", "-tokenreviews"]),
    (
        "authorization.k8s.io/v1",
        &[
            "localsubjectaccessreviews",
            "-selfsubjectaccessreviews",
            "-selfsubjectrulesreviews",
            "-subjectaccessreviews",
        ],
    ),
    ("autoscaling/v1", &["horizontalpodautoscalers hpa +all"]),
    ("autoscaling/v2", &["horizontalpodautoscalers hpa +all"]),
    ("batch/v1", &["cronjobs cj +all", "jobs +all"]),
    ("certificates.k8s.io/v1", &["-certificatesigningrequests csr"]),
    ("coordination.k8s.io/v1", &["leases"]),
    ("discovery.k8s.io/v1", &["endpointslices"]),
    ("events.k8s.io/v1", &["events ev"]),
    ("flowcontrol.apiserver.k8s.io/v1", &["-flowschemas", "-prioritylevelconfigurations"]),
    (
        "networking.k8s.io/v1",
        &["-ingressclasses", "ingresses ing", "-ipaddresses ip", "networkpolicies netpol", "-servicecidrs"],
    ),
    ("node.k8s.io/v1", &["-runtimeclasses"]),
    ("policy/v1", &["poddisruptionbudgets pdb"]),
    ("rbac.authorization.k8s.io/v1", &["-clusterrolebindings", "-clusterroles", "rolebindings", "roles"]),
    (
        "resource.k8s.io/v1",
        &["-deviceclasses", "resourceclaims", "resourceclaimtemplates", "-resourceslices"],
    ),
    ("scheduling.k8s.io/v1", &["-priorityclasses pc"]),
    (
        "storage.k8s.io/v1",
        &[
            "-csidrivers",
            "-csinodes",
            "csistoragecapacities",
            "-storageclasses sc",
            "-volumeattachments",
            "-volumeattributesclasses vac",
        ],
    ),
];

#[test]
fn the_kinds_of_kubernetes_are_there() {
    let registry = Registry::builtin();
    let mut listed = std::collections::BTreeSet::new();
    for (api_version, kinds) in KUBERNETES {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        for line in *kinds {
            let mut words = line.split(' ');
            let name = words.next().expect("a name");
            let plural = name.trim_start_matches('-');
            let kind = registry.by_path(group, version, plural).unwrap_or_else(|| panic!("no {plural}"));
            assert_eq!(kind.namespaced, plural == name, "{kind:?}");
            let (categories, short): (Vec<_>, Vec<_>) = words.partition(|w| w.starts_with('+'));
            let categories: Vec<_> = categories.iter().map(|c| &c[1..]).collect();
            assert_eq!(kind.short_names, short, "{kind:?}");
            assert_eq!(kind.categories, categories, "{kind:?}");
            listed.insert((group, version, plural));
        }
    }
    let served = registry.iter().filter(|k| !k.group.starts_with("minik8s"));
    let more: Vec<_> = served.filter(|k| !listed.contains(&(&*k.group, &*k.version, &*k.plural))).collect();
    assert!(more.is_empty(), "nobody expects {more:?}");
    let answered: Vec<_> = registry.iter().filter(|k| !k.stored).map(|k| k.plural.to_string()).collect();
    assert!(answered.iter().all(|p| p == "bindings" || p.ends_with("reviews")), "{answered:?}");
}
