//! Groups `networking.k8s.io` and `discovery.k8s.io`.

use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{IPAddress, Ingress, IngressClass, NetworkPolicy, ServiceCIDR};

use crate::kind::Kind;

pub(super) fn kinds() -> Vec<Kind> {
    vec![
        Kind::of::<Ingress>()
            .short_names(&["ing"])
            .status()
            .prepare_for_create(|i| i.status = Some(Default::default()))
            .schema()
            .build(),
        Kind::of::<IngressClass>().generation(true).schema().build(),
        Kind::of::<NetworkPolicy>()
            .short_names(&["netpol"])
            .generation(true)
            .schema()
            .build(),
        Kind::of::<IPAddress>().short_names(&["ip"]).schema().build(),
        Kind::of::<ServiceCIDR>()
            .status()
            .generation(false)
            .prepare_for_create(|s| s.status = Some(Default::default()))
            .schema()
            .build(),
        Kind::of::<EndpointSlice>().generation(true).schema().build(),
    ]
}
