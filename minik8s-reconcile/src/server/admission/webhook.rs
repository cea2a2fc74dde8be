//! MutatingAdmissionWebhook and ValidatingAdmissionWebhook: admission by others, over HTTPS
//! (<https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/>).

mod answer;

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration, WebhookClientConfig,
};
use minik8s_api::{DecodeError, Object, Unstructured};
use serde_json::{Value, json};

use self::answer::{Reply, Verdict};
use super::conditions::{Conditions, Facts};
use super::known::Known;
use super::matching::{Match, Matcher, is_exempt};
use super::{Notes, Request, review};
use crate::error::ApiError;
use crate::server::call;
use crate::stored::Stored;

/// How long a webhook may take that does not say.
const TIMEOUT_S: i32 = 10;

/// A webhook, ready to be asked.
#[derive(Clone, Debug)]
pub(in crate::server) struct Hook {
    /// The configuration that it is in.
    configuration: String,
    name: String,
    client: WebhookClientConfig,
    matcher: Matcher,
    conditions: Conditions,
    /// Whether a failure of the webhook is none of the request's.
    ignores_failures: bool,
    /// Whether it may be asked in a dry run.
    harmless: bool,
    timeout: Duration,
    /// Whether it wants to see what others have changed after it.
    again: bool,
    /// Whether it speaks the version of the protocol that is spoken here.
    speaks_v1: bool,
}

macro_rules! hook {
    ($configuration:expr, $webhook:expr, $again:expr) => {{
        let w = $webhook;
        Hook {
            configuration: $configuration.metadata.name.clone().unwrap_or_default(),
            name: w.name.clone(),
            client: w.client_config.clone(),
            matcher: Matcher::of_webhook(
                w.rules.as_ref(),
                w.match_policy.as_deref(),
                w.namespace_selector.as_ref(),
                w.object_selector.as_ref(),
            ),
            conditions: Conditions::compile(w.match_conditions.as_ref()),
            ignores_failures: w.failure_policy.as_deref() == Some("Ignore"),
            harmless: matches!(w.side_effects.as_str(), "None" | "NoneOnDryRun"),
            timeout: Duration::from_secs(w.timeout_seconds.unwrap_or(TIMEOUT_S).clamp(1, 30) as u64),
            again: $again,
            speaks_v1: w.admission_review_versions.iter().any(|v| v == "v1"),
        }
    }};
}

/// The webhooks of a configuration.
pub(super) fn mutating(stored: &Stored) -> Result<Arc<Vec<Hook>>, DecodeError> {
    let configuration = stored.typed::<MutatingWebhookConfiguration>()?;
    let hooks = configuration.webhooks.iter().flatten();
    let again = |policy: &Option<String>| policy.as_deref() == Some("IfNeeded");
    Ok(Arc::new(hooks.map(|w| hook!(configuration, w, again(&w.reinvocation_policy))).collect()))
}

/// The webhooks of a configuration.
pub(super) fn validating(stored: &Stored) -> Result<Arc<Vec<Hook>>, DecodeError> {
    let configuration = stored.typed::<ValidatingWebhookConfiguration>()?;
    Ok(Arc::new(configuration.webhooks.iter().flatten().map(|w| hook!(configuration, w, false)).collect()))
}

/// What a round of webhooks that change has seen.
#[derive(Default)]
pub(super) struct Round {
    /// What each webhook that wants to know left behind.
    left: Vec<(Hook, Value)>,
}

/// Lets webhooks change the object, one after the other, and says whether any did.
pub(super) fn mutate<'a>(
    known: &'a Known,
    request: &'a mut Request<'_>,
    notes: &'a mut Notes,
    round: &'a mut Round,
) -> BoxFuture<'a, Result<bool, ApiError>> {
    Box::pin(first_round(known, request, notes, round))
}

async fn first_round(
    known: &Known,
    request: &mut Request<'_>,
    notes: &mut Notes,
    round: &mut Round,
) -> Result<bool, ApiError> {
    if is_exempt(request) {
        return Ok(false);
    }
    let Some(configurations) = known.mutating.all() else { return Ok(false) };
    let mut changed = false;
    let mut index = 0;
    for hook in configurations.values().flat_map(|hooks| hooks.iter()) {
        let Some(Asked { review, kind }) = hook.question(request).await? else { continue };
        let reply = hook.ask(request, &review, notes, "mutating", index).await?;
        if let Some(reply) = reply {
            changed |= hook.take(request, &kind, reply, notes, (0, index)).await?;
        }
        index += 1;
        if hook.again {
            let left = request.object().map(Object::to_value).unwrap_or_default();
            round.left.push((hook.clone(), left));
        }
    }
    Ok(changed)
}

