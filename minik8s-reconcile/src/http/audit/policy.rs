//! Of which requests how much is noted: the `Policy` of `audit.k8s.io/v1`.

use std::fmt;

use serde::Deserialize;

use crate::http::route::Place;
use crate::request::User;

/// How much of a request is noted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub enum Level {
    /// Nothing.
    #[default]
    None,
    /// Who, what and when.
    Metadata,
    /// And the object that it brings.
    Request,
    /// And the object that is answered.
    RequestResponse,
}

impl Level {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Metadata => "Metadata",
            Self::Request => "Request",
            Self::RequestResponse => "RequestResponse",
        }
    }
}

/// When something is noted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum Stage {
    /// Before the request is answered.
    #[default]
    RequestReceived,
    /// When the head of an answer has been sent that goes on for long: a watch, a log.
    ResponseStarted,
    /// When the answer is complete.
    ResponseComplete,
    /// When the server failed; answers are never given up here, so nothing is noted for it.
    Panic,
}

impl Stage {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::RequestReceived => "RequestReceived",
            Self::ResponseStarted => "ResponseStarted",
            Self::ResponseComplete => "ResponseComplete",
            Self::Panic => "Panic",
        }
    }
}

/// Why a text is no policy.
#[derive(Debug, thiserror::Error)]
#[error("{path}{message}", path = if path.is_empty() || path == "." { String::new() } else { format!("{path}: ") })]
pub struct PolicyError {
    path: String,
    message: String,
}

/// What is noted. The first rule that is about a request decides; where none is, nothing is noted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Policy {
    api_version: String,
    kind: String,
    /// Policies have metadata like all kinds, which says nothing.
    #[serde(default, rename = "metadata")]
    _metadata: serde_json::Value,
    #[serde(default)]
    rules: Vec<Rule>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    #[serde(default)]
    omit_managed_fields: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    level: Level,
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    user_groups: Vec<String>,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    resources: Vec<Resources>,
    #[serde(default)]
    namespaces: Vec<String>,
    #[serde(default, rename = "nonResourceURLs")]
    non_resource_urls: Vec<String>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    omit_managed_fields: Option<bool>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Resources {
    #[serde(default)]
    group: String,
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    resource_names: Vec<String>,
}

/// What a request is about, as far as a policy asks.
pub(in crate::http) struct About<'a> {
    pub(in crate::http) user: &'a User,
    pub(in crate::http) verb: &'a str,
    pub(in crate::http) path: &'a str,
    pub(in crate::http) place: Option<&'a Place>,
}

impl Policy {
    /// Everything is noted at `level`, but for the stage before the answer.
    pub fn everything(level: Level) -> Self {
        let rule = Rule {
            level,
            users: Vec::new(),
            user_groups: Vec::new(),
            verbs: Vec::new(),
            resources: Vec::new(),
            namespaces: Vec::new(),
            non_resource_urls: Vec::new(),
            omit_stages: Vec::new(),
            omit_managed_fields: None,
        };
        Self { rules: vec![rule], omit_stages: vec![Stage::RequestReceived], ..Self::default() }
    }

