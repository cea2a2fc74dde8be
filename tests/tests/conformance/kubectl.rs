//! kubectl of every age, on our server.

use anyhow::{Context, ensure};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::runtime::wait::await_condition;
use minik8s_tests::clients::Kubectl;
use minik8s_tests::{PATIENCE, Program, Scene};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A deployment that wants no pods.
fn deployment(name: &str, image: &str) -> String {
    format!(
        r#"
apiVersion: apps/v1
kind: Deployment
metadata: {{ name: {name} }}
spec:
  replicas: 0
  selector: {{ matchLabels: {{ app: {name} }} }}
  template:
    metadata: {{ labels: {{ app: {name} }} }}
    spec:
      containers:
      - {{ name: main, image: "{image}", ports: [{{ containerPort: 80 }}] }}
      - {{ name: side, image: "side:1" }}
"#
    )
}

pub(super) async fn configuration(scene: Scene) -> anyhow::Result<()> {
    for kubectl in Kubectl::all(&scene).await? {
        let run = |args: &[&str]| kubectl.run(&scene, args);
        let name = format!("web-{}", kubectl.version.1);
        let name = name.as_str();
        let target = format!("deployment/{name}");
        let target = target.as_str();

        let said = run(&["apply", "-f", "-"]).input(deployment(name, "main:1")).ok().await?;
        ensure!(said == format!("deployment.apps/{name} created\n"), "{said}");
        let said = run(&["apply", "-f", "-"]).input(deployment(name, "main:1")).ok().await?;
        ensure!(said == format!("deployment.apps/{name} unchanged\n"), "{said}");
        let differs = run(&["diff", "-f", "-"]).input(deployment(name, "main:2")).run().await?;
        ensure!(
            differs.code == 1
                && differs.stdout.lines().any(|l| l.starts_with('+') && l.ends_with("image: main:2")),
            "{differs:?}"
        );
        let dry =
            run(&["apply", "--dry-run=server", "-f", "-"]).input(deployment(name, "main:2")).ok().await?;
        ensure!(dry == format!("deployment.apps/{name} configured (server dry run)\n"), "{dry}");
        let said = run(&["apply", "-f", "-"]).input(deployment(name, "main:2")).ok().await?;
        ensure!(said == format!("deployment.apps/{name} configured\n"), "{said}");
        run(&["set", "image", target, "main=main:3"]).ok().await?;
        let images = "jsonpath={.spec.template.spec.containers[*].image}";
        let seen = run(&["get", target, "-o", images]).ok().await?;
        ensure!(seen == "main:3 side:1", "{seen}");

        let said = run(&["scale", target, "--replicas=3"]).ok().await?;
        ensure!(said == format!("deployment.apps/{name} scaled\n"), "{said}");
        run(&["scale", target, "--replicas=0", "--current-replicas=2"])
            .run()
            .await?
            .failed_with(1, &["3"])?;
        run(&["scale", target, "--replicas=0"]).ok().await?;
        run(&["rollout", "restart", target]).ok().await?;
        run(&["rollout", "pause", target]).ok().await?;
        run(&["rollout", "resume", target]).ok().await?;
        run(&["autoscale", target, "--min=1", "--max=3", "--cpu-percent=50"]).ok().await?;
        let bounds = "jsonpath={.spec.minReplicas} {.spec.maxReplicas}";
        let seen = run(&["get", "hpa", name, "-o", bounds]).ok().await?;
        ensure!(seen == "1 3", "{seen}");
        run(&["expose", target, "--port=80", "--target-port=8080"]).ok().await?;
        let seen = run(&["get", "service", name, "-o", "jsonpath={.spec.ports[0].targetPort}"]).ok().await?;
        ensure!(seen == "8080", "{seen}");

        run(&["label", target, "tier=web"]).ok().await?;
        run(&["annotate", target, "note=hello"]).ok().await?;
        let again = run(&["label", target, "tier=db"]).run().await?;
        again.failed_with(1, &["--overwrite"])?;
        run(&["patch", target, "--type=json", "-p", r#"[{"op":"remove","path":"/metadata/labels/tier"}]"#])
            .ok()
            .await?;
        run(&["patch", target, "--type=merge", "-p", r#"{"metadata":{"labels":{"tier":"db"}}}"#])
            .ok()
            .await?;
        let listed = run(&["get", "deployments", "-l", "tier in (db)", "-o", "name"]).ok().await?;
        ensure!(listed == format!("deployment.apps/{name}\n"), "{listed}");
        let manifest = run(&["get", target, "-o", "yaml"]).ok().await?;
        run(&["replace", "-f", "-"]).input(manifest.replace("main:3", "main:4")).ok().await?;
        run(&["replace", "-f", "-"])
            .input(manifest)
            .run()
            .await?
            .failed_with(1, &["the object has been modified"])?;
        let editor = "sed -i s/main:4/main:5/";
        run(&["edit", target]).env("KUBE_EDITOR", editor).ok().await?;
        let seen = run(&["get", target, "-o", images]).ok().await?;
        ensure!(seen == "main:5 side:1", "{seen}");

        let gone = run(&["delete", "deployment,service,hpa", name]).ok().await?;
        ensure!(gone.lines().count() == 3, "{gone}");
        run(&["get", target]).run().await?.failed_with(1, &["(NotFound)", "not found"])?;
    }
    Ok(())
}

pub(super) async fn discovery(scene: Scene) -> anyhow::Result<()> {
    for kubectl in Kubectl::all(&scene).await? {
        let run = |args: &[&str]| kubectl.run(&scene, args);
        let printed = run(&["api-resources", "--verbs=list,create", "-o", "wide"]).ok().await?;
        for word in
            ["deployments", "deploy", "apps/v1", "Deployment", "cronjobs", "poddisruptionbudgets", "dns"]
        {
            ensure!(printed.contains(word), "{word} in {printed}");
        }
        let versions = run(&["api-versions"]).ok().await?;
        for version in ["v1", "apps/v1", "autoscaling/v1", "autoscaling/v2", "events.k8s.io/v1", "policy/v1"]
        {
            ensure!(versions.lines().any(|l| l == version), "{version} in {versions}");
        }
        let explained = run(&["explain", "deployment.spec.strategy", "--recursive"]).ok().await?;
        ensure!(explained.contains("rollingUpdate") && explained.contains("maxSurge"), "{explained}");
        let explained = run(&["explain", "dns.spec", "--recursive"]).ok().await?;
        ensure!(explained.contains("paths") && explained.contains("serviceName"), "{explained}");
        run(&["explain", "pod.spec.nothing"]).run().await?.failed_with(1, &["nothing"])?;
        let version = run(&["version", "-o", "json"]).ok().await?;
        ensure!(version.contains("serverVersion"), "{version}");
        let all = run(&["get", "all", "-A"]).run().await?;
        ensure!(all.code == 0, "{all:?}");
        let table = run(&["get", "namespaces"]).ok().await?;
        let heading: Vec<_> = table.lines().next().unwrap_or_default().split_whitespace().collect();
        ensure!(heading == ["NAME", "STATUS", "AGE"], "{table}");
        let raw = run(&["get", "--raw", "/readyz?verbose"]).ok().await?;
        ensure!(raw.contains("ok"), "{raw}");
        let may = run(&["auth", "can-i", "create", "pods"]).ok().await?;
        ensure!(may == "yes\n", "{may}");
        let may = run(&["auth", "can-i", "--list"]).ok().await?;
        ensure!(may.contains("*.*"), "{may}");
        if kubectl.version >= (1, 28) {
            let who = run(&["auth", "whoami"]).ok().await?;
            ensure!(who.contains("kubernetes-admin") && who.contains("system:masters"), "{who}");
        }
    }
    Ok(())
}

pub(super) async fn server_side_apply(scene: Scene) -> anyhow::Result<()> {
    for kubectl in Kubectl::all(&scene).await? {
        let run = |args: &[&str]| kubectl.run(&scene, args);
        let name = format!("side-{}", kubectl.version.1);
        let config = |value: &str| {
            format!(
                "apiVersion: v1\nkind: ConfigMap\nmetadata: {{ name: {name} }}\ndata: {{ a: \"{value}\" }}\n"
            )
        };
        let apply = ["apply", "--server-side", "--field-manager=one", "-f", "-"];
        let said = run(&apply).input(config("1")).ok().await?;
        ensure!(said == format!("configmap/{name} serverside-applied\n"), "{said}");
        let other = ["apply", "--server-side", "--field-manager=two", "-f", "-"];
        let conflict = run(&other).input(config("2")).run().await?;
        conflict.failed_with(1, &["conflict with \"one\"", ".data.a", "--force-conflicts"])?;
        run(&["apply", "--server-side", "--field-manager=two", "--force-conflicts", "-f", "-"])
            .input(config("2"))
            .ok()
            .await?;
        let managers = run(&["get", "configmap", &name, "-o", "json"]);
        let managers = match kubectl.version >= (1, 21) {
            true => managers.args(["--show-managed-fields"]),
            false => managers,
        };
        let object: serde_json::Value = serde_json::from_str(&managers.ok().await?)?;
        let fields = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
        let owner = fields.iter().find(|f| f["manager"] == "two");
        ensure!(owner.is_some_and(|f| f["fieldsV1"]["f:data"]["f:a"].is_object()), "{fields:?}");
        // The client's own way to apply goes on from there.
        let said = run(&["apply", "-f", "-"]).input(config("3")).ok().await?;
        ensure!(said.contains("configured"), "{said}");
        run(&["delete", "configmap", &name]).ok().await?;
    }
    Ok(())
}

pub(super) async fn pods(scene: Scene) -> anyhow::Result<()> {
    let script = "echo started; echo hello > /tmp/index.html; exec httpd -f -p 8080 -h /tmp";
    for kubectl in Kubectl::all(&scene).await? {
        let run = |args: &[&str]| kubectl.run(&scene, args);
        let name = format!("pod-{}", kubectl.version.1);
        let name = name.as_str();
        run(&["run", name, "--image=localhost/busybox:1", "--command", "--", "sh", "-c", script])
            .ok()
            .await?;
        run(&["wait", "--for=condition=Ready", "pod", name, "--timeout=90s"]).ok().await?;
        let said = run(&["logs", name]).ok().await?;
        ensure!(said == "started\n", "{said}");
        let said = run(&["exec", name, "--", "cat", "/tmp/index.html"]).ok().await?;
        ensure!(said == "hello\n", "{said}");
        let echoed = run(&["exec", "-i", name, "--", "cat"]).input("a line\n").ok().await?;
        ensure!(echoed == "a line\n", "{echoed}");
        run(&["exec", name, "--", "sh", "-c", "exit 7"]).run().await?.failed_with(7, &[])?;
        let dir = tempfile::tempdir()?;
        let copy = dir.path().join("copy").display().to_string();
        run(&["cp", &format!("{name}:/tmp/index.html"), &copy]).ok().await?;
        ensure!(std::fs::read_to_string(&copy)? == "hello\n");
        let served = forwarded(run(&["port-forward", name, ":8080"])).await?;
        ensure!(served.ends_with("hello\n"), "{served}");
        let echo = format!("echo-{}", kubectl.version.1);
        let reader = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{ name: {echo} }}\nspec:\n  containers:\n  \
             - {{ name: main, image: \"localhost/busybox:1\", command: [cat], stdin: true, stdinOnce: true }}\n"
        );
        run(&["create", "-f", "-"]).input(reader).ok().await?;
        run(&["wait", "--for=condition=Ready", "pod", &echo, "--timeout=90s"]).ok().await?;
        let attached = run(&["attach", "-i", &echo]).input("attached\n").ok().await?;
        ensure!(attached.contains("attached\n"), "{attached}");
        run(&["delete", "pod", &echo, "--grace-period=1"]).ok().await?;
        let described = run(&["describe", "pod", name]).ok().await?;
        ensure!(described.contains("Started") && described.contains("Scheduled"), "{described}");
        run(&["delete", "pod", name, "--grace-period=1"]).ok().await?;
        run(&["get", "pod", name]).run().await?.failed_with(1, &["NotFound"])?;
    }
    Ok(())
}

/// What a page says that `kubectl port-forward` makes reachable.
async fn forwarded(kubectl: Program) -> anyhow::Result<String> {
    let mut forward = kubectl.start()?;
    let mut lines = BufReader::new(forward.stdout.take().context("a pipe")?).lines();
    let line = timeout(PATIENCE, lines.next_line()).await.context("it says nothing")??;
    let line = line.context("it has ended")?;
    let port = line.strip_prefix("Forwarding from 127.0.0.1:").and_then(|l| l.split(' ').next());
    let port: u16 = port.with_context(|| line.clone())?.parse()?;
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(b"GET /index.html HTTP/1.0\r\n\r\n").await?;
    let mut page = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut page)).await.context("no page")??;
    forward.kill().await?;
    Ok(page)
}

fn definition(plural: &str, kind: &str, group: &str) -> String {
    format!(
        r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {{ name: {plural}.{group} }}
spec:
  group: {group}
  scope: Namespaced
  names: {{ plural: {plural}, kind: {kind}, singular: {singular}, shortNames: [{short}], categories: [all] }}
  versions:
  - name: v1
    served: true
    storage: true
    subresources:
      status: {{}}
      scale: {{ specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas }}
    additionalPrinterColumns:
    - {{ name: Spec, type: string, jsonPath: .spec.cronSpec, description: "When it runs" }}
    - {{ name: Replicas, type: integer, jsonPath: .spec.replicas }}
    - {{ name: Age, type: date, jsonPath: .metadata.creationTimestamp }}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            required: [cronSpec]
            x-kubernetes-validations:
            - {{ rule: "self.replicas <= self.maxReplicas", message: "replicas must not exceed maxReplicas" }}
            properties:
              cronSpec: {{ type: string, pattern: '^(\S+\s){{4}}\S+$', description: "The schedule, as cron writes it" }}
              image: {{ type: string }}
              replicas: {{ type: integer, minimum: 0, default: 1 }}
              maxReplicas: {{ type: integer, default: 10 }}
          status:
            type: object
            properties: {{ replicas: {{ type: integer }} }}
"#,
        singular = kind.to_lowercase(),
        short = &plural[..4],
    )
}

pub(super) async fn custom_resources(scene: Scene) -> anyhow::Result<()> {
    for kubectl in Kubectl::all(&scene).await? {
        let run = |args: &[&str]| kubectl.run(&scene, args);
        let minor = kubectl.version.1;
        let (kind, plural, group) =
            (format!("Ct{minor}"), format!("ct{minor}s"), format!("v{minor}.example.dev"));
        let object = |replicas: &str, more: &str| {
            format!(
                "apiVersion: {group}/v1\nkind: {kind}\nmetadata: {{ name: mine }}\n\
                 spec: {{ cronSpec: '* * * * */5', replicas: {replicas}{more} }}\n"
            )
        };
        run(&["apply", "-f", "-"]).input(definition(&plural, &kind, &group)).ok().await?;
        run(&["wait", "--for=condition=Established", "crd", &format!("{plural}.{group}")]).ok().await?;
        let said = run(&["apply", "-f", "-"]).input(object("2", "")).ok().await?;
        ensure!(said.contains("/mine created"), "{said}");
        let table = run(&["get", &plural[..4]]).ok().await?;
        let cells: Vec<_> = table.lines().map(|l| l.split_whitespace().collect::<Vec<_>>()).collect();
        ensure!(cells[0] == ["NAME", "SPEC", "REPLICAS", "AGE"], "{table}");
        ensure!(cells[1][..7] == ["mine", "*", "*", "*", "*", "*/5", "2"], "{table}");
        let seen =
            run(&["get", &kind.to_lowercase(), "mine", "-o", "jsonpath={.spec.maxReplicas}"]).ok().await?;
        ensure!(seen == "10", "{seen}");
        let ours = scene.minik8s(&["get", &plural[..4], "--no-headers"]).ok().await?;
        ensure!(ours.starts_with("mine ") && ours.contains("*/5"), "{ours}");
        let said =
            scene.minik8s(&["apply", "--force-conflicts", "-f", "-"]).input(object("2", "")).ok().await?;
        ensure!(said.contains("/mine "), "{said}");
        run(&["apply", "-f", "-"])
            .input(object("11", ""))
            .run()
            .await?
            .failed_with(1, &["replicas must not exceed maxReplicas"])?;
        run(&["apply", "-f", "-"])
            .input(object("many", ""))
            .run()
            .await?
            .failed_with(1, &["spec.replicas"])?;
        run(&["apply", "-f", "-"]).input(object("3", ", imag: x")).run().await?.failed_with(1, &["imag"])?;
        run(&["scale", &plural, "mine", "--replicas=4"]).ok().await?;
        let seen = run(&["get", &plural, "mine", "-o", "jsonpath={.spec.replicas}"]).ok().await?;
        ensure!(seen == "4", "{seen}");
        let explained = run(&["explain", &plural, "--recursive"]).ok().await?;
        ensure!(explained.contains("cronSpec") && explained.contains("maxReplicas"), "{explained}");
        let explained = run(&["explain", &format!("{plural}.spec.cronSpec")]).ok().await?;
        ensure!(explained.contains("as cron writes it"), "{explained}");
        run(&["delete", "crd", &format!("{plural}.{group}")]).ok().await?;
        run(&["get", &plural]).run().await?.failed_with(1, &[])?;
    }
    Ok(())
}

/// What `kubectl create` makes without a manifest: from 1.32 on, in protobuf.
pub(super) async fn create(scene: Scene) -> anyhow::Result<()> {
    let kubectl = Kubectl::newest(&scene).await?;
    let run = |args: &[&str]| kubectl.run(&scene, args);
    for args in [
        &["configmap", "made", "--from-literal=a=1"][..],
        &["secret", "generic", "made", "--from-literal=password=x"],
        &["secret", "docker-registry", "pull", "--docker-username=u", "--docker-password=p"],
        &["serviceaccount", "made"],
        &["deployment", "made", "--image=x:1", "--replicas=0", "--port=80"],
        &["job", "made", "--image=x:1", "--", "true"],
        &["cronjob", "made", "--image=x:1", "--schedule=0 3 * * *", "--", "true"],
        &["service", "clusterip", "made", "--tcp=80:8080"],
        &["service", "nodeport", "made-too", "--tcp=80:8080"],
        &["ingress", "made", "--rule=example.com/path=made:80"],
        &["role", "made", "--verb=get", "--resource=pods"],
        &["rolebinding", "made", "--role=made", "--serviceaccount=default:made"],
        &["poddisruptionbudget", "made", "--selector=app=x", "--min-available=50%"],
        &["quota", "made", "--hard=pods=3,requests.cpu=1500m"],
    ] {
        let args = [&["create"], args].concat();
        let ran = run(&args).run().await?;
        ensure!(ran.code == 0 && ran.stdout.contains("created"), "kubectl {}: {ran:?}", args.join(" "));
    }
    let read = |what: &'static str, path: &'static str| run(&["get", what, "-o", path]).ok();
    ensure!(read("configmap/made", "jsonpath={.data.a}").await? == "1");
    ensure!(read("secret/made", "jsonpath={.data.password}").await? == "eA==");
    ensure!(read("pdb/made", "jsonpath={.spec.minAvailable}").await? == "50%");
    ensure!(read("quota/made", "jsonpath={.spec.hard.requests\\.cpu}").await? == "1500m");
    ensure!(read("service/made", "jsonpath={.spec.ports[0].targetPort}").await? == "8080");
    ensure!(read("cronjob/made", "jsonpath={.spec.schedule}").await? == "0 3 * * *");
    run(&["create", "configmap", "made"]).run().await?.failed_with(1, &["already exists"])?;
    Ok(())
}

/// Drains the node of this case's pod, while a budget says when.
pub(super) async fn drain(scene: Scene) -> anyhow::Result<()> {
    for kubectl in Kubectl::all(&scene).await? {
        let run = |args: &[&str]| kubectl.run(&scene, args);
        let pod = "apiVersion: v1\nkind: Pod\nmetadata: { name: kept, labels: { app: kept } }\nspec:\n  \
                   terminationGracePeriodSeconds: 1\n  \
                   containers: [{ name: main, image: \"localhost/busybox:1\", command: [sleep, \"3600\"] }]\n";
        let budget = "apiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata: { name: kept }\n\
                      spec: { minAvailable: 1, selector: { matchLabels: { app: kept } } }\n";
        scene.apply(pod).await?;
        scene.apply(budget).await?;
        let budgets: Api<PodDisruptionBudget> = Api::namespaced(scene.kube(), scene.namespace());
        let status = |wanted: fn(&PodDisruptionBudgetStatus) -> bool| {
            let found =
                move |b: Option<&PodDisruptionBudget>| b.and_then(|b| b.status.as_ref()).is_some_and(wanted);
            timeout(PATIENCE, await_condition(budgets.clone(), "kept", found))
        };
        status(|s| s.current_healthy == Some(1) && s.disruptions_allowed == Some(0))
            .await
            .context("not counted")??;
        // Without --pod-selector it would be the pods of other cases, too.
        let drain = ["drain", "n1", "--pod-selector=app=kept", "--force", "--timeout=3s"];
        let ran = run(&drain).run().await?;
        ensure!(ran.code != 0 && ran.stderr.contains("disruption budget"), "{ran:?}");
        scene.until_ready("kept").await?;
        let none = serde_json::json!({ "spec": { "minAvailable": 0 } });
        budgets.patch("kept", &PatchParams::default(), &Patch::Merge(&none)).await?;
        status(|s| s.disruptions_allowed == Some(1)).await.context("not allowed")??;
        run(&[&drain[..4], &["--timeout=60s"]].concat()).ok().await?;
        scene.until_gone("kept").await?;
        let nodes = run(&["get", "node", "n1"]).ok().await?;
        ensure!(nodes.contains("SchedulingDisabled"), "{nodes}");
        run(&["uncordon", "n1"]).ok().await?;
        budgets.delete("kept", &DeleteParams::default()).await?;
    }
    Ok(())
}
