//! Groups `authentication.k8s.io` and `authorization.k8s.io`: questions that are answered and never stored.

use k8s_openapi::api::authentication::v1::{SelfSubjectReview, TokenReview};
use k8s_openapi::api::authorization::v1::{
    LocalSubjectAccessReview, SelfSubjectAccessReview, SelfSubjectRulesReview, SubjectAccessReview,
};

use crate::kind::Kind;

pub(super) fn kinds() -> Vec<Kind> {
    vec![
        Kind::of::<SelfSubjectReview>().not_stored().schema().build(),
        Kind::of::<TokenReview>().not_stored().schema().build(),
        Kind::of::<SelfSubjectAccessReview>().not_stored().schema().build(),
        Kind::of::<SelfSubjectRulesReview>().not_stored().schema().build(),
        Kind::of::<SubjectAccessReview>().not_stored().schema().build(),
        Kind::of::<LocalSubjectAccessReview>().not_stored().schema().build(),
    ]
}
