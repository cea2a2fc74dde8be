//! A node whose pods' network is made by the plugins of others: Debian's `containernetworking-plugins`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, ensure};
use minik8s_tests::{Scene, Suite};

use super::reach::{Place, idle};

const LIST: &str = r#"{
  "cniVersion": "1.0.0", "name": "others",
  "plugins": [
    { "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
      "ipam": { "type": "host-local", "subnet": "10.78.0.0/24", "dataDir": "/run/others",
                "routes": [{ "dst": "0.0.0.0/0" }] } },
    { "type": "portmap", "capabilities": { "portMappings": true } }
  ]
}"#;

/// What these plugins make for the node with their first pod, and leave there.
const THEIRS: [&str; 3] = ["link cni0", "route 10.78.0.0/24", "nft "];

/// Where the list lies: nodes see the folders of the machine.
fn folder() -> PathBuf {
    std::env::temp_dir().join(format!("minik8s-plugins-{}", std::process::id()))
}

pub(super) fn run() -> ExitCode {
    let folder = folder();
    let written = std::fs::create_dir_all(&folder)
        .and_then(|()| std::fs::write(folder.join("10-others.conflist"), LIST));
    // A suite's options live as long as the program.
    let option: &'static str =
        Box::leak(format!("--agent-option=--cni-conf-dir={}", folder.display()).into());
    let options: &'static [&'static str] = Box::leak(Box::new(["--nodes", "1", option]));
    let done = match written {
        Ok(()) => Suite::new()
            .cluster(options)
            .stays(&THEIRS)
            .case("plugins of others make the network of pods", others)
            .run(),
        Err(_) => ExitCode::FAILURE,
    };
    let _ = std::fs::remove_dir_all(&folder);
    done
}

async fn others(scene: Scene) -> anyhow::Result<()> {
    let server = r#"
apiVersion: v1
kind: Pod
metadata: { name: server }
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: localhost/busybox:1
    command: [httpd, -f, -p, "8080"]
    ports: [{ containerPort: 8080, hostPort: 18080 }]
---
"#;
    scene.apply(&format!("{server}{}", idle("client", "n1"))).await?;
    let ip = Place::of(&scene.until_ready("server").await?).context("the server")?.ip;
    scene.until_ready("client").await?;
    ensure!(ip.starts_with("10.78.0."), "{ip} is not theirs");
    for target in [format!("{ip} 8080"), "10.78.0.1 18080".to_owned()] {
        scene.sh("client", "main", &format!("nc -w 5 {target} < /dev/null")).await?;
    }
    let leases = scene.cluster().node_sh("ls /run/others/others").await?;
    ensure!(leases.lines().any(|line| line == ip), "{leases}");
    scene.minik8s(&["delete", "pod", "server", "client", "--now"]).ok().await?;
    scene.until_gone("server").await?;
    scene.until_gone("client").await?;
    let leases = scene.cluster().node_sh("ls /run/others/others").await?;
    ensure!(!leases.lines().any(|line| line.starts_with("10.78.0.")), "{leases}");
    Ok(())
}