    /// Reads a policy in YAML or JSON.
    ///
    /// # Errors
    /// It is none; the error names the field.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let error = |path: String, message: String| PolicyError { path, message };
        let reader = serde_yaml::Deserializer::from_str(text);
        let policy: Self = serde_path_to_error::deserialize(reader)
            .map_err(|e| error(e.path().to_string(), e.inner().to_string()))?;
        if (policy.api_version.as_str(), policy.kind.as_str()) != ("audit.k8s.io/v1", "Policy") {
            let message = format!(
                "expected a Policy of audit.k8s.io/v1, found {} of {}",
                policy.kind, policy.api_version
            );
            return Err(error(String::new(), message));
        }
        if policy.rules.is_empty() {
            return Err(error("rules".to_owned(), "expected at least one rule".to_owned()));
        }
        for (index, rule) in policy.rules.iter().enumerate() {
            let at = |field: &str| format!("rules[{index}].{field}");
            let of_resources = !rule.resources.is_empty() || !rule.namespaces.is_empty();
            if of_resources && !rule.non_resource_urls.is_empty() {
                let message = "a rule cannot be about resources and about other URLs at once".to_owned();
                return Err(error(at("nonResourceURLs"), message));
            }
            for url in &rule.non_resource_urls {
                let inner = url.strip_suffix('*').unwrap_or(url);
                if inner.contains('*') || !(url == "*" || url.starts_with('/')) {
                    let message =
                        format!("{url:?}: expected a path that begins with /, with a * at its end at most");
                    return Err(error(at("nonResourceURLs"), message));
                }
            }
            for resources in &rule.resources {
                if resources.resources.is_empty() && !resources.resource_names.is_empty() {
                    let message = "names need resources that they are the names of".to_owned();
                    return Err(error(at("resources.resourceNames"), message));
                }
                if resources.group.contains('/') {
                    let message = format!("{:?}: expected a group without its version", resources.group);
                    return Err(error(at("resources.group"), message));
                }
            }
        }
        Ok(policy)
    }

    /// How much is noted, in which stages nothing is, and whether `managedFields` are.
    pub(super) fn of(&self, about: &About<'_>) -> (Level, Vec<Stage>, bool) {
        let Some(rule) = self.rules.iter().find(|rule| rule.is_about(about)) else {
            return (Level::None, Vec::new(), true);
        };
        let omitted = [&self.omit_stages[..], &rule.omit_stages[..]].concat();
        (rule.level, omitted, !rule.omit_managed_fields.unwrap_or(self.omit_managed_fields))
    }

    /// How much is noted of those who are not let in.
    pub(super) fn of_strangers(&self) -> (Level, Vec<Stage>) {
        (Level::Metadata, self.omit_stages.clone())
    }
}

impl Rule {
    fn is_about(&self, about: &About<'_>) -> bool {
        let among = |texts: &[String], text: &str| texts.is_empty() || texts.iter().any(|t| t == text);
        let in_group = || about.user.groups.iter().any(|group| self.user_groups.contains(group));
        if !among(&self.users, &about.user.name)
            || !(self.user_groups.is_empty() || in_group())
            || !among(&self.verbs, about.verb)
        {
            return false;
        }
        let of_resources = !self.resources.is_empty() || !self.namespaces.is_empty();
        match about.place {
            Some(place) if of_resources => {
                // What is in no namespace is in the one without a name.
                among(&self.namespaces, place.namespace.as_deref().unwrap_or_default())
                    && (self.resources.is_empty() || self.resources.iter().any(|r| r.include(place)))
            }
            Some(_) => self.non_resource_urls.is_empty(),
            None if of_resources => false,
            None => {
                self.non_resource_urls.is_empty()
                    || self.non_resource_urls.iter().any(|url| match url.strip_suffix('*') {
                        Some(start) => about.path.starts_with(start),
                        None => url == about.path,
                    })
            }
        }
    }
}

impl Resources {
    fn include(&self, place: &Place) -> bool {
        let name = place.name.as_deref().unwrap_or_default();
        let named = self.resource_names.is_empty() || self.resource_names.iter().any(|n| n == name);
        if self.group != place.group || !named {
            return false;
        }
        let subresource = place.subresource.as_deref();
        let fits = |pattern: &String| match (pattern.split_once('/'), subresource) {
            (None, None) => pattern == "*" || *pattern == place.plural,
            (None, Some(_)) => pattern == "*",
            (Some((resource, part)), Some(subresource)) => {
                (resource == "*" || resource == place.plural) && (part == "*" || part == subresource)
            }
            (Some(_), None) => false,
        };
        self.resources.is_empty() || self.resources.iter().any(fits)
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
