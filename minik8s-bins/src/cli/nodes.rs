//! The table of nodes: what someone wants to know of a node, in one line.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use minik8s_reconcile::scheduler::NodeInfo;

use super::tabulate::{ColumnDefinition, Row, column};

/// What stands where something is not known.
const UNKNOWN: &str = "<unknown>";

/// The headings and rows; `pods` are all pods, if they may be seen. CPU and memory are what the pods ask for, of what they
/// can have together.
pub fn table(
    columns: &[ColumnDefinition],
    rows: &[Row],
    pods: Option<&[Pod]>,
) -> (Vec<String>, Vec<Vec<String>>) {
    let headings =
        ["NAME", "STATUS", "ROLES", "ADDRESS", "VERSION", "AGE", "PODS", "CPU", "MEMORY"].map(str::to_owned);
    let lines = rows.iter().map(|row| {
        let column = |name: &str| column(columns, row, name);
        let role = match column("Roles") {
            none if none == "<none>" => "worker".to_owned(),
            roles => roles,
        };
        let [count, cpu, memory] = usage(row, pods);
        vec![
            column("Name"),
            column("Status"),
            role,
            column("Internal-IP"),
            column("Version"),
            column("Age"),
            count,
            cpu,
            memory,
        ]
    });
    (headings.to_vec(), lines.collect())
}

/// How many pods there are of how many, and the CPU and memory that they ask for.
fn usage(row: &Row, pods: Option<&[Pod]>) -> [String; 3] {
    let unknown = || [(); 3].map(|()| UNKNOWN.to_owned());
    let node: Option<Node> = serde_json::from_value(row.object.clone()).ok();
    let (Some(node), Some(pods)) = (node, pods) else { return unknown() };
    let name = node.metadata.name.clone();
    let here = pods.iter().filter(|p| p.spec.as_ref().and_then(|s| s.node_name.clone()) == name);
    let info = NodeInfo::new(Arc::new(node), here.cloned().map(Arc::new));
    let of = |resource: &str, show: fn(i64) -> String| {
        let (asked, all) = (info.requested.get(resource), info.allocatable.get(resource));
        let percent = if all > 0 { i128::from(asked) * 100 / i128::from(all) } else { 0 };
        format!("{}/{} ({percent}%)", show(asked), show(all))
    };
    [format!("{}/{}", info.pods.len(), info.allocatable.get("pods")), of("cpu", cpu), of("memory", memory)]
}

/// Whole CPUs where they are whole, else thousandths.
fn cpu(milli: i64) -> String {
    if milli % 1000 == 0 { (milli / 1000).to_string() } else { format!("{milli}m") }
}

fn memory(bytes: i64) -> String {
    const MIB: i64 = 1 << 20;
    if bytes == 0 { "0".to_owned() } else { format!("{}Mi", bytes.div_euclid(MIB)) }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_node_in_one_line() {
        let columns: Vec<ColumnDefinition> = ["Name", "Status", "Roles", "Age", "Version", "Internal-IP"]
            .iter()
            .map(|name| ColumnDefinition { name: (*name).to_owned(), priority: 0 })
            .collect();
        let object = json!({
            "metadata": { "name": "n1" },
            "status": { "allocatable": { "cpu": "2", "memory": "1Gi", "pods": "110" } },
        });
        let cells = ["n1", "Ready", "<none>", "3d", "v1", "10.0.0.1"].map(Value::from).to_vec();
        let rows = [Row { cells, object }];
        let pod = |node: &str, phase: &str| -> Pod {
            let requests = json!({ "cpu": "250m", "memory": "256Mi" });
            let container = json!({ "name": "c", "image": "i", "resources": { "requests": requests } });
            let pod = json!({ "spec": { "nodeName": node, "containers": [container] }, "status": { "phase": phase } });
            serde_json::from_value(pod).expect("a pod")
        };
        let pods = [pod("n1", "Running"), pod("n1", "Succeeded"), pod("n2", "Running")];
        let (headings, lines) = table(&columns, &rows, Some(&pods));
        assert_eq!(headings.len(), lines[0].len());
        assert_eq!(
            lines[0].join(" "),
            "n1 Ready worker 10.0.0.1 v1 3d 1/110 250m/2 (12%) 256Mi/1024Mi (25%)"
        );
        let (_, lines) = table(&columns, &rows, None);
        assert_eq!(lines[0][6..], [UNKNOWN; 3]);
    }
}
