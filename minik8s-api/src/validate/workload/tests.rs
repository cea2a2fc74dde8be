use serde_json::{Value, json};

use crate::registry::Registry;

/// The complaints about an object of `kind` with this spec, after defaulting.
fn wrong(kind: &str, name: &str, spec: Value) -> Vec<String> {
    let registry = Registry::builtin();
    let kind = registry.find(kind).unwrap();
    let value = json!({"metadata": {"name": name}, "spec": spec});
    let mut object = kind.decode_value(&value).unwrap().object;
    kind.default(&mut *object);
    kind.validate(&*object).0.iter().map(ToString::to_string).collect()
}

fn template() -> Value {
    json!({"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
}

#[test]
fn good_ones_are_good() {
    let selector = json!({"matchLabels": {"app": "a"}});
    for kind in ["deploy", "rs", "ds", "sts"] {
        let spec = json!({"selector": selector, "template": template(), "serviceName": "s"});
        assert_eq!(wrong(kind, "x", spec), Vec::<String>::new(), "{kind}");
    }
    let mut template = template();
    template["spec"]["restartPolicy"] = json!("Never");
    assert_eq!(wrong("job", "x", json!({"template": template})), Vec::<String>::new());
    let spec = json!({"schedule": "*/5 * * * *", "jobTemplate": {"spec": {"template": template}}});
    assert_eq!(wrong("cronjob", "x", spec), Vec::<String>::new());
}

#[test]
fn deployments() {
    let spec = json!({
        "replicas": -1, "selector": {"matchLabels": {"app": "b"}}, "template": template(),
        "strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "0%"}},
    });
    assert_eq!(
        wrong("deploy", "x", spec),
        [
            "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
            "spec.template.metadata.labels: Invalid value: {\"app\":\"a\"}: `selector` does not match template \
             `labels`",
            "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"0%\": may not be 0 when `maxSurge` is 0",
        ]
    );
    let spec = json!({"selector": {}, "template": template(), "strategy": {"type": "Recreate", "rollingUpdate": {}}});
    assert_eq!(
        wrong("deploy", "x", spec),
        [
            "spec.selector: Invalid value: {}: empty selector is invalid for deployment",
            "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'",
        ]
    );
    let mut bad = template();
    bad["spec"]["restartPolicy"] = json!("Never");
    let spec = json!({"selector": {"matchLabels": {"app": "a"}}, "template": bad});
    assert_eq!(
        wrong("deploy", "x", spec),
        ["spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\""]
    );
}

#[test]
fn jobs() {
    assert_eq!(
        wrong("job", "x", json!({"template": template(), "completionMode": "Indexed", "parallelism": 2})),
        [
            "spec.completions: Required value: when completion mode is Indexed",
            "spec.template.spec.restartPolicy: Unsupported value: \"Always\": supported values: \"Never\", \
             \"OnFailure\"",
        ]
    );
    let mut template = template();
    template["spec"]["restartPolicy"] = json!("OnFailure");
    let job = json!({"spec": {"template": template}});
    let spec = json!({"schedule": "* * * *", "jobTemplate": job, "concurrencyPolicy": "Queue"});
    assert_eq!(
        wrong("cj", &"x".repeat(53), spec)[1..],
        [
            "spec.schedule: Invalid value: \"* * * *\": expected exactly 5 fields, found 4: [* * * *]"
                .to_owned(),
            "spec.concurrencyPolicy: Unsupported value: \"Queue\": supported values: \"Allow\", \"Forbid\", \
             \"Replace\""
                .to_owned(),
        ]
    );
}

#[test]
fn a_job_selects_its_own_pods() {
    let registry = Registry::builtin();
    let kind = registry.find("job").unwrap();
    let value = json!({"metadata": {"name": "j", "uid": "u1"}, "spec": {"template": template()}});
    let mut object = kind.decode_value(&value).unwrap().object;
    kind.prepare_for_create(&mut *object);
    let job = object.to_value();
    let key = "batch.kubernetes.io/controller-uid";
    assert_eq!(job["spec"]["selector"]["matchLabels"][key], "u1");
    assert_eq!(job["spec"]["template"]["metadata"]["labels"][key], "u1");
    assert_eq!(job["spec"]["template"]["metadata"]["labels"]["job-name"], "j");
}
