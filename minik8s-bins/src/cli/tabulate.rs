//! Tables on a terminal.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use minik8s_api::kind::human_duration;
use serde::Deserialize;
use serde_json::Value;

/// The server's answer to a request for a table.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Table {
    #[serde(default)]
    pub column_definitions: Vec<ColumnDefinition>,
    #[serde(default)]
    pub rows: Vec<Row>,
    #[serde(default)]
    pub metadata: Value,
}

#[derive(Clone, Debug, Deserialize)]
pub struct ColumnDefinition {
    pub name: String,
    #[serde(default)]
    pub priority: i32,
}

#[derive(Debug, Deserialize)]
pub struct Row {
    pub cells: Vec<Value>,
    #[serde(default)]
    pub object: Value,
}

/// What to show of a table.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    pub wide: bool,
    pub namespaces: bool,
}

/// The headings and rows to print.
pub fn select(
    kind: &str,
    columns: &[ColumnDefinition],
    rows: &[Row],
    layout: Layout,
) -> (Vec<String>, Vec<Vec<String>>) {
    if kind == "Pod" && !layout.wide {
        return pods(columns, rows);
    }
    let shown: Vec<usize> = (0..columns.len()).filter(|&i| layout.wide || columns[i].priority == 0).collect();
    let mut headings: Vec<String> = shown.iter().map(|&i| columns[i].name.to_uppercase()).collect();
    let mut lines: Vec<Vec<String>> = rows
        .iter()
        .map(|row| shown.iter().map(|&i| cell(row.cells.get(i).unwrap_or(&Value::Null))).collect())
        .collect();
    if layout.namespaces {
        headings.insert(0, "NAMESPACE".to_owned());
        for (line, row) in lines.iter_mut().zip(rows) {
            line.insert(0, text(&row.object, "/metadata/namespace"));
        }
    }
    (headings, lines)
}

/// Pods have a table of their own: what someone wants to know of a pod, in one line.
fn pods(columns: &[ColumnDefinition], rows: &[Row]) -> (Vec<String>, Vec<Vec<String>>) {
    let headings = ["NAME", "READY", "STATUS", "RESTARTS", "UPTIME", "IP", "NODE", "NAMESPACE", "LABELS"]
        .map(str::to_owned);
    let column = |row: &Row, name: &str| column(columns, row, name);
    let lines = rows.iter().map(|row| {
        vec![
            column(row, "Name"),
            column(row, "Ready"),
            column(row, "Status"),
            column(row, "Restarts"),
            uptime(&row.object),
            column(row, "IP"),
            column(row, "Node"),
            text(&row.object, "/metadata/namespace"),
            labels(&row.object),
        ]
    });
    (headings.to_vec(), lines.collect())
}

/// What the row has in the column of that name.
pub fn column(columns: &[ColumnDefinition], row: &Row, name: &str) -> String {
    let index = columns.iter().position(|c| c.name == name);
    index.and_then(|i| row.cells.get(i)).map(cell).unwrap_or_default()
}

/// How long the pod has been on its node.
fn uptime(object: &Value) -> String {
    let pod: Option<Pod> = serde_json::from_value(object.clone()).ok();
    let started = pod.and_then(|p| p.status?.start_time);
    started.map_or_else(
        || "<none>".to_owned(),
        |t| human_duration(Timestamp::now().as_second() - t.0.as_second()),
    )
}

/// `a=b,c=d`
pub fn labels(object: &Value) -> String {
    let labels = object.pointer("/metadata/labels").and_then(Value::as_object);
    let pairs: Vec<String> = labels
        .into_iter()
        .flatten()
        .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default()))
        .collect();
    if pairs.is_empty() { "<none>".to_owned() } else { pairs.join(",") }
}

fn text(object: &Value, path: &str) -> String {
    object.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn cell(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "<none>".to_owned(),
        other => other.to_string(),
    }
}

/// Columns side by side, three spaces apart.
#[derive(Debug, Default)]
pub struct Widths(Vec<usize>);

impl Widths {
    /// One line for each row; columns keep the widths that they have had.
    pub fn print(&mut self, rows: &[Vec<String>]) -> String {
        for row in rows {
            self.0.resize(self.0.len().max(row.len()), 0);
            for (width, cell) in self.0.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut out = String::new();
        for row in rows {
            let mut line = String::new();
            for (width, cell) in self.0.iter().zip(row) {
                line.push_str(cell);
                line.extend(std::iter::repeat_n(' ', width + 3 - cell.chars().count()));
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}
