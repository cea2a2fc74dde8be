use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};

use super::chain::{Attach, Chain};
use super::*;

fn call(words: &[(&str, &str)]) -> Result<Call, CniError> {
    let words: BTreeMap<String, String> =
        words.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Call::from_environment(|name| words.get(name).cloned())
}

#[test]
fn a_call_is_what_the_environment_says() {
    let add = [("CNI_COMMAND", "ADD"), ("CNI_CONTAINERID", "c-1"), ("CNI_IFNAME", "eth0")];
    let good = [&add[..], &[("CNI_NETNS", "/run/netns/x"), ("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAME=web")]];
    let good = call(&good.concat()).unwrap();
    assert_eq!((good.command, good.args["K8S_POD_NAME"].as_str()), (Command::Add, "web"));
    for (words, why) in [
        (&[][..], "CNI_COMMAND is not set"),
        (&[("CNI_COMMAND", "add")], "expected ADD, DEL"),
        (&[("CNI_COMMAND", "DEL")], "CNI_CONTAINERID is not set"),
        (&add, "CNI_NETNS is not set"),
        (
            &[&add[..1], &[("CNI_CONTAINERID", "../x"), ("CNI_IFNAME", "e")]].concat(),
            "CNI_CONTAINERID: \"../x\"",
        ),
        (&[&add[..2], &[("CNI_IFNAME", "a/b"), ("CNI_NETNS", "/x")]].concat(), "CNI_IFNAME: \"a/b\""),
        (&[&add[..], &[("CNI_NETNS", "/x"), ("CNI_ARGS", "a")]].concat(), "CNI_ARGS: \"a\""),
    ] {
        let error = call(words).unwrap_err();
        assert_eq!(error.code, code::ENVIRONMENT);
        assert!(error.msg.contains(why), "{error}");
    }
}

async fn ask(command: &str, config: Value) -> Result<String, CniError> {
    let get = |name: &str| (name == "CNI_COMMAND").then(|| command.to_owned());
    plugin::run(get, config.to_string().as_bytes()).await
}

#[tokio::test]
async fn what_is_wrong_has_its_number() {
    let versions: Value = serde_json::from_str(&ask("VERSION", json!({})).await.unwrap()).unwrap();
    assert_eq!(versions["supportedVersions"], json!(VERSIONS));
    let dir = tempfile::tempdir().unwrap();
    for (config, number) in [
        (json!("nothing"), code::DECODING),
        (json!({ "cniVersion": "9.0.0", "name": "n" }), code::VERSION),
        (json!({ "cniVersion": "1.0.0" }), code::CONFIG),
        (json!({ "cniVersion": "1.1.0", "name": "n", "subnet": "10.0.0.0/32" }), code::UNAVAILABLE),
        (json!({ "cniVersion": "1.1.0", "name": "n", "dataDir": dir.path() }), code::UNAVAILABLE),
    ] {
        assert_eq!(ask("STATUS", config.clone()).await.unwrap_err().code, number, "{config}");
    }
    let config = json!({ "cniVersion": "0.4.0", "name": "n", "dataDir": dir.path() });
    assert_eq!(ask("GC", config).await.unwrap(), "", "nothing can have been added");
}

/// A plugin that notes what it is told, and answers.
fn program(dir: &Path, name: &str, script: &str) {
    let path = dir.join(name);
    let script = format!(
        "#!/bin/sh\ninput=$(cat)\necho \"{name} $CNI_COMMAND $input\" >> {}/log\n{script}",
        dir.display()
    );
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn plugins_are_called_in_turn_and_back() {
    let dir = tempfile::tempdir().unwrap();
    let bins = [dir.path().to_owned()];
    let list = json!({ "cniVersion": "1.0.0", "name": "net", "plugins": [
        { "type": "one", "x": 1 },
        { "type": "two", "capabilities": { "portMappings": true, "other": false } },
    ] });
    std::fs::write(dir.path().join("20-b.conflist"), "nothing").unwrap();
    std::fs::write(dir.path().join("10-a.conflist"), list.to_string()).unwrap();
    let chain = Chain::load(dir.path(), &bins).unwrap().unwrap();
    assert_eq!(chain.missing(), ["one", "two"]);
    program(dir.path(), "one", "[ $CNI_COMMAND = DEL ] || echo '{\"cniVersion\":\"1.0.0\",\"by\":\"one\"}'");
    program(dir.path(), "two", "[ $CNI_COMMAND = DEL ] || echo '{\"cniVersion\":\"1.0.0\",\"by\":\"two\"}'");
    let mut attach = Attach { container: "c".into(), interface: "eth0".into(), ..Attach::default() };
    attach.capabilities.insert("portMappings".to_owned(), json!([{ "hostPort": 80 }]));
    attach.capabilities.insert("other".to_owned(), json!(1));
    let result = chain.add(&attach).unwrap();
    assert_eq!(result["by"], "two");
    chain.check(&attach, &result).unwrap();
    chain.del(&attach, Some(&result)).unwrap();
    let log = std::fs::read_to_string(dir.path().join("log")).unwrap();
    let lines: Vec<_> = log.lines().map(|line| line.splitn(3, ' ').collect::<Vec<_>>()).collect();
    let order: Vec<_> = lines.iter().map(|line| (line[0], line[1])).collect();
    let expected =
        [("one", "ADD"), ("two", "ADD"), ("one", "CHECK"), ("two", "CHECK"), ("two", "DEL"), ("one", "DEL")];
    assert_eq!(order, expected);
    let input = |n: usize| serde_json::from_str::<Value>(lines[n][2]).unwrap();
    assert_eq!(
        (&input(0)["x"], &input(0)["name"], &input(0)["prevResult"]),
        (&json!(1), &json!("net"), &Value::Null)
    );
    assert_eq!(input(1)["prevResult"]["by"], "one");
    assert_eq!(input(1)["runtimeConfig"], json!({ "portMappings": [{ "hostPort": 80 }] }));
    assert_eq!(input(5)["prevResult"]["by"], "two");
    // One fails: what there is of it is taken away.
    std::fs::remove_file(dir.path().join("log")).unwrap();
    program(
        dir.path(),
        "two",
        "[ $CNI_COMMAND = DEL ] && exit 0; echo '{\"code\":7,\"msg\":\"no\"}'; exit 1",
    );
    let error = chain.add(&attach).unwrap_err();
    assert_eq!((error.code, error.msg.as_str()), (7, "two ADD: no"));
    let log = std::fs::read_to_string(dir.path().join("log")).unwrap();
    assert_eq!(log.matches(" DEL ").count(), 2);
}

#[test]
fn a_folder_without_a_network_and_one_with_a_wrong_one() {
    let dir = tempfile::tempdir().unwrap();
    assert!(Chain::load(&dir.path().join("none"), &[]).unwrap().is_none());
    assert!(Chain::load(dir.path(), &[]).unwrap().is_none());
    for (text, why) in [
        ("{", "cannot be read"),
        ("{\"name\": \"n\", \"plugins\": []}", "at least one"),
        ("{\"name\": \"n\", \"plugins\": [{}]}", "plugins[0].type"),
        ("{\"type\": \"bridge\"}", "name: expected"),
    ] {
        std::fs::write(dir.path().join("a.conf"), text).unwrap();
        let error = Chain::load(dir.path(), &[]).unwrap_err();
        assert!(error.msg.contains("a.conf") && error.msg.contains(why), "{error}");
    }
}