/// Asks those again that want to know what others have changed since.
pub(super) fn mutate_again<'a>(
    request: &'a mut Request<'_>,
    notes: &'a mut Notes,
    round: Round,
) -> BoxFuture<'a, Result<bool, ApiError>> {
    Box::pin(second_round(request, notes, round))
}

async fn second_round(request: &mut Request<'_>, notes: &mut Notes, round: Round) -> Result<bool, ApiError> {
    let mut changed = false;
    for (index, (hook, left)) in round.left.into_iter().enumerate() {
        let now = request.object().map(Object::to_value).unwrap_or_default();
        if now == left {
            continue;
        }
        let Some(Asked { review, kind }) = hook.question(request).await? else { continue };
        if let Some(reply) = hook.ask(request, &review, notes, "mutating", index).await? {
            changed |= hook.take(request, &kind, reply, notes, (1, index)).await?;
        }
    }
    Ok(changed)
}

/// Asks all webhooks at once whether the object may be written.
pub(super) fn validate<'a>(
    known: &'a Known,
    request: &'a Request<'_>,
    notes: &'a mut Notes,
) -> BoxFuture<'a, Result<(), ApiError>> {
    Box::pin(ask_all(known, request, notes))
}

async fn ask_all(known: &Known, request: &Request<'_>, notes: &mut Notes) -> Result<(), ApiError> {
    if is_exempt(request) {
        return Ok(());
    }
    let Some(configurations) = known.validating.all() else { return Ok(()) };
    let mut asked = Vec::new();
    for hook in configurations.values().flat_map(|hooks| hooks.iter()) {
        if let Some(question) = hook.question(request).await? {
            asked.push((hook, question));
        }
    }
    let mut calls: Vec<BoxFuture<'_, (Notes, Result<(), ApiError>)>> = Vec::new();
    for (index, (hook, question)) in asked.iter().enumerate() {
        calls.push(Box::pin(hook.verdict(request, &question.review, index)));
    }
    let mut first = Ok(());
    for (own, refused) in futures::future::join_all(calls).await {
        notes.extend(own);
        first = first.and(refused);
    }
    first
}

/// A question to a webhook.
struct Asked {
    review: Value,
    /// In whose terms it is asked.
    kind: Arc<minik8s_api::Kind>,
}

impl Hook {
    /// What to ask, if anything.
    async fn question(&self, request: &Request<'_>) -> Result<Option<Asked>, ApiError> {
        let Some(Match { kind }) = self.matcher.rules(request) else { return Ok(None) };
        if !self.matcher.selects(request).await? {
            return Ok(None);
        }
        let mut facts = Facts {
            request: review::request(request, &kind),
            object: review::in_version(request, request.object(), &kind).await?,
            old: review::in_version(request, request.old(), &kind).await?,
            namespace: Value::Null,
            params: Value::Null,
        };
        if !self.conditions.is_empty() {
            let meant = self.conditions.hold(&mut facts.bind(request));
            match meant {
                Ok(true) => {}
                Ok(false) => return Ok(None),
                Err(error) if self.ignores_failures => {
                    tracing::warn!(webhook = self.name, %error, "a match condition fails");
                    return Ok(None);
                }
                Err(error) => return Err(request.forbidden(error)),
            }
        }
        if request.is_dry_run() && !self.harmless {
            return Err(ApiError::bad_request(format!(
                "admission webhook {:?} does not support dry run",
                self.name
            )));
        }
        let mut review = std::mem::take(&mut facts.request);
        review["uid"] = request.server.rng.uid().into();
        review["object"] = facts.object;
        review["oldObject"] = facts.old;
        let review =
            json!({ "kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": review });
        Ok(Some(Asked { review, kind }))
    }

