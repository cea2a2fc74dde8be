//! The roles that every cluster has, and who is bound to them, as in
//! [Kubernetes](https://kubernetes.io/docs/reference/access-authn-authz/rbac/#default-roles-and-role-bindings). The
//! roles of Kubernetes' own controllers are missing: controllers of this server are part of it.

use Rule::{Named, On, Paths};

/// What a role allows. The words of each text are separated by spaces.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rule {
    /// Verbs, groups (`core` for the core group), resources.
    On(&'static str, &'static str, &'static str),
    /// Verbs, groups, resources, names.
    Named(&'static str, &'static str, &'static str, &'static str),
    /// Verbs, paths.
    Paths(&'static str, &'static str),
}

/// A role that every cluster has.
#[derive(Clone, Copy, Debug)]
pub(super) struct DefaultRole {
    /// The namespace; empty for a cluster role.
    pub(super) namespace: &'static str,
    pub(super) name: &'static str,
    /// The cluster role into which its rules go, by a label.
    pub(super) goes_into: &'static str,
    /// Whether its rules are those of the roles that go into it.
    pub(super) aggregates: bool,
    pub(super) rules: &'static [Rule],
}

/// A binding that every cluster has, of the role of the same namespace and name unless `role` says another.
#[derive(Clone, Copy, Debug)]
pub(super) struct DefaultBinding {
    /// The namespace; empty for a binding of the cluster.
    pub(super) namespace: &'static str,
    pub(super) name: &'static str,
    pub(super) role: &'static str,
    /// Kind and name of each subject; a service account's name is `NAMESPACE/NAME`.
    pub(super) subjects: &'static [(&'static str, &'static str)],
}

const fn cluster_role(name: &'static str, rules: &'static [Rule]) -> DefaultRole {
    DefaultRole { namespace: "", name, goes_into: "", aggregates: false, rules }
}

const fn part(name: &'static str, goes_into: &'static str, rules: &'static [Rule]) -> DefaultRole {
    DefaultRole { namespace: "", name, goes_into, aggregates: false, rules }
}

const fn whole(name: &'static str, goes_into: &'static str) -> DefaultRole {
    DefaultRole { namespace: "", name, goes_into, aggregates: true, rules: &[] }
}

const fn role(namespace: &'static str, name: &'static str, rules: &'static [Rule]) -> DefaultRole {
    DefaultRole { namespace, name, goes_into: "", aggregates: false, rules }
}

const fn bound(name: &'static str, subjects: &'static [(&'static str, &'static str)]) -> DefaultBinding {
    DefaultBinding { namespace: "", name, role: name, subjects }
}

const READ: &str = "get list watch";
const WRITE: &str = "create delete deletecollection patch update";
const READ_WRITE: &str = "create delete deletecollection get list patch update watch";
const EVENTS: Rule = On("create patch update", "core events.k8s.io", "events");
const CSR: &str = "certificatesigningrequests";
const CERTIFICATES: &str = "certificates.k8s.io";

/// What nodes do apart from what depends on the node; that is the node authorizer's to allow.
pub(in crate::server) const NODE: &[Rule] = &[
    On("create", "authentication.k8s.io", "tokenreviews"),
    On("create", "authorization.k8s.io", "localsubjectaccessreviews subjectaccessreviews"),
    On(READ, "core", "services"),
    EVENTS,
    On("create get list watch", CERTIFICATES, CSR),
    On(READ, "storage.k8s.io", "csidrivers"),
    On(READ, "node.k8s.io", "runtimeclasses"),
];

