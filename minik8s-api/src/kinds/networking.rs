//! Groups `networking.k8s.io` and `discovery.k8s.io`.

use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{IPAddress, Ingress, IngressClass, NetworkPolicy, ServiceCIDR};

use crate::default::network;
use crate::kind::Kind;
use crate::table::network as table;
use crate::validate::network as validate;

pub(super) fn kinds() -> Vec<Kind> {
    vec![
        Kind::of::<Ingress>()
            .validate(validate::ingress)
            .table(table::ingress_columns(), table::ingress)
            .short_names(&["ing"])
            .status()
            .prepare_for_create(|i| i.status = Some(Default::default()))
            .schema()
            .build(),
        Kind::of::<IngressClass>()
            .table(table::ingress_class_columns(), table::ingress_class)
            .generation(true)
            .schema()
            .build(),
        Kind::of::<NetworkPolicy>()
            .defaults(network::policy)
            .validate(validate::policy)
            .table(table::policy_columns(), table::policy)
            .short_names(&["netpol"])
            .generation(true)
            .schema()
            .build(),
        Kind::of::<IPAddress>()
            .table(table::ip_address_columns(), table::ip_address)
            .short_names(&["ip"])
            .schema()
            .build(),
        Kind::of::<ServiceCIDR>()
            .table(table::cidr_columns(), table::cidr)
            .status()
            .generation(false)
            .prepare_for_create(|s| s.status = Some(Default::default()))
            .schema()
            .build(),
        Kind::of::<EndpointSlice>()
            .defaults(network::slice)
            .validate(validate::slice)
            .validate_update(validate::slice_update)
            .table(table::slice_columns(), table::slice)
            .generation(true)
            .schema()
            .build(),
    ]
}
