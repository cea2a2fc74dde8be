//! Questions that are answered on the spot: who am I, what may I do.

use std::collections::BTreeMap;

use k8s_openapi::api::authentication::v1::{
    SelfSubjectReview, SelfSubjectReviewStatus, TokenReview, UserInfo,
};
use k8s_openapi::api::authorization::v1::{
    LocalSubjectAccessReview, NonResourceAttributes, ResourceAttributes, SelfSubjectAccessReview,
    SelfSubjectRulesReview, SubjectAccessReview, SubjectAccessReviewSpec, SubjectAccessReviewStatus,
};
use k8s_openapi::api::core::v1::Binding;
use minik8s_api::{FieldErrors, FieldPath, Object};

use super::authorizer::Action;
use super::key::Scope;
use super::{ApiServer, encoding};
use crate::error::ApiError;
use crate::request::{ApiResponse, Notes, Payload, ResponseBody, User, WriteParams};
use crate::stored::Stored;

impl ApiServer {
    /// Answers an object that is not stored.
    pub(super) async fn review(
        &self,
        scope: &Scope,
        payload: Payload,
        params: &WriteParams,
    ) -> Result<ApiResponse, ApiError> {
        let mut warnings = Vec::new();
        let mut object = encoding::read(&scope.kind, payload, params.field_validation, &mut warnings)?;
        if let Some(binding) = object.downcast_ref::<Binding>() {
            let registry = self.registry();
            let pods = registry.by_path("", "v1", "pods").ok_or_else(ApiError::no_such_resource)?;
            let pods = Scope { kind: pods.clone(), ..scope.clone() };
            let name = binding.metadata.name.clone().unwrap_or_default();
            return self.bind(&pods, &name, object.to_value(), params).await;
        }
        match object.downcast_mut::<TokenReview>() {
            Some(review) if review.spec.token.is_empty() => {
                return Err(ApiError::bad_request("token is required for TokenReview in authentication"));
            }
            Some(review) => self.review_token(review).await?,
            None => self.answer(scope, &mut *object)?,
        }
        let object = Stored::new(object.to_json().into(), 0);
        let notes = Notes { warnings, ..Notes::default() };
        Ok(ApiResponse::noted(ResponseBody::Object { object, created: true }, notes))
    }

    fn answer(&self, scope: &Scope, object: &mut dyn Object) -> Result<(), ApiError> {
        let user = &scope.user;
        let invalid = |errors: FieldErrors| match errors.is_empty() {
            true => Ok(()),
            false => Err(ApiError::invalid(&scope.kind, "", &errors)),
        };
        if let Some(review) = object.downcast_mut::<SelfSubjectReview>() {
            let user_info = Some(user_info(user));
            review.status = Some(SelfSubjectReviewStatus { user_info });
        } else if let Some(review) = object.downcast_mut::<SelfSubjectAccessReview>() {
            let spec = &review.spec;
            let parts = (spec.resource_attributes.as_ref(), spec.non_resource_attributes.as_ref());
            invalid(one_of(parts))?;
            review.status = Some(self.may(user, parts));
        } else if let Some(review) = object.downcast_mut::<SubjectAccessReview>() {
            invalid(subject(&review.spec))?;
            review.status = Some(self.may_somebody(&review.spec));
        } else if let Some(review) = object.downcast_mut::<LocalSubjectAccessReview>() {
            let mut errors = subject(&review.spec);
            let here = scope.namespace.as_deref().unwrap_or_default();
            let spec = FieldPath::new("spec");
            match &review.spec.resource_attributes {
                Some(attributes) if attributes.namespace.as_deref() != Some(here) => {
                    let path = spec.child("resourceAttributes").child("namespace");
                    errors.invalid(path, &attributes.namespace, "must match metadata.namespace");
                }
                _ => {}
            }
            if review.spec.non_resource_attributes.is_some() {
                let path = spec.child("nonResourceAttributes");
                errors.forbidden(path, "disallowed on this kind of request");
            }
            invalid(errors)?;
            review.metadata.namespace = Some(here.to_owned());
            review.status = Some(self.may_somebody(&review.spec));
        } else if let Some(review) = object.downcast_mut::<SelfSubjectRulesReview>() {
            let namespace = review.spec.namespace.as_deref().unwrap_or_default();
            if namespace.is_empty() {
                return Err(ApiError::bad_request("no namespace on request"));
            }
            review.status = Some(self.authorizer.rules(user, namespace));
        } else {
            return Err(ApiError::no_such_resource());
        }
        Ok(())
    }

    fn may_somebody(&self, spec: &SubjectAccessReviewSpec) -> SubjectAccessReviewStatus {
        let extra: BTreeMap<_, _> = spec.extra.clone().unwrap_or_default();
        let user = User {
            name: spec.user.as_deref().unwrap_or_default().into(),
            uid: spec.uid.as_deref().unwrap_or_default().into(),
            groups: spec.groups.clone().unwrap_or_default().into(),
            extra: extra.into(),
        };
        self.may(&user, (spec.resource_attributes.as_ref(), spec.non_resource_attributes.as_ref()))
    }

    fn may(&self, user: &User, parts: Parts<'_>) -> SubjectAccessReviewStatus {
        fn text(value: &Option<String>) -> &str {
            value.as_deref().unwrap_or_default()
        }
        let action = match parts {
            (Some(of), _) => Action::Resource {
                verb: text(&of.verb),
                group: text(&of.group),
                version: text(&of.version),
                resource: text(&of.resource),
                subresource: text(&of.subresource),
                namespace: text(&of.namespace),
                name: text(&of.name),
                field_selector: "",
            },
            (None, Some(of)) => Action::NonResource { verb: text(&of.verb), path: text(&of.path) },
            (None, None) => Action::NonResource { verb: "", path: "" },
        };
        let decision = self.authorizer.authorize(user, &action);
        SubjectAccessReviewStatus {
            allowed: decision.allowed,
            denied: decision.denied.then_some(true),
            evaluation_error: None,
            reason: Some(decision.reason).filter(|r| !r.is_empty()),
        }
    }
}

type Parts<'a> = (Option<&'a ResourceAttributes>, Option<&'a NonResourceAttributes>);

/// A review asks one thing.
fn one_of(parts: Parts<'_>) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let path = FieldPath::new("spec").child("resourceAttributes");
    let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
    match parts {
        (Some(of), Some(_)) => {
            errors.invalid(path, of, "cannot be specified in combination with nonResourceAttributes");
        }
        (None, None) => errors.invalid(path, (), why),
        _ => {}
    }
    errors
}

fn subject(spec: &SubjectAccessReviewSpec) -> FieldErrors {
    let mut errors = one_of((spec.resource_attributes.as_ref(), spec.non_resource_attributes.as_ref()));
    let named = spec.user.as_deref().is_some_and(|u| !u.is_empty());
    if !named && spec.groups.as_ref().is_none_or(Vec::is_empty) {
        let path = FieldPath::new("spec").child("user");
        errors.invalid(path, "", "at least one of user or group must be specified");
    }
    errors
}

pub(super) fn user_info(user: &User) -> UserInfo {
    UserInfo {
        username: Some(user.name.to_string()),
        uid: Some(user.uid.to_string()).filter(|u| !u.is_empty()),
        groups: Some(user.groups.to_vec()).filter(|g| !g.is_empty()),
        extra: Some((*user.extra).clone()).filter(|e| !e.is_empty()),
    }
}

#[cfg(test)]
mod tests;