/// The default roles.
pub(super) const ROLES: &[DefaultRole] = &[
    cluster_role("cluster-admin", &[On("*", "*", "*"), Paths("*", "*")]),
    cluster_role(
        "system:discovery",
        &[Paths(
            "get",
            "/api /api/* /apis /apis/* /healthz /livez /openapi /openapi/* /readyz /version /version/",
        )],
    ),
    cluster_role(
        "system:monitoring",
        &[Paths("get", "/healthz /healthz/* /livez /livez/* /metrics /metrics/slis /readyz /readyz/*")],
    ),
    cluster_role(
        "system:basic-user",
        &[
            On("create", "authorization.k8s.io", "selfsubjectaccessreviews selfsubjectrulesreviews"),
            On("create", "authentication.k8s.io", "selfsubjectreviews"),
        ],
    ),
    cluster_role("system:public-info-viewer", &[Paths("get", "/healthz /livez /readyz /version /version/")]),
    whole("admin", ""),
    whole("edit", "admin"),
    whole("view", "edit"),
    part(
        "system:aggregate-to-admin",
        "admin",
        &[
            On("create", "authorization.k8s.io", "localsubjectaccessreviews"),
            On(READ_WRITE, "rbac.authorization.k8s.io", "rolebindings roles"),
        ],
    ),
    part("system:aggregate-to-edit", "edit", EDIT),
    part("system:aggregate-to-view", "view", VIEW),
    part("system:minik8s:aggregate-to-edit", "edit", &[On(WRITE, "minik8s.io", "*")]),
    part("system:minik8s:aggregate-to-view", "view", &[On(READ, "minik8s.io", "*")]),
    cluster_role(
        "system:heapster",
        &[On(READ, "core", "events namespaces nodes pods"), On(READ, "extensions", "deployments")],
    ),
    cluster_role("system:node", NODE),
    cluster_role(
        "system:node-problem-detector",
        &[On("get", "core", "nodes"), On("patch", "core", "nodes/status"), EVENTS],
    ),
    cluster_role(
        "system:node-proxier",
        &[
            On("list watch", "core", "endpoints services"),
            On(READ, "core", "nodes"),
            EVENTS,
            On("list watch", "discovery.k8s.io", "endpointslices"),
        ],
    ),
    cluster_role(
        "system:kubelet-api-admin",
        &[
            On(READ, "core", "nodes"),
            On("proxy", "core", "nodes"),
            On("*", "core", "nodes/log nodes/metrics nodes/proxy nodes/stats"),
        ],
    ),
    cluster_role("system:node-bootstrapper", &[On("create get list watch", CERTIFICATES, CSR)]),
    cluster_role(
        "system:auth-delegator",
        &[
            On("create", "authentication.k8s.io", "tokenreviews"),
            On("create", "authorization.k8s.io", "subjectaccessreviews"),
        ],
    ),
    cluster_role("system:kube-aggregator", &[On(READ, "core", "endpoints services")]),
    cluster_role(
        "system:kube-controller-manager",
        &[
            EVENTS,
            On("create", "coordination.k8s.io", "leases"),
            Named("get update", "coordination.k8s.io", "leases", "kube-controller-manager"),
            On("create", "core", "secrets serviceaccounts"),
            On("delete", "core", "secrets"),
            On("get", "core", "configmaps namespaces secrets serviceaccounts"),
            On("update", "core", "secrets serviceaccounts"),
            On("create", "authentication.k8s.io", "tokenreviews"),
            On("create", "authorization.k8s.io", "subjectaccessreviews"),
            On("list watch", "*", "*"),
            On("create", "core", "serviceaccounts/token"),
        ],
    ),
    cluster_role(
        "system:kube-scheduler",
        &[
            EVENTS,
            On("create", "coordination.k8s.io", "leases"),
            Named("get update", "coordination.k8s.io", "leases", "kube-scheduler"),
            On(READ, "core", "nodes"),
            On("delete get list watch", "core", "pods"),
            On("create", "core", "bindings pods/binding"),
            On("patch update", "core", "pods/status"),
            On(READ, "core", "namespaces replicationcontrollers services"),
            On(READ, "apps extensions", "replicasets"),
            On(READ, "apps", "statefulsets"),
            On(READ, "policy", "poddisruptionbudgets"),
            On(READ, "core", "persistentvolumeclaims persistentvolumes"),
            On("create", "authentication.k8s.io", "tokenreviews"),
            On("create", "authorization.k8s.io", "subjectaccessreviews"),
            On(READ, "storage.k8s.io", "csidrivers csinodes csistoragecapacities storageclasses"),
        ],
    ),
    cluster_role("system:kube-dns", &[On("list watch", "core", "endpoints services")]),
    cluster_role(
        "system:persistent-volume-provisioner",
        &[
            On("create delete get list watch", "core", "persistentvolumes"),
            On("get list update watch", "core", "persistentvolumeclaims"),
            On(READ, "storage.k8s.io", "storageclasses"),
            On("watch", "core", "events"),
            EVENTS,
        ],
    ),
    cluster_role(
        "system:volume-scheduler",
        &[
            On("get list patch update watch", "core", "persistentvolumes"),
            On(READ, "storage.k8s.io", "storageclasses"),
            On("get list patch update watch", "core", "persistentvolumeclaims"),
        ],
    ),
    cluster_role(
        "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
        &[On("create", CERTIFICATES, "certificatesigningrequests/nodeclient")],
    ),
    cluster_role(
        "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
        &[On("create", CERTIFICATES, "certificatesigningrequests/selfnodeclient")],
    ),
    cluster_role(
        "system:certificates.k8s.io:kube-apiserver-client-approver",
        &[Named("approve", CERTIFICATES, "signers", "kubernetes.io/kube-apiserver-client")],
    ),
    cluster_role(
        "system:certificates.k8s.io:kube-apiserver-client-kubelet-approver",
        &[Named("approve", CERTIFICATES, "signers", "kubernetes.io/kube-apiserver-client-kubelet")],
    ),
    cluster_role(
        "system:certificates.k8s.io:kubelet-serving-approver",
        &[Named("approve", CERTIFICATES, "signers", "kubernetes.io/kubelet-serving")],
    ),
    cluster_role(
        "system:certificates.k8s.io:legacy-unknown-approver",
        &[Named("approve", CERTIFICATES, "signers", "kubernetes.io/legacy-unknown")],
    ),
    cluster_role(
        "system:service-account-issuer-discovery",
        &[Paths(
            "get",
            "/.well-known/openid-configuration /.well-known/openid-configuration/ /openid/v1/jwks /openid/v1/jwks/",
        )],
    ),
    // The network of a node's pods has to know where other nodes are.
    cluster_role("system:minik8s:node-network", &[On(READ, "core", "nodes")]),
    // Who may speak to whom depends on all pods, and nodes are not to read those of others: bound to nobody, it is for
    // an administrator to give it to nodes.
    cluster_role(
        "system:minik8s:network-policy",
        &[On(READ, "core", "namespaces pods"), On(READ, "networking.k8s.io", "networkpolicies")],
    ),
    // Whoever joins has to find out which cluster it is, before it is known.
    role("kube-public", "system:minik8s:cluster-info", &[Named("get", "core", "configmaps", "cluster-info")]),
    role(
        "kube-system",
        "extension-apiserver-authentication-reader",
        &[Named(READ, "core", "configmaps", "extension-apiserver-authentication")],
    ),
    role(
        "kube-system",
        "system::leader-locking-kube-controller-manager",
        &[
            On("watch", "core", "configmaps"),
            Named("get update", "core", "configmaps", "kube-controller-manager"),
        ],
    ),
    role(
        "kube-system",
        "system::leader-locking-kube-scheduler",
        &[On("watch", "core", "configmaps"), Named("get update", "core", "configmaps", "kube-scheduler")],
    ),
];