    /// Asks. `None` if the webhook failed and that does not matter.
    async fn ask(
        &self,
        request: &Request<'_>,
        review: &Value,
        notes: &mut Notes,
        sort: &str,
        index: usize,
    ) -> Result<Option<Reply>, ApiError> {
        let uid = review.pointer("/request/uid").and_then(Value::as_str).unwrap_or_default();
        let asked = async {
            if !self.speaks_v1 {
                return Err(
                    "it accepts no version of AdmissionReview that this server speaks (v1)".to_owned()
                );
            }
            let body = review.to_string();
            let text = call::call(request.server, &self.client, self.timeout, body.into()).await?;
            Reply::read(&text, uid)
        };
        match asked.await {
            Ok(reply) => Ok(Some(reply)),
            Err(why) if self.ignores_failures => {
                tracing::warn!(webhook = self.name, why, "failed, which its policy ignores");
                let key = format!("failed-open.{sort}.webhook.admission.k8s.io/round_0_index_{index}");
                notes.annotate(key, &self.name);
                Ok(None)
            }
            Err(why) => Err(ApiError::internal(format!("failed calling webhook {:?}: {why}", self.name))),
        }
    }

    /// Asks whether the object may be written.
    async fn verdict(
        &self,
        request: &Request<'_>,
        review: &Value,
        index: usize,
    ) -> (Notes, Result<(), ApiError>) {
        let mut notes = Notes::default();
        let refused = match self.ask(request, review, &mut notes, "validating", index).await {
            Ok(Some(reply)) => self.judge(&reply, &mut notes),
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        (notes, refused)
    }

    /// What the webhook said, apart from patches.
    fn judge(&self, reply: &Reply, notes: &mut Notes) -> Result<(), ApiError> {
        for warning in &reply.warnings {
            notes.warn(warning);
        }
        for (key, value) in &reply.annotations {
            notes.annotate(format!("{}/{key}", self.name), value);
        }
        match &reply.verdict {
            Verdict::Allowed => Ok(()),
            Verdict::Denied { code, message } => Err(refusal(&self.name, *code, message)),
        }
    }

    /// Does to the object what the webhook said, and says whether that changed it.
    async fn take(
        &self,
        request: &mut Request<'_>,
        kind: &Arc<minik8s_api::Kind>,
        reply: Reply,
        notes: &mut Notes,
        (round, index): (usize, usize),
    ) -> Result<bool, ApiError> {
        self.judge(&reply, notes)?;
        let patch = reply.patch.filter(|p| p.as_array().is_none_or(|ops| !ops.is_empty()));
        let said = json!({
            "configuration": self.configuration, "webhook": self.name, "mutated": patch.is_some(),
        });
        notes.annotate(
            format!("mutation.webhook.admission.k8s.io/round_{round}_index_{index}"),
            said.to_string(),
        );
        let Some(patch) = patch else { return Ok(false) };
        let wrong = |e: &dyn std::fmt::Display| ApiError::internal(format!("webhook {:?}: {e}", self.name));
        let own = request.kind().clone();
        let before = review::in_version(request, request.object(), kind).await?;
        if before.is_null() {
            return Err(wrong(&"there is no object to patch"));
        }
        let after = minik8s_api::patch::json::apply(&before, &patch).map_err(|e| wrong(&e))?;
        if after == before {
            return Ok(false);
        }
        let typed = request.object().is_some_and(|o| own.owns(o));
        let object: Box<dyn Object> = if typed {
            let mut object = kind.decode_value(&after).map_err(|e| wrong(&e))?.object;
            if !Arc::ptr_eq(kind, &own) {
                let back = request.server.in_version(&*object, kind, &own).await?;
                object = own.decode_value(&back).map_err(|e| wrong(&e))?.object;
            }
            own.default(&mut *object);
            object
        } else {
            Box::new(Unstructured::from_value(after, &mut Vec::new()).map_err(|e| wrong(&e))?)
        };
        request.set_object(object);
        Ok(true)
    }
}

fn refusal(webhook: &str, code: u16, message: &str) -> ApiError {
    let reason = match code {
        400 => "BadRequest",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        409 => "Conflict",
        422 => "Invalid",
        429 => "TooManyRequests",
        500 => "InternalError",
        503 => "ServiceUnavailable",
        _ => "",
    };
    let by = format!("admission webhook {webhook:?} denied the request");
    let message =
        if message.is_empty() { format!("{by} without explanation") } else { format!("{by}: {message}") };
    ApiError::new(code, reason, message)
}

#[cfg(all(test, feature = "tls"))]
mod tests;
