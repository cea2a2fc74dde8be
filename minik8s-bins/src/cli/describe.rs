//! `describe`.

use std::fmt::Write;

use k8s_openapi::api::core::v1::{Container, ContainerState, ContainerStatus, Event, Pod};
use minik8s_api::kind::human_duration;
use minik8s_reconcile::request::{ListParams, Operation, ResponseBody};
use minik8s_reconcile::{ApiRequest, Stored};
use serde_json::Value;

use super::print;
use super::resources;
use super::session::Session;
use super::tabulate::Widths;
use crate::args::Describe;

pub async fn run(session: &Session, describe: &Describe) -> anyhow::Result<()> {
    let mut first = true;
    for target in resources::parse(session, &describe.selection.resources).await? {
        let namespace = (!describe.selection.all_namespaces).then(|| session.namespace());
        let mut objects: Vec<Stored> = Vec::new();
        if target.names.is_empty() {
            let selector = describe.selection.selector.clone().unwrap_or_default();
            let list = Operation::List(ListParams::labels(selector));
            let request = session.client().request(target.kind.clone(), namespace, list);
            if let ResponseBody::List(list) = session.call(request).await?.body {
                objects = list.items;
            }
        }
        for name in &target.names {
            let request =
                session.client().request(target.kind.clone(), Some(session.namespace()), Operation::Get);
            let request = ApiRequest { name: Some(name.clone()), ..request };
            if let ResponseBody::Object { object, .. } = session.call(request).await?.body {
                objects.push(object);
            }
        }
        for object in objects {
            let mut text = if first { String::new() } else { "\n\n".to_owned() };
            first = false;
            text.push_str(&if target.kind.kind == "Pod" {
                pod(&*object.typed::<Pod>()?)
            } else {
                anything(&serde_json::from_slice(object.json())?)
            });
            text.push_str(&events(session, &object).await?);
            print(&text)?;
        }
    }
    Ok(())
}

/// `Label:   value` lines.
fn line(out: &mut String, indent: usize, label: &str, value: &str) {
    let label = format!("{label}:");
    let _ = writeln!(
        out,
        "{:indent$}{label:<width$}{value}",
        "",
        width = 16_usize.saturating_sub(indent).max(label.len() + 1)
    );
}

fn pairs(out: &mut String, label: &str, map: Option<&std::collections::BTreeMap<String, String>>) {
    let mut label = label;
    let visible = map.into_iter().flatten().filter(|(k, _)| !k.ends_with("/last-applied-configuration"));
    let lines: Vec<String> = visible.map(|(k, v)| format!("{k}={v}")).collect();
    if lines.is_empty() {
        line(out, 0, label, "<none>");
    }
    for text in lines {
        if label.is_empty() {
            let _ = writeln!(out, "{:16}{text}", "");
        } else {
            line(out, 0, label, &text);
            label = "";
        }
    }
}

