//! Our table of nftables, rendered whole and replaced at once.

use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::{Error, Result, Subnet};

/// The table that is ours.
const TABLE: &str = "minik8s_pods";

/// The rules by which what leaves the pods' network does so in the node's name: the old table, if any, and then the new
/// one, in one transaction.
pub(super) fn masquerade(subnet: Subnet, cluster: &[Subnet], bridge: &str) -> String {
    let family = |subnet: &Subnet| if subnet.network().is_ipv4() { "ip" } else { "ip6" };
    let own = family(&subnet);
    let inside: Vec<String> = std::iter::once(&subnet)
        .chain(cluster.iter().filter(|other| family(other) == own && **other != subnet))
        .map(Subnet::to_string)
        .collect();
    let multicast = if own == "ip" { "224.0.0.0/4" } else { "ff00::/8" };
    format!(
        "table {own} {TABLE} {{}}
delete table {own} {TABLE}
table {own} {TABLE} {{
    set inside {{
        type ipv{version}_addr
        flags interval
        auto-merge
        elements = {{ {inside}, {multicast} }}
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        {own} saddr {subnet} {own} daddr != @inside oifname != \"{bridge}\" masquerade
    }}
}}
",
        inside = inside.join(", "),
        version = if own == "ip" { "4" } else { "6" },
    )
}

/// Whether the table is there.
pub(super) async fn is_there(nft: &Path, subnet: Subnet) -> Result<bool> {
    let family = if subnet.network().is_ipv4() { "ip" } else { "ip6" };
    match apply(nft, format!("list table {family} {TABLE}\n")).await {
        Err(Error::Nft(why)) if why.contains("No such file") => Ok(false),
        other => other.map(|()| true),
    }
}

/// Has the kernel take the rules, all or none.
pub(crate) async fn apply(nft: &Path, rules: String) -> Result<()> {
    let nft = nft.to_owned();
    let run = tokio::task::spawn_blocking(move || run(&nft, &rules)).await;
    run.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(|error| Error::Nft(error.to_string()))
}

fn run(nft: &Path, rules: &str) -> io::Result<()> {
    let mut child = Command::new(nft)
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", nft.display())))?;
    let written = match child.stdin.take() {
        Some(mut stdin) => stdin.write_all(rules.as_bytes()),
        None => Ok(()),
    };
    let output = child.wait_with_output()?;
    if !output.status.success() {
        return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_replaced_whole() {
        let cluster = ["10.244.0.0/16".parse().unwrap(), "fd00::/64".parse().unwrap()];
        let rules = masquerade("10.244.1.0/24".parse().unwrap(), &cluster, "mk8s0");
        assert_eq!(
            rules,
            "table ip minik8s_pods {}
delete table ip minik8s_pods
table ip minik8s_pods {
    set inside {
        type ipv4_addr
        flags interval
        auto-merge
        elements = { 10.244.1.0/24, 10.244.0.0/16, 224.0.0.0/4 }
    }
    chain postrouting {
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr 10.244.1.0/24 ip daddr != @inside oifname != \"mk8s0\" masquerade
    }
}
"
        );
        let v6 = masquerade("fd00:1::/64".parse().unwrap(), &[], "mk8s0");
        assert!(v6.contains("type ipv6_addr") && v6.contains("ip6 saddr fd00:1::/64"), "{v6}");
    }

    #[tokio::test]
    async fn what_nft_says_is_told() {
        let error = apply(Path::new("/no/such/nft"), String::new()).await.unwrap_err();
        assert!(error.to_string().contains("/no/such/nft"), "{error}");
        let error = apply(Path::new("false"), String::new()).await.unwrap_err();
        assert!(matches!(error, Error::Nft(_)));
    }
}
