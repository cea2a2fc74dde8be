//! `get`.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use http_body_util::{BodyExt, BodyStream};
use k8s_openapi::List;
use k8s_openapi::api::core::v1::Pod;
use minik8s_api::Kind;
use minik8s_reconcile::ApiError;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio_util::io::StreamReader;

use super::resources::{self, Target};
use super::session::{self, Session};
use super::tabulate::{self, ColumnDefinition, Layout, Row, Table, Widths};
use super::{nodes, note, print};
use crate::args::{Get, Output};

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
/// Objects a page.
const PAGE: u32 = 500;

pub async fn run(session: &Session, get: &Get) -> anyhow::Result<()> {
    let targets = resources::parse(session, &get.selection.resources).await?;
    match get.output {
        None | Some(Output::Wide) => tables(session, get, &targets).await,
        Some(output) => objects(session, get, &targets, output).await,
    }
}

/// The path of one object or of a collection.
fn path(session: &Session, kind: &Kind, name: Option<&str>, get: &Get, extra: &[(&str, &str)]) -> String {
    let mut path = if kind.group.is_empty() {
        format!("/api/{}", kind.version)
    } else {
        format!("/apis/{}/{}", kind.group, kind.version)
    };
    if kind.namespaced && !(get.selection.all_namespaces && name.is_none()) {
        path.push_str(&format!("/namespaces/{}", session.namespace()));
    }
    path.push_str(&format!("/{}", kind.plural));
    if let Some(name) = name {
        path.push_str(&format!("/{name}"));
    }
    let mut query: Vec<(String, String)> =
        extra.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    query.extend(get.selection.selector.clone().map(|s| ("labelSelector".to_owned(), s)));
    query.extend(get.field_selector.clone().map(|s| ("fieldSelector".to_owned(), s)));
    let query: Vec<String> = query.iter().map(|(k, v)| format!("{k}={}", escape(v))).collect();
    format!("{path}?{}", query.join("&"))
}