fn pod(pod: &Pod) -> String {
    let mut out = String::new();
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "<none>".to_owned());
    let (spec, status) = (pod.spec.clone().unwrap_or_default(), pod.status.clone().unwrap_or_default());
    line(&mut out, 0, "Name", &text(&pod.metadata.name));
    line(&mut out, 0, "Namespace", &text(&pod.metadata.namespace));
    line(&mut out, 0, "Node", &format!("{}/{}", text(&spec.node_name), text(&status.host_ip)));
    line(
        &mut out,
        0,
        "Start Time",
        &status.start_time.map_or_else(|| "<none>".to_owned(), |t| t.0.to_string()),
    );
    pairs(&mut out, "Labels", pod.metadata.labels.as_ref());
    pairs(&mut out, "Annotations", pod.metadata.annotations.as_ref());
    match &pod.metadata.deletion_timestamp {
        Some(at) => line(&mut out, 0, "Status", &format!("Terminating (until {})", at.0)),
        None => line(&mut out, 0, "Status", &text(&status.phase)),
    }
    if status.reason.is_some() {
        line(&mut out, 0, "Reason", &text(&status.reason));
        line(&mut out, 0, "Message", &text(&status.message));
    }
    line(&mut out, 0, "IP", &text(&status.pod_ip));
    line(&mut out, 0, "QoS Class", &text(&status.qos_class));
    for (title, containers, statuses) in [
        ("Init Containers", spec.init_containers.as_deref(), status.init_container_statuses.as_deref()),
        ("Containers", Some(spec.containers.as_slice()), status.container_statuses.as_deref()),
    ] {
        let containers = containers.unwrap_or_default();
        if !containers.is_empty() {
            let _ = writeln!(out, "{title}:");
        }
        for spec in containers {
            let status = statuses.unwrap_or_default().iter().find(|s| s.name == spec.name);
            container(&mut out, spec, status);
        }
    }
    let _ = writeln!(out, "Conditions:");
    let mut rows = vec![vec!["  Type".to_owned(), "Status".to_owned(), "Reason".to_owned()]];
    for condition in status.conditions.unwrap_or_default() {
        let reason = condition.reason.unwrap_or_default();
        rows.push(vec![format!("  {}", condition.type_), condition.status, reason]);
    }
    out.push_str(&Widths::default().print(&rows));
    let _ = writeln!(out, "Volumes:");
    for volume in spec.volumes.unwrap_or_default() {
        let value = serde_json::to_value(&volume).unwrap_or_default();
        let kinds = value.as_object().into_iter().flatten().filter(|(k, _)| *k != "name");
        let kinds: Vec<String> = kinds.map(|(k, v)| format!("{k} {v}")).collect();
        line(&mut out, 2, &volume.name, &kinds.join(", "));
    }
    out
}

fn container(out: &mut String, spec: &Container, status: Option<&ContainerStatus>) {
    let _ = writeln!(out, "  {}:", spec.name);
    let text = |value: Option<&str>| value.filter(|v| !v.is_empty()).unwrap_or("<none>").to_owned();
    line(out, 4, "Container ID", &text(status.and_then(|s| s.container_id.as_deref())));
    line(out, 4, "Image", &text(spec.image.as_deref()));
    line(out, 4, "Image ID", &text(status.map(|s| s.image_id.as_str())));
    if let Some(command) = &spec.command {
        line(out, 4, "Command", &command.join(" "));
    }
    if let Some(args) = &spec.args {
        line(out, 4, "Args", &args.join(" "));
    }
    let ports: Vec<String> = spec
        .ports
        .iter()
        .flatten()
        .map(|p| format!("{}/{}", p.container_port, p.protocol.as_deref().unwrap_or("TCP")))
        .collect();
    if !ports.is_empty() {
        line(out, 4, "Ports", &ports.join(", "));
    }
    if let Some(status) = status {
        state(out, "State", status.state.as_ref());
        if status.last_state.as_ref().is_some_and(|s| *s != ContainerState::default()) {
            state(out, "Last State", status.last_state.as_ref());
        }
        line(out, 4, "Ready", if status.ready { "True" } else { "False" });
        line(out, 4, "Restart Count", &status.restart_count.to_string());
    }
    for (label, list) in [
        ("Limits", spec.resources.as_ref().and_then(|r| r.limits.as_ref())),
        ("Requests", spec.resources.as_ref().and_then(|r| r.requests.as_ref())),
    ] {
        if let Some(list) = list {
            let amounts: Vec<String> = list.iter().map(|(name, q)| format!("{name} {}", q.0)).collect();
            line(out, 4, label, &amounts.join(", "));
        }
    }
    for variable in spec.env.iter().flatten() {
        line(
            out,
            4,
            "Env",
            &format!("{}={}", variable.name, variable.value.as_deref().unwrap_or("<from elsewhere>")),
        );
    }
    for mount in spec.volume_mounts.iter().flatten() {
        let mode = if mount.read_only == Some(true) { "ro" } else { "rw" };
        line(out, 4, "Mount", &format!("{} from {} ({mode})", mount.mount_path, mount.name));
    }
}

