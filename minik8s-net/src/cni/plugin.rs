//! Our plugin: a container gets an interface on the node's bridge and an address of the node's pods, out of the same store
//! as the agent's own pods.

use std::path::Path;

use serde_json::{Value, json};

use super::config::{Call, Command, Config};
use super::error::{CniError, code};
use crate::bridge::{BridgeConfig, BridgeNetwork, Plug};
use crate::overlay::Mac;

/// What owners of addresses that came through this plugin begin with. No pod's uid does.
const OWNER: &str = "cni:";

/// Does what the environment asks for, with the configuration that stands on standard input, and answers with what is to
/// be written to standard output. Must be called in a tokio runtime, in the network namespace of the node.
///
/// # Errors
/// What is to be written instead; the process then ends with 1.
pub async fn run(get: impl Fn(&str) -> Option<String>, input: &[u8]) -> Result<String, CniError> {
    let call = Call::from_environment(get)?;
    if call.command == Command::Version {
        return Ok(versions(input));
    }
    let config = Config::read(input)?;
    let answer = perform(&call, &config).await;
    answer.map_err(|error| CniError { cni_version: config.cni_version.clone(), ..error })
}

fn versions(input: &[u8]) -> String {
    let asked = serde_json::from_slice::<Value>(input).ok();
    let asked = asked.as_ref().and_then(|config| config["cniVersion"].as_str());
    let newest = super::VERSIONS[super::VERSIONS.len() - 1];
    json!({ "cniVersion": asked.unwrap_or(newest), "supportedVersions": super::VERSIONS }).to_string()
}

async fn perform(call: &Call, config: &Config) -> Result<String, CniError> {
    let owner = |container: &str, interface: &str| format!("{OWNER}{}/{container}/{interface}", config.name);
    let own = owner(&call.container, &call.interface);
    let network = match network(config) {
        Ok(network) => network,
        // Nothing can have been added.
        Err(error) if error.code == code::LATER && matches!(call.command, Command::Del | Command::Gc) => {
            return Ok(String::new());
        }
        Err(error) if call.command == Command::Status => {
            return Err(CniError { code: code::UNAVAILABLE, ..error });
        }
        Err(error) => return Err(error),
    };
    let netns = call.netns.as_deref().unwrap_or(Path::new(""));
    match call.command {
        Command::Add => {
            if !netns.exists() {
                let text = format!("CNI_NETNS: {}: no such namespace", netns.display());
                return Err(CniError::new(code::ENVIRONMENT, text));
            }
            let word = |key: &str| call.args.get(key).map(String::as_str);
            let alias = match (word("K8S_POD_NAMESPACE"), word("K8S_POD_NAME")) {
                (Some(namespace), Some(name)) => format!("{namespace}/{name}"),
                _ => call.container.clone(),
            };
            match network.plug(&own, netns, &call.interface, &alias).await {
                Ok(plug) => Ok(result(call, config, &network, &plug)),
                Err(error) => {
                    // Whoever is not added is not taken off either.
                    let _ = network.unplug(&own).await;
                    Err(error.into())
                }
            }
        }
        Command::Del => network.unplug(&own).await.map(|()| String::new()).map_err(Into::into),
        Command::Check => check(call, config, &network, &own).await.map(|()| String::new()),
        Command::Gc => {
            let valid: Vec<String> = config.valid.iter().map(|v| owner(&v.container, &v.ifname)).collect();
            let ours = format!("{OWNER}{}/", config.name);
            let mut failure = None;
            for stale in network.owners().await?.iter().filter(|o| o.starts_with(&ours) && !valid.contains(o))
            {
                if let Err(error) = network.unplug(stale).await {
                    failure.get_or_insert(error);
                }
            }
            failure.map_or(Ok(String::new()), |error| Err(error.into()))
        }
        Command::Status => match network.ready().await {
            Ok(()) => Ok(String::new()),
            Err(error) => Err(CniError::new(code::UNAVAILABLE, format!("the bridge is not there: {error}"))),
        },
        Command::Version => Ok(versions(b"")),
    }
}

fn network(config: &Config) -> Result<BridgeNetwork, CniError> {
    let (subnet, cluster) = config.subnets()?;
    let mut bridge = BridgeConfig::new(subnet, config.data_dir().join("network"));
    bridge.cluster = cluster;
    if let Some(name) = &config.bridge {
        bridge.bridge.clone_from(name);
    }
    let there = std::fs::read_to_string(format!("/sys/class/net/{}/mtu", bridge.bridge));
    let there = there.ok().and_then(|text| text.trim().parse().ok());
    bridge.mtu = config.mtu.or(there).unwrap_or(bridge.mtu);
    Ok(BridgeNetwork::join(bridge)?)
}

fn result(call: &Call, config: &Config, network: &BridgeNetwork, plug: &Plug) -> String {
    let subnet = network.subnet();
    let gateway = subnet.gateway();
    let bridge_mac = Mac(crate::bridge::mac_of(gateway)).to_string();
    let mut ip = json!({
        "interface": 2,
        "address": format!("{}/{}", plug.address, subnet.prefix()),
        "gateway": gateway,
    });
    if config.cni_version.starts_with("0.") {
        ip["version"] = json!(if gateway.is_ipv4() { "4" } else { "6" });
    }
    let everywhere = if gateway.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
    json!({
        "cniVersion": config.cni_version,
        "interfaces": [
            { "name": network.name(), "mac": bridge_mac },
            { "name": plug.port },
            { "name": call.interface, "mac": plug.mac.to_string(), "sandbox": call.netns },
        ],
        "ips": [ip],
        "routes": [{ "dst": everywhere, "gw": gateway }],
        "dns": {},
    })
    .to_string()
}

async fn check(call: &Call, config: &Config, network: &BridgeNetwork, own: &str) -> Result<(), CniError> {
    let changed = |text: String| CniError::new(code::CHANGED, text);
    let Some(previous) = &config.prev_result else {
        return Err(CniError::new(code::CONFIG, "prevResult: expected the result of ADD"));
    };
    let Some((address, plugged)) = network.plugged(own).await? else {
        return Err(changed(format!("{} has no address here", call.container)));
    };
    let prefix = network.subnet().prefix();
    let told = format!("{address}/{prefix}");
    let ips = previous["ips"].as_array().cloned().unwrap_or_default();
    if !ips.iter().any(|ip| ip["address"] == told.as_str()) {
        return Err(changed(format!("{} has {told}, which prevResult does not say", call.container)));
    }
    let netns = call.netns.as_deref().unwrap_or(Path::new(""));
    let inside = crate::rtnl::Rtnl::inside(netns).await?;
    let link = inside.link(&call.interface).await?;
    let (Some(link), true) = (link, plugged) else {
        return Err(changed(format!("{} has no {} on the bridge", call.container, call.interface)));
    };
    if !inside.addresses_of(link.index).await?.contains(&(address, prefix)) {
        return Err(changed(format!("{} of {} has lost {told}", call.interface, call.container)));
    }
    Ok(())
}
