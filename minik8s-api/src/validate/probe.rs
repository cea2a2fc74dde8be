//! Probes and lifecycle hooks.

use k8s_openapi::api::core::v1::{Container, ExecAction, HTTPGetAction, LifecycleHandler, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{not_negative, one_of, required};
use crate::field::{FieldErrors, FieldPath};
use crate::name;

const MORE_THAN_ONE: &str = "may not specify more than 1 handler type";
const NO_HANDLER: &str = "must specify a handler type";

/// The probes and hooks of a container that stays.
pub(super) fn of_container(errors: &mut FieldErrors, path: &FieldPath, container: &Container) {
    let probes = [
        ("livenessProbe", &container.liveness_probe),
        ("readinessProbe", &container.readiness_probe),
        ("startupProbe", &container.startup_probe),
    ];
    for (field, probe) in probes {
        let Some(probe) = probe else { continue };
        let path = path.child(field);
        check(errors, &path, probe);
        if field == "readinessProbe" {
            if let Some(seconds) = probe.termination_grace_period_seconds {
                let path = path.child("terminationGracePeriodSeconds");
                errors.invalid(path, seconds, "must not be set for readinessProbes");
            }
        } else if probe.success_threshold.is_some_and(|n| n != 1) {
            errors.invalid(path.child("successThreshold"), probe.success_threshold, "must be 1");
        }
    }
    let path = path.child("lifecycle");
    if let Some(lifecycle) = &container.lifecycle {
        for (field, hook) in [("postStart", &lifecycle.post_start), ("preStop", &lifecycle.pre_stop)] {
            if let Some(hook) = hook {
                handler(errors, &path.child(field), hook);
            }
        }
    }
}

fn check(errors: &mut FieldErrors, path: &FieldPath, probe: &Probe) {
    let mut handlers = Handlers::default();
    if let Some(action) = &probe.exec {
        handlers.one(errors, path.child("exec"), |errors, path| exec(errors, path, action));
    }
    if let Some(action) = &probe.http_get {
        handlers.one(errors, path.child("httpGet"), |errors, path| http_get(errors, path, action));
    }
    if let Some(action) = &probe.tcp_socket {
        handlers.one(errors, path.child("tcpSocket"), |errors, path| {
            port(errors, &path.child("port"), &action.port);
        });
    }
    if let Some(action) = &probe.grpc {
        handlers.one(errors, path.child("grpc"), |errors, path| {
            errors.invalid_each(&path.child("port"), action.port, name::port_number(action.port));
        });
    }
    handlers.end(errors, path);
    not_negative(errors, path.child("initialDelaySeconds"), probe.initial_delay_seconds);
    not_negative(errors, path.child("timeoutSeconds"), probe.timeout_seconds);
    not_negative(errors, path.child("periodSeconds"), probe.period_seconds);
    not_negative(errors, path.child("successThreshold"), probe.success_threshold);
    not_negative(errors, path.child("failureThreshold"), probe.failure_threshold);
    if let Some(seconds) = probe.termination_grace_period_seconds.filter(|&s| s <= 0) {
        errors.invalid(path.child("terminationGracePeriodSeconds"), seconds, "must be greater than 0");
    }
}

fn handler(errors: &mut FieldErrors, path: &FieldPath, hook: &LifecycleHandler) {
    let mut handlers = Handlers::default();
    if let Some(action) = &hook.exec {
        handlers.one(errors, path.child("exec"), |errors, path| exec(errors, path, action));
    }
    if let Some(action) = &hook.http_get {
        handlers.one(errors, path.child("httpGet"), |errors, path| http_get(errors, path, action));
    }
    if let Some(action) = &hook.tcp_socket {
        handlers.one(errors, path.child("tcpSocket"), |errors, path| {
            port(errors, &path.child("port"), &action.port);
        });
    }
    if let Some(action) = &hook.sleep {
        handlers.one(errors, path.child("sleep"), |errors, path| {
            not_negative(errors, path.child("seconds"), Some(action.seconds));
        });
    }
    handlers.end(errors, path);
}

/// Counts the handlers of a probe or hook, of which there must be one.
#[derive(Default)]
struct Handlers(usize);

impl Handlers {
    fn one(
        &mut self,
        errors: &mut FieldErrors,
        path: FieldPath,
        check: impl FnOnce(&mut FieldErrors, &FieldPath),
    ) {
        self.0 += 1;
        if self.0 > 1 {
            errors.forbidden(path, MORE_THAN_ONE);
        } else {
            check(errors, &path);
        }
    }

    fn end(self, errors: &mut FieldErrors, path: &FieldPath) {
        if self.0 == 0 {
            errors.required(path.clone(), NO_HANDLER);
        }
    }
}

fn exec(errors: &mut FieldErrors, path: &FieldPath, action: &ExecAction) {
    if action.command.as_ref().is_none_or(Vec::is_empty) {
        errors.required(path.child("command"), "");
    }
}

fn http_get(errors: &mut FieldErrors, path: &FieldPath, action: &HTTPGetAction) {
    required(errors, path.child("path"), action.path.as_deref());
    port(errors, &path.child("port"), &action.port);
    one_of(errors, path.child("scheme"), action.scheme.as_deref(), &["HTTP", "HTTPS"]);
    for (i, header) in action.http_headers.iter().flatten().enumerate() {
        let good =
            !header.name.is_empty() && header.name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-');
        if !good {
            let detail = "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. \
                          'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')";
            errors.invalid(path.child("httpHeaders").index(i).child("name"), &header.name, detail);
        }
    }
}

/// A port by number or name.
pub(super) fn port(errors: &mut FieldErrors, path: &FieldPath, port: &IntOrString) {
    match port {
        IntOrString::Int(number) => errors.invalid_each(path, number, name::port_number(*number)),
        IntOrString::String(given) => errors.invalid_each(path, given, name::port_name(given)),
    }
}