fn escape(text: &str) -> String {
    text.bytes()
        .map(|b| match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(b).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}

async fn fetch<T: serde::de::DeserializeOwned>(
    session: &Session,
    path: &str,
    accept: &str,
) -> Result<T, ApiError> {
    let body = session.get(path, accept).await?.into_body();
    let bytes = body.collect().await.map_err(session::unreachable)?.to_bytes();
    serde_json::from_slice(&bytes)
        .map_err(|e| ApiError::internal(format!("the server's answer is no table: {e}")))
}

async fn tables(session: &Session, get: &Get, targets: &[Target]) -> anyhow::Result<()> {
    let several = targets.len() > 1;
    let mut printed = 0;
    for target in targets {
        let kind = &target.kind;
        let layout = Layout {
            wide: get.output == Some(Output::Wide),
            namespaces: get.selection.all_namespaces && kind.namespaced,
        };
        let table = table_of(session, get, target).await?;
        if !table.rows.is_empty() {
            let (headings, mut rows) =
                select(session, &kind.kind, &table.column_definitions, &table.rows, layout).await?;
            if several {
                rows.iter_mut().for_each(|r| r[0] = format!("{}/{}", kind.singular, r[0]));
            }
            if !get.no_headers {
                rows.insert(0, headings);
            }
            let gap = if printed > 0 { "\n" } else { "" };
            print(&format!("{gap}{}", Widths::default().print(&rows)))?;
            printed += 1;
        } else if !several && !get.watch {
            match get.selection.all_namespaces || !kind.namespaced {
                true => note("No resources found"),
                false => note(&format!("No resources found in {} namespace.", session.namespace())),
            }
        }
        if get.watch {
            let version =
                table.metadata.get("resourceVersion").and_then(Value::as_str).unwrap_or("0").to_owned();
            return watch(session, get, target, layout, version, table.column_definitions).await;
        }
    }
    Ok(())
}

/// The headings and rows to print.
async fn select(
    session: &Session,
    kind: &str,
    columns: &[ColumnDefinition],
    rows: &[Row],
    layout: Layout,
) -> Result<(Vec<String>, Vec<Vec<String>>), ApiError> {
    if kind != "Node" || layout.wide || rows.is_empty() {
        return Ok(tabulate::select(kind, columns, rows, layout));
    }
    let pods = match fetch::<List<Pod>>(session, "/api/v1/pods", "application/json").await {
        Ok(list) => Some(list.items),
        // Nodes may see themselves, and not what runs on them altogether.
        Err(error) if error.is_forbidden() => None,
        Err(error) => return Err(error),
    };
    Ok(nodes::table(columns, rows, pods.as_deref()))
}

async fn table_of(session: &Session, get: &Get, target: &Target) -> Result<Table, ApiError> {
    let include = ("includeObject", "Object");
    if target.names.is_empty() {
        let limit = PAGE.to_string();
        let first = path(session, &target.kind, None, get, &[include, ("limit", &limit)]);
        let mut table: Table = fetch(session, &first, TABLE).await?;
        while let Some(next) = table.metadata.get("continue").and_then(Value::as_str).map(ToOwned::to_owned) {
            let next =
                path(session, &target.kind, None, get, &[include, ("limit", &limit), ("continue", &next)]);
            let page: Table = fetch(session, &next, TABLE).await?;
            table.rows.extend(page.rows);
            table.metadata = page.metadata;
        }
        return Ok(table);
    }
    let mut all: Option<Table> = None;
    for name in &target.names {
        let one: Table =
            fetch(session, &path(session, &target.kind, Some(name), get, &[include]), TABLE).await?;
        match &mut all {
            None => all = Some(one),
            Some(all) => all.rows.extend(one.rows),
        }
    }
    all.ok_or_else(|| ApiError::bad_request("no names"))
}

/// Prints a line for every change, until interrupted.
async fn watch(
    session: &Session,
    get: &Get,
    target: &Target,
    layout: Layout,
    mut version: String,
    mut columns: Vec<ColumnDefinition>,
) -> anyhow::Result<()> {
    #[derive(Deserialize)]
    struct Line {
        #[serde(rename = "type")]
        type_: String,
        object: Value,
    }
    let mut widths = Widths::default();
    loop {
        let extra = [("watch", "true"), ("resourceVersion", version.as_str()), ("includeObject", "Object")];
        let path = path(session, &target.kind, None, get, &extra);
        let body = BodyStream::new(session.get(&path, TABLE).await?.into_body());
        let bytes = body
            .try_filter_map(async |frame| Ok(frame.into_data().ok()))
            .map_err(|e| std::io::Error::other(e.to_string()));
        let mut lines = BufReader::new(StreamReader::new(bytes.boxed())).lines();
        while let Some(line) = lines.next_line().await? {
            let line: Line = serde_json::from_str(&line)?;
            if line.type_ == "ERROR" {
                let message =
                    line.object.get("message").and_then(Value::as_str).unwrap_or("the watch failed");
                anyhow::bail!("{message}");
            }
            let table: Table = serde_json::from_value(line.object)?;
            if let Some(new) = table.metadata.get("resourceVersion").and_then(Value::as_str) {
                new.clone_into(&mut version);
            }
            if !table.column_definitions.is_empty() {
                columns = table.column_definitions;
            }
            let wanted = |o: &Value| {
                let name = o.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
                target.names.is_empty() || target.names.iter().any(|n| n == name)
            };
            let rows: Vec<_> = table.rows.into_iter().filter(|r| wanted(&r.object)).collect();
            let (_, rows) = select(session, &target.kind.kind, &columns, &rows, layout).await?;
            print(&widths.print(&rows))?;
        }
    }
}

async fn objects(session: &Session, get: &Get, targets: &[Target], output: Output) -> anyhow::Result<()> {
    if get.watch {
        anyhow::bail!("--watch prints tables only; leave out -o, or use -o wide");
    }
    let mut found: Vec<(Arc<Kind>, Value)> = Vec::new();
    let mut whole_list = false;
    for target in targets {
        if target.names.is_empty() {
            whole_list = true;
            let list: Value =
                fetch(session, &path(session, &target.kind, None, get, &[]), "application/json").await?;
            let items = list.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
            found.extend(items.into_iter().map(|item| (target.kind.clone(), item)));
        }
        for name in &target.names {
            let path = path(session, &target.kind, Some(name), get, &[]);
            found.push((target.kind.clone(), fetch(session, &path, "application/json").await?));
        }
    }
    let text = match output {
        Output::Name => found
            .iter()
            .map(|(kind, object)| {
                let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
                format!("{}/{name}\n", kind.singular)
            })
            .collect(),
        Output::Yaml | Output::Json => {
            let mut values: Vec<Value> = found.into_iter().map(|(_, object)| object).collect();
            if !get.show_managed_fields {
                let metadata = values.iter_mut().filter_map(|v| v.get_mut("metadata")?.as_object_mut());
                metadata.for_each(|m| drop(m.remove("managedFields")));
            }
            let value = if values.len() == 1 && !whole_list {
                values.remove(0)
            } else {
                json!({ "apiVersion": "v1", "kind": "List", "metadata": {}, "items": values })
            };
            match output {
                Output::Yaml => serde_yaml::to_string(&value)?,
                _ => format!("{}\n", serde_json::to_string_pretty(&value)?),
            }
        }
        Output::Wide => unreachable!("a table"),
    };
    print(&text)
}