fn state(out: &mut String, label: &str, state: Option<&ContainerState>) {
    let Some(state) = state else { return };
    if let Some(running) = &state.running {
        line(out, 4, label, "Running");
        if let Some(at) = &running.started_at {
            line(out, 6, "Started", &at.0.to_string());
        }
    } else if let Some(ended) = &state.terminated {
        line(out, 4, label, "Terminated");
        line(out, 6, "Reason", ended.reason.as_deref().unwrap_or("<none>"));
        line(out, 6, "Exit Code", &ended.exit_code.to_string());
        if let Some(message) = &ended.message {
            line(out, 6, "Message", message);
        }
        if let Some(at) = &ended.finished_at {
            line(out, 6, "Finished", &at.0.to_string());
        }
    } else if let Some(waiting) = &state.waiting {
        line(out, 4, label, "Waiting");
        line(out, 6, "Reason", waiting.reason.as_deref().unwrap_or("<none>"));
        if let Some(message) = &waiting.message {
            line(out, 6, "Message", message);
        }
    }
}

/// Any object, field by field.
fn anything(value: &Value) -> String {
    let mut out = String::new();
    for path in ["/metadata/name", "/metadata/namespace"] {
        if let Some(text) = value.pointer(path).and_then(Value::as_str) {
            let label = if path.ends_with("namespace") { "Namespace" } else { "Name" };
            line(&mut out, 0, label, text);
        }
    }
    for (label, path) in [("Labels", "/metadata/labels"), ("Annotations", "/metadata/annotations")] {
        let map = value.pointer(path).and_then(|m| serde_json::from_value(m.clone()).ok());
        pairs(&mut out, label, map.as_ref());
    }
    if let Some(at) = value.pointer("/metadata/creationTimestamp").and_then(Value::as_str) {
        line(&mut out, 0, "Created", at);
    }
    for (name, field) in value.as_object().into_iter().flatten() {
        if !matches!(name.as_str(), "apiVersion" | "kind" | "metadata") {
            tree(&mut out, 0, name, field);
        }
    }
    out
}

fn tree(out: &mut String, indent: usize, name: &str, value: &Value) {
    match value {
        Value::Object(map) if map.is_empty() => {}
        Value::Object(map) => {
            let _ = writeln!(out, "{:indent$}{name}:", "");
            map.iter().for_each(|(name, value)| tree(out, indent + 2, name, value));
        }
        Value::Array(items) => {
            let _ = writeln!(out, "{:indent$}{name}:", "");
            for item in items {
                match item {
                    Value::Object(map) => {
                        let _ = writeln!(out, "{:width$}-", "", width = indent + 2);
                        map.iter().for_each(|(name, value)| tree(out, indent + 4, name, value));
                    }
                    other => {
                        let _ = writeln!(out, "{:width$}- {}", "", scalar(other), width = indent + 2);
                    }
                }
            }
        }
        other => line(out, indent, name, &scalar(other)),
    }
}

fn scalar(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned)
}

/// What happened to the object.
async fn events(session: &Session, object: &Stored) -> anyhow::Result<String> {
    let metadata = object.metadata()?;
    let namespace = metadata.namespace.as_deref().unwrap_or("default");
    let uid = metadata.uid.unwrap_or_default();
    let selector = ListParams::fields(format!("involvedObject.uid={uid}"));
    let mut list = session.client().namespaced::<Event>(namespace).list(&selector).await?.items;
    if list.is_empty() {
        return Ok("Events:         <none>\n".to_owned());
    }
    list.sort_by_key(|e| e.last_timestamp.as_ref().map(|t| t.0));
    let now = jiff::Timestamp::now().as_second();
    let mut rows = vec![["  Type", "Reason", "Age", "From", "Message"].map(str::to_owned).to_vec()];
    for event in &list {
        let age = |t: Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>| {
            t.map_or_else(String::new, |t| human_duration(now - t.0.as_second()))
        };
        let mut when = age(event.last_timestamp.as_ref());
        if let Some(count) = event.count.filter(|&c| c > 1) {
            let _ = write!(when, " (x{count} over {})", age(event.first_timestamp.as_ref()));
        }
        rows.push(vec![
            format!("  {}", event.type_.as_deref().unwrap_or_default()),
            event.reason.clone().unwrap_or_default(),
            when,
            event.source.as_ref().and_then(|s| s.component.clone()).unwrap_or_default(),
            event.message.clone().unwrap_or_default().trim().to_owned(),
        ]);
    }
    Ok(format!("Events:\n{}", Widths::default().print(&rows)))
}
