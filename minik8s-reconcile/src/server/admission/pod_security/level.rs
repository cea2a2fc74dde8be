//! The policies that a namespace's labels choose.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::api::core::v1::PodSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use minik8s_api::{FieldErrors, FieldPath};

use super::{baseline, restricted, words::Violation};

/// The labels, each with one that says of which version the policy is.
pub(super) const LABELS: [&str; 6] = [
    "pod-security.kubernetes.io/enforce",
    "pod-security.kubernetes.io/enforce-version",
    "pod-security.kubernetes.io/audit",
    "pod-security.kubernetes.io/audit-version",
    "pod-security.kubernetes.io/warn",
    "pod-security.kubernetes.io/warn-version",
];

/// How much is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Privileged,
    Baseline,
    Restricted,
}

/// The minor version of Kubernetes whose idea of a level is meant; `None` for the latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Version(Option<u32>);

impl Version {
    /// Whether what came with that minor version belongs to it.
    pub(super) fn has(self, minor: u32) -> bool {
        self.0.is_none_or(|own| own >= minor)
    }

    fn parse(text: &str) -> Option<Self> {
        if text == "latest" {
            return Some(Self(None));
        }
        let minor = text.strip_prefix("v1.")?;
        let plain = minor == "0" || !minor.starts_with('0') && minor.bytes().all(|b| b.is_ascii_digit());
        minor.parse().ok().filter(|_| plain).map(|minor| Self(Some(minor)))
    }
}

/// A level as of a version: `baseline:v1.25`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Policy {
    pub(super) level: Level,
    pub(super) version: Version,
}

impl Policy {
    /// What of a pod it does not allow.
    pub(super) fn check(self, metadata: &ObjectMeta, spec: &PodSpec) -> Vec<Violation> {
        let version = self.version;
        let mut found = match self.level {
            Level::Privileged => return Vec::new(),
            Level::Baseline => baseline::check(version, metadata, spec, false),
            Level::Restricted => baseline::check(version, metadata, spec, true),
        };
        if self.level == Level::Restricted {
            found.extend(restricted::check(version, spec));
        }
        found
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        };
        match self.version.0 {
            Some(minor) => write!(f, "{level}:v1.{minor}"),
            None => write!(f, "{level}:latest"),
        }
    }
}

/// What is done about pods: refused, noted, said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Policies {
    pub(super) enforce: Policy,
    pub(super) audit: Policy,
    pub(super) warn: Policy,
}

impl Policies {
    /// Those of a namespace, and what is wrong with its labels. A level that is none counts as the
    /// strictest where it is enforced, and as none at all elsewhere.
    pub(super) fn of(labels: Option<&BTreeMap<String, String>>) -> (Self, FieldErrors) {
        let mut errors = FieldErrors::new();
        let mut policy = |mode: usize| {
            let (level, version) = (LABELS[2 * mode], LABELS[2 * mode + 1]);
            let label = |name: &str| labels.and_then(|l| l.get(name));
            let path = |name: &str| FieldPath::new("metadata").child("labels").key(name);
            let level = match label(level).map(String::as_str) {
                None | Some("privileged") => Level::Privileged,
                Some("baseline") => Level::Baseline,
                Some("restricted") => Level::Restricted,
                Some(other) => {
                    let detail = "must be one of privileged, baseline, restricted";
                    errors.invalid(path(level), other, detail);
                    if mode == 0 { Level::Restricted } else { Level::Privileged }
                }
            };
            let version = match label(version) {
                None => Version(None),
                Some(text) => Version::parse(text).unwrap_or_else(|| {
                    let detail = "must be \"latest\" or \"v1.x\"";
                    errors.invalid(path(version), text, detail);
                    Version(None)
                }),
            };
            Policy { level, version }
        };
        let policies = Self { enforce: policy(0), audit: policy(1), warn: policy(2) };
        (policies, errors)
    }

    /// Whether everything is allowed.
    pub(super) fn are_privileged(&self) -> bool {
        [self.enforce, self.audit, self.warn].iter().all(|p| p.level == Level::Privileged)
    }
}