const EDIT: &[Rule] = &[
    On(READ, "core", "pods/attach pods/exec pods/portforward pods/proxy secrets services/proxy"),
    On("impersonate", "core", "serviceaccounts"),
    On(WRITE, "core", "pods pods/attach pods/exec pods/portforward pods/proxy"),
    On("create", "core", "pods/eviction"),
    On(
        WRITE,
        "core",
        "configmaps events persistentvolumeclaims replicationcontrollers replicationcontrollers/scale secrets \
         serviceaccounts services services/proxy",
    ),
    On("create", "core", "serviceaccounts/token"),
    On(
        WRITE,
        "apps",
        "daemonsets deployments deployments/rollback deployments/scale replicasets replicasets/scale statefulsets \
         statefulsets/scale",
    ),
    On(WRITE, "autoscaling", "horizontalpodautoscalers"),
    On(WRITE, "batch", "cronjobs jobs"),
    On(WRITE, "policy", "poddisruptionbudgets"),
    On(WRITE, "networking.k8s.io", "ingresses networkpolicies"),
    On(READ_WRITE, "coordination.k8s.io", "leases"),
];

const VIEW: &[Rule] = &[
    On(
        READ,
        "core",
        "configmaps endpoints persistentvolumeclaims persistentvolumeclaims/status pods replicationcontrollers \
         replicationcontrollers/scale serviceaccounts services services/status",
    ),
    On(
        READ,
        "core",
        "bindings events limitranges namespaces/status pods/log pods/status replicationcontrollers/status \
         resourcequotas resourcequotas/status",
    ),
    On(READ, "core", "namespaces"),
    On(READ, "discovery.k8s.io", "endpointslices"),
    On(
        READ,
        "apps",
        "controllerrevisions daemonsets daemonsets/status deployments deployments/scale deployments/status \
         replicasets replicasets/scale replicasets/status statefulsets statefulsets/scale statefulsets/status",
    ),
    On(READ, "autoscaling", "horizontalpodautoscalers horizontalpodautoscalers/status"),
    On(READ, "batch", "cronjobs cronjobs/status jobs jobs/status"),
    On(READ, "policy", "poddisruptionbudgets poddisruptionbudgets/status"),
    On(READ, "networking.k8s.io", "ingresses ingresses/status networkpolicies"),
];

