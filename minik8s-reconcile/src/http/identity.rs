//! Who a request is from, and on whose behalf.

use std::collections::BTreeMap;

use http::HeaderMap;
use percent_encoding::percent_decode_str;

use super::Frontend;
use crate::error::ApiError;
use crate::request::User;
use crate::server::authorizer::Action;

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";
/// The group in which the rights to impersonate uids and extras are.
const AUTHENTICATION: &str = "authentication.k8s.io";

/// Who a request is from.
pub(super) struct Identified {
    /// Who sent it.
    pub(super) sender: User,
    /// Whose rights count: those of the sender, or of somebody on whose behalf it is.
    pub(super) user: User,
}

impl Frontend {
    /// Whose rights count for the request that `sender` sent; this process itself if nothing says who.
    ///
    /// # Errors
    /// 401, if it shows a token that is not good; 403, if it is on behalf of somebody on whose behalf its sender must not act.
    pub(super) async fn identify(
        &self,
        sender: Option<User>,
        headers: &HeaderMap,
    ) -> Result<Identified, ApiError> {
        let sender = match (bearer(headers), sender) {
            (None, sender) => sender.unwrap_or_else(User::internal),
            // A certificate says who somebody is, whatever else they say.
            (Some(_), Some(sender)) if !sender.is_anonymous() && sender != User::internal() => sender,
            (Some(token), _) if self.server.tokens().is_some() => self.server.bearer(token).await?,
            // Who shows something that cannot be checked is not nobody.
            (Some(_), Some(sender)) if sender.is_anonymous() => return Err(ApiError::unauthorized()),
            (Some(_), sender) => sender.unwrap_or_else(User::internal),
        };
        let user = match wanted(headers)? {
            None => sender.clone(),
            Some(wanted) => self.impersonate(&sender, wanted).await?,
        };
        Ok(Identified { sender, user })
    }

    async fn impersonate(&self, sender: &User, wanted: User) -> Result<User, ApiError> {
        let account = service_account(&wanted.name);
        let (resource, namespace, name) = match account {
            Some((namespace, name)) => ("serviceaccounts", namespace, name),
            None => ("users", "", &*wanted.name),
        };
        self.may_impersonate(sender, "", (resource, ""), namespace, name).await?;
        for group in &*wanted.groups {
            self.may_impersonate(sender, "", ("groups", ""), "", group).await?;
        }
        if !wanted.uid.is_empty() {
            self.may_impersonate(sender, AUTHENTICATION, ("uids", ""), "", &wanted.uid).await?;
        }
        for (key, values) in &*wanted.extra {
            for value in values {
                self.may_impersonate(sender, AUTHENTICATION, ("userextras", key), "", value).await?;
            }
        }
        let mut groups = wanted.groups.to_vec();
        if let (Some((namespace, _)), true) = (account, groups.is_empty()) {
            groups.push("system:serviceaccounts".to_owned());
            groups.push(format!("system:serviceaccounts:{namespace}"));
        }
        let (in_, out) = ("system:authenticated", "system:unauthenticated");
        if !groups.iter().any(|g| g == in_ || g == out) {
            groups.push(if &*wanted.name == "system:anonymous" { out } else { in_ }.to_owned());
        }
        tracing::debug!(sender = %sender.name, user = %wanted.name, "impersonation");
        Ok(User { groups: groups.into(), ..wanted })
    }

    async fn may_impersonate(
        &self,
        sender: &User,
        group: &str,
        (resource, subresource): (&str, &str),
        namespace: &str,
        name: &str,
    ) -> Result<(), ApiError> {
        let action = Action::Resource {
            verb: "impersonate",
            group,
            version: "v1",
            resource,
            subresource,
            namespace,
            name,
            field_selector: "",
        };
        self.server.permit(sender, &action).await
    }
}

/// The token that the headers show.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(http::header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// The namespace and name of the service account that the user is.
fn service_account(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    (!namespace.is_empty() && !name.is_empty() && !name.contains(':')).then_some((namespace, name))
}

/// On whose behalf the request is, if on another's.
fn wanted(headers: &HeaderMap) -> Result<Option<User>, ApiError> {
    // What cannot be read must not be taken for what is not there.
    let text = |value: &http::HeaderValue| match std::str::from_utf8(value.as_bytes()) {
        Ok(text) => Ok(text.to_owned()),
        Err(_) => Err(ApiError::bad_request("a header of impersonation is not UTF-8")),
    };
    let name = headers.get(USER).map(text).transpose()?;
    if name.as_deref() == Some("") {
        return Err(ApiError::bad_request("Impersonate-User is empty"));
    }
    let name = name.unwrap_or_default();
    let groups = headers.get_all(GROUP).iter().map(text).collect::<Result<Vec<_>, _>>()?;
    let uid = headers.get(UID).map(text).transpose()?.unwrap_or_default();
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (header, value) in headers {
        if let Some(key) = header.as_str().strip_prefix(EXTRA) {
            let key = percent_decode_str(key).decode_utf8_lossy().to_lowercase();
            extra.entry(key).or_default().push(text(value)?);
        }
    }
    if name.is_empty() {
        if groups.is_empty() && uid.is_empty() && extra.is_empty() {
            return Ok(None);
        }
        return Err(ApiError::internal(
            "requested groups, a uid or extras without impersonating a user name",
        ));
    }
    Ok(Some(User { name: name.into(), uid: uid.into(), groups: groups.into(), extra: extra.into() }))
}

#[cfg(test)]
mod tests;
