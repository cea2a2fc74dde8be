//! What kubectl is told by admission, in Kubernetes' words.

use anyhow::ensure;
use minik8s_tests::Scene;
use minik8s_tests::clients::Kubectl;

fn pod(name: &str, spec: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{ name: {name} }}
spec:
  nodeSelector: {{ nowhere: "true" }}
  {spec}
  containers: [{{ name: main, image: "main:1", resources: {{ requests: {{ cpu: 100m }} }} }}]
"#
    )
}

/// Pod security, quotas and limits of a namespace.
pub(super) async fn namespaces(scene: Scene) -> anyhow::Result<()> {
    for kubectl in Kubectl::all(&scene).await? {
        let space = format!("{}-bounded-{}", scene.namespace(), kubectl.version.1);
        let run = |args: &[&str]| kubectl.run(&scene, args);
        let within = |args: &[&str]| {
            let all: Vec<&str> = args.iter().copied().chain(["-n", space.as_str()]).collect();
            kubectl.run(&scene, &all)
        };
        run(&["create", "namespace", &space]).ok().await?;
        let labels =
            ["pod-security.kubernetes.io/enforce=baseline", "pod-security.kubernetes.io/warn=restricted"];
        run(&["label", "namespace", &space, labels[0], labels[1]]).ok().await?;
        within(&["create", "quota", "few", "--hard=pods=2,requests.cpu=1"]).ok().await?;

        let host = within(&["apply", "-f", "-"]).input(pod("host", "hostNetwork: true")).run().await?;
        host.failed_with(
            1,
            &["violates PodSecurity \"baseline:latest\": host namespaces (hostNetwork=true)"],
        )?;
        let plain = within(&["apply", "-f", "-"]).input(pod("a", "")).run().await?;
        ensure!(
            plain.code == 0
                && plain
                    .stderr
                    .contains("would violate PodSecurity \"restricted:latest\": allowPrivilegeEscalation"),
            "{plain:?}"
        );
        within(&["apply", "-f", "-"]).input(pod("b", "")).ok().await?;
        let third = within(&["apply", "-f", "-"]).input(pod("c", "")).run().await?;
        third.failed_with(
            1,
            &["is forbidden: exceeded quota: few, requested: pods=1, used: pods=2, limited: pods=2"],
        )?;
        let used = "jsonpath={.status.used.pods} {.status.used['requests\\.cpu']}";
        let seen = within(&["get", "quota", "few", "-o", used]).ok().await?;
        ensure!(seen == "2 200m", "{seen}");
        within(&["delete", "pod", "a"]).ok().await?;
        within(&["apply", "-f", "-"]).input(pod("c", "")).ok().await?;
        run(&["delete", "namespace", &space]).ok().await?;
    }
    Ok(())
}

/// The example of Kubernetes' page about ValidatingAdmissionPolicy. Older versions of kubectl do not know the kind.
pub(super) async fn policies(scene: Scene) -> anyhow::Result<()> {
    for kubectl in Kubectl::all(&scene).await? {
        let run = |args: &[&str]| kubectl.run(&scene, args);
        let name = format!("replicas-{}.{}.example.com", kubectl.version.1, scene.namespace());
        let policy = format!(
            r#"
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {{ name: {name} }}
spec:
  failurePolicy: Fail
  matchConstraints:
    resourceRules:
    - {{ apiGroups: [apps], apiVersions: [v1], operations: [CREATE, UPDATE], resources: [deployments] }}
  validations:
  - expression: "object.spec.replicas <= 5"
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {{ name: {name} }}
spec:
  policyName: {name}
  validationActions: [Deny]
  matchResources:
    namespaceSelector: {{ matchLabels: {{ kubernetes.io/metadata.name: {} }} }}
"#,
            scene.namespace()
        );
        run(&["apply", "-f", "-"]).input(policy.clone()).ok().await?;
        let many = run(&["create", "deployment", "many", "--image=main:1", "--replicas=6"]).run().await?;
        many.failed_with(
            1,
            &[&format!(
                "ValidatingAdmissionPolicy '{name}' with binding '{name}' denied request: failed expression: \
                 object.spec.replicas <= 5"
            )],
        )?;
        run(&["create", "deployment", "few", "--image=main:1", "--replicas=0"]).ok().await?;
        run(&["delete", "deployment", "few"]).ok().await?;
        run(&["delete", "-f", "-"]).input(policy).ok().await?;
        let wrong = run(&["apply", "-f", "-"]).input(format!(
            r#"
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {{ name: {name} }}
spec:
  matchConstraints:
    resourceRules:
    - {{ apiGroups: [apps], apiVersions: [v1], operations: [CREATE], resources: [deployments] }}
  validations:
  - expression: "nobody.spec.replicas <= 5"
"#
        ));
        wrong.run().await?.failed_with(1, &["undeclared reference to 'nobody'"])?;
    }
    Ok(())
}