const AUTHENTICATED: (&str, &str) = ("Group", "system:authenticated");
/// Those who show a bootstrap token.
const BOOTSTRAPPERS: (&str, &str) = ("Group", "system:bootstrappers");
const SCHEDULER: (&str, &str) = ("User", "system:kube-scheduler");
const CONTROLLER_MANAGER: (&str, &str) = ("User", "system:kube-controller-manager");

/// The default bindings.
pub(super) const BINDINGS: &[DefaultBinding] = &[
    bound("cluster-admin", &[("Group", super::MASTERS)]),
    bound("system:monitoring", &[("Group", "system:monitoring")]),
    bound("system:discovery", &[AUTHENTICATED]),
    bound("system:basic-user", &[AUTHENTICATED]),
    bound("system:public-info-viewer", &[AUTHENTICATED, ("Group", "system:unauthenticated")]),
    // The node authorizer allows what nodes do, and less than this role.
    bound("system:node", &[]),
    bound("system:node-proxier", &[("User", "system:kube-proxy")]),
    bound("system:kube-controller-manager", &[CONTROLLER_MANAGER]),
    bound("system:kube-dns", &[("ServiceAccount", "kube-system/kube-dns")]),
    bound("system:kube-scheduler", &[SCHEDULER]),
    bound("system:volume-scheduler", &[SCHEDULER]),
    bound("system:service-account-issuer-discovery", &[("Group", "system:serviceaccounts")]),
    // How machines join, and go on.
    DefaultBinding {
        namespace: "",
        name: "system:minik8s:bootstrappers-ask-for-certificates",
        role: "system:node-bootstrapper",
        subjects: &[BOOTSTRAPPERS],
    },
    DefaultBinding {
        namespace: "",
        name: "system:minik8s:bootstrappers-become-nodes",
        role: "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
        subjects: &[BOOTSTRAPPERS],
    },
    DefaultBinding {
        namespace: "",
        name: "system:minik8s:nodes-renew-certificates",
        role: "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
        subjects: &[("Group", "system:nodes")],
    },
    DefaultBinding {
        namespace: "",
        name: "system:minik8s:node-network",
        role: "system:minik8s:node-network",
        subjects: &[("Group", "system:nodes")],
    },
    DefaultBinding {
        namespace: "kube-public",
        name: "system:minik8s:cluster-info",
        role: "system:minik8s:cluster-info",
        subjects: &[("User", "system:anonymous"), AUTHENTICATED],
    },
    DefaultBinding {
        namespace: "kube-system",
        name: "system::extension-apiserver-authentication-reader",
        role: "extension-apiserver-authentication-reader",
        subjects: &[CONTROLLER_MANAGER, SCHEDULER],
    },
    DefaultBinding {
        namespace: "kube-system",
        name: "system::leader-locking-kube-controller-manager",
        role: "system::leader-locking-kube-controller-manager",
        subjects: &[CONTROLLER_MANAGER],
    },
    DefaultBinding {
        namespace: "kube-system",
        name: "system::leader-locking-kube-scheduler",
        role: "system::leader-locking-kube-scheduler",
        subjects: &[SCHEDULER],
    },
];
