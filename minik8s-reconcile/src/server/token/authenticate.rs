//! Who shows a token.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::claims::{Bound, Claims, Reference, user_name};
use crate::error::ApiError;
use crate::request::User;
use crate::server::ApiServer;

/// What is being deleted counts as gone that long after its end, as clocks differ.
const LEEWAY: SignedDuration = SignedDuration::from_secs(60);
/// A token may be dated that far ahead, as clocks differ.
const SKEW_S: i64 = 60;

/// Somebody who is known.
pub(in crate::server) struct Authenticated {
    pub(in crate::server) user: User,
    /// For which of the audiences the token is.
    pub(in crate::server) audiences: Vec<String>,
}

impl ApiServer {
    /// Who shows `token`, which must be for the server itself.
    ///
    /// # Errors
    /// 401, if the token is not good or no tokens are issued here; and when the storage does not answer.
    pub async fn bearer(&self, token: &str) -> Result<User, ApiError> {
        match self.authenticate(token, &[]).await? {
            Ok(known) => Ok(known.user),
            Err(why) => {
                tracing::debug!(why, "a token is refused");
                Err(ApiError::unauthorized())
            }
        }
    }

    /// Answers a TokenReview.
    pub(in crate::server) async fn review_token(&self, review: &mut TokenReview) -> Result<(), ApiError> {
        let wanted = review.spec.audiences.clone().unwrap_or_default();
        review.status = Some(match self.authenticate(&review.spec.token, &wanted).await? {
            Ok(known) => TokenReviewStatus {
                authenticated: Some(true),
                audiences: Some(known.audiences),
                user: Some(crate::server::review::user_info(&known.user)),
                error: None,
            },
            Err(why) => TokenReviewStatus {
                authenticated: Some(false),
                error: Some(why.to_owned()),
                ..TokenReviewStatus::default()
            },
        });
        Ok(())
    }

    /// Who shows `token`, which must be for one of `audiences`; for the server itself, if there are none. The inner
    /// error says what is wrong with the token.
    async fn authenticate(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<Result<Authenticated, &'static str>, ApiError> {
        let Some(tokens) = &self.tokens else { return Ok(Err("invalid bearer token")) };
        #[cfg(feature = "tls")]
        if let Some(parts) = super::bootstrap::parts(token) {
            // Such a token is for the server alone.
            let own = tokens.own_audiences();
            let audiences = if audiences.is_empty() { own.clone() } else { audiences.to_vec() };
            let audiences: Vec<_> = audiences.into_iter().filter(|a| own.contains(a)).collect();
            if audiences.is_empty() {
                return Ok(Err("token audiences do not match"));
            }
            return Ok(self.bootstrap_user(parts).await?.map(|user| Authenticated { user, audiences }));
        }
        let Some(claims) = tokens.read(token) else { return Ok(Err("invalid bearer token")) };
        let own = tokens.own_audiences();
        let wanted = if audiences.is_empty() { &own } else { audiences };
        let audiences: Vec<String> = wanted.iter().filter(|a| claims.aud.contains(a)).cloned().collect();
        if audiences.is_empty() {
            return Ok(Err("token audiences do not match"));
        }
        let now = self.clock.now();
        if now.as_second() >= claims.exp {
            return Ok(Err("service account token has expired"));
        }
        if now.as_second() + SKEW_S < claims.nbf {
            return Ok(Err("service account token is not valid yet"));
        }
        if let Some(gone) = self.gone(&claims.bound, now).await? {
            return Ok(Err(gone));
        }
        Ok(Ok(Authenticated { user: user(&claims), audiences }))
    }

    /// What the token is bound to that does not exist any more.
    async fn gone(&self, bound: &Bound, now: Timestamp) -> Result<Option<&'static str>, ApiError> {
        let namespaced = |shard: &str, of: &Reference| format!("{shard}/{}/{}", bound.namespace, of.name);
        let account = namespaced("serviceaccounts", &bound.serviceaccount);
        let pod = bound.pod.as_ref().map(|pod| (namespaced("pods", pod), pod));
        let secret = bound.secret.as_ref().map(|secret| (namespaced("secrets", secret), secret));
        // The node of a pod's token is a remark; the token goes with the pod.
        let node = bound.node.as_ref().filter(|_| pod.is_none());
        let node = node.map(|node| (format!("nodes/{}", node.name), node));
        let all = [
            (Some((account, &bound.serviceaccount)), "service account has been deleted"),
            (pod, "pod has been deleted"),
            (secret, "secret has been deleted"),
            (node, "node has been deleted"),
        ];
        for (object, gone) in all {
            if let Some((key, reference)) = object
                && !self.is_there(&key, &reference.uid, now).await?
            {
                return Ok(Some(gone));
            }
        }
        Ok(None)
    }

    async fn is_there(&self, key: &str, uid: &str, now: Timestamp) -> Result<bool, ApiError> {
        let Some(stored) = self.storage.get(key).await? else { return Ok(false) };
        let metadata: ObjectMeta = stored.metadata().map_err(ApiError::internal)?;
        let ended = |at: &Timestamp| at.saturating_add(LEEWAY).is_ok_and(|end| end < now);
        let ending = metadata.deletion_timestamp.is_some_and(|at| ended(&at.0));
        Ok(!ending && metadata.uid.as_deref() == Some(uid))
    }
}

/// The user that the token is of.
fn user(claims: &Claims) -> User {
    let Bound { namespace, serviceaccount, pod, node, .. } = &claims.bound;
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut note = |key: &str, value: String| {
        extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value]);
    };
    note("credential-id", format!("JTI={}", claims.jti));
    for (what, reference) in [("pod", pod), ("node", node)] {
        if let Some(Reference { name, uid }) = reference {
            note(&format!("{what}-name"), name.clone());
            note(&format!("{what}-uid"), uid.clone());
        }
    }
    let groups = vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
    User {
        uid: serviceaccount.uid.as_str().into(),
        extra: extra.into(),
        ..User::authenticated(&user_name(namespace, &serviceaccount.name), groups)
    }
}
