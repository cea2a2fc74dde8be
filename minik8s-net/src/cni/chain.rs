//! Calling plugins, one after the other.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::error::{CniError, code};

/// Where plugins are looked for, if nothing else is said.
pub const BIN_DIRS: [&str; 2] = ["/opt/cni/bin", "/usr/lib/cni"];

/// A network of plugins, each of which gets what the one before it made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Chain {
    name: String,
    version: String,
    plugins: Vec<Map<String, Value>>,
    bin_dirs: Vec<PathBuf>,
}

/// A container that plugins work on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Attach {
    /// Its id.
    pub container: String,
    /// Its network namespace; `None` where there is none any more.
    pub netns: Option<PathBuf>,
    /// The name of its interface.
    pub interface: String,
    /// Further words for all plugins, such as `K8S_POD_NAME`.
    pub args: Vec<(String, String)>,
    /// What plugins are told that declare to be capable of it, such as `portMappings`.
    pub capabilities: Map<String, Value>,
}

impl Chain {
    /// The network in `dir`: the first file, by name, that ends in `.conflist`, `.conf` or `.json`. `None` without one.
    ///
    /// # Errors
    /// It cannot be read, or is no configuration: numbers 5, 6 and 7, with the file.
    pub fn load(dir: &Path, bin_dirs: &[PathBuf]) -> Result<Option<Self>, CniError> {
        let failed = |error| CniError::new(code::IO, format!("{}: {error}", dir.display()));
        let entries = match std::fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let files = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>();
        let mut files = files.map_err(failed)?;
        let known = |path: &PathBuf| {
            path.extension()
                .and_then(|e| e.to_str())
                .is_some_and(|e| ["conflist", "conf", "json"].contains(&e))
        };
        files.retain(known);
        files.sort();
        let Some(path) = files.first() else { return Ok(None) };
        let text = std::fs::read(path)
            .map_err(|error| CniError::new(code::IO, format!("{}: {error}", path.display())))?;
        let chain = Self::parse(&text, bin_dirs);
        chain
            .map(Some)
            .map_err(|error| CniError { msg: format!("{}: {}", path.display(), error.msg), ..error })
    }

    fn parse(text: &[u8], bin_dirs: &[PathBuf]) -> Result<Self, CniError> {
        let wrong = |text: String| CniError::new(code::CONFIG, text);
        let value: Map<String, Value> = serde_json::from_slice(text)
            .map_err(|error| CniError::new(code::DECODING, format!("it cannot be read: {error}")))?;
        let word = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (name, version) = (word("name"), word("cniVersion"));
        if name.is_empty() {
            return Err(wrong("name: expected the name of the network".to_owned()));
        }
        let plugins = match value.get("plugins") {
            Some(Value::Array(plugins)) => plugins.clone(),
            Some(_) => return Err(wrong("plugins: expected a list".to_owned())),
            // A single plugin's.
            None => vec![Value::Object(value.clone())],
        };
        let plugins: Result<Vec<_>, _> = plugins
            .into_iter()
            .enumerate()
            .map(|(index, plugin)| match plugin {
                Value::Object(plugin) if plugin.get("type").is_some_and(Value::is_string) => Ok(plugin),
                _ => Err(wrong(format!("plugins[{index}].type: expected the name of a plugin"))),
            })
            .collect();
        let plugins = plugins?;
        if plugins.is_empty() {
            return Err(wrong("plugins: expected at least one".to_owned()));
        }
        let bin_dirs =
            if bin_dirs.is_empty() { BIN_DIRS.map(PathBuf::from).to_vec() } else { bin_dirs.to_vec() };
        Ok(Self { name, version, plugins, bin_dirs })
    }

    /// The name of the network.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The programs that are missing.
    pub fn missing(&self) -> Vec<String> {
        let types = self.plugins.iter().filter_map(|plugin| plugin["type"].as_str());
        types.filter(|name| self.program(name).is_none()).map(ToOwned::to_owned).collect()
    }

    fn program(&self, name: &str) -> Option<PathBuf> {
        // A name with a slash would be a path out of the folder.
        let named = self.bin_dirs.iter().map(|dir| dir.join(name));
        named.into_iter().find(|path| !name.contains('/') && path.is_file())
    }

    /// Puts a container on the network; answers with the last plugin's result. If one fails, what those before it made is
    /// removed. Blocks until all are through.
    ///
    /// # Errors
    /// What a plugin said.
    pub fn add(&self, attach: &Attach) -> Result<Value, CniError> {
        let mut previous = None;
        for plugin in &self.plugins {
            match self.call("ADD", plugin, attach, previous.as_ref()) {
                Ok(result) => previous = Some(result),
                Err(error) => {
                    if let Err(second) = self.del(attach, previous.as_ref()) {
                        tracing::warn!(
                            container = attach.container,
                            "a CNI plugin could not clean up: {second}"
                        );
                    }
                    return Err(error);
                }
            }
        }
        Ok(previous.unwrap_or_default())
    }

    /// Takes it off: the plugins in reverse, all of them, each with the result of [`Self::add`].
    ///
    /// # Errors
    /// What the first that failed said.
    pub fn del(&self, attach: &Attach, result: Option<&Value>) -> Result<(), CniError> {
        let mut failure = None;
        for plugin in self.plugins.iter().rev() {
            if let Err(error) = self.call("DEL", plugin, attach, result) {
                failure.get_or_insert(error);
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// Has all plugins see whether the container is as it was made.
    ///
    /// # Errors
    /// What a plugin said.
    pub fn check(&self, attach: &Attach, result: &Value) -> Result<(), CniError> {
        self.plugins.iter().try_for_each(|plugin| self.call("CHECK", plugin, attach, Some(result)).map(drop))
    }

    fn call(
        &self,
        command: &str,
        plugin: &Map<String, Value>,
        attach: &Attach,
        previous: Option<&Value>,
    ) -> Result<Value, CniError> {
        let name = plugin["type"].as_str().unwrap_or_default();
        let dirs = || self.bin_dirs.iter().map(|d| d.display().to_string()).collect::<Vec<_>>().join(":");
        let program = self
            .program(name)
            .ok_or_else(|| CniError::new(code::IO, format!("there is no plugin {name} in {}", dirs())))?;
        let input = self.input(plugin, attach, previous);
        let args: Vec<String> = attach.args.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let mut process = Command::new(&program);
        process
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", &attach.container)
            .env("CNI_IFNAME", &attach.interface)
            .env("CNI_ARGS", args.join(";"))
            .env("CNI_PATH", dirs())
            .env("CNI_NETNS", attach.netns.clone().unwrap_or_default())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let failed = |error| CniError::new(code::IO, format!("{}: {error}", program.display()));
        let mut child = process.spawn().map_err(failed)?;
        if let Some(mut stdin) = child.stdin.take() {
            match stdin.write_all(input.to_string().as_bytes()) {
                // It ended without reading all: what it says counts.
                Err(error) if error.kind() != ErrorKind::BrokenPipe => {
                    let _ = child.kill();
                    let _ = child.wait();
                    return Err(failed(error));
                }
                _ => {}
            }
        }
        let output = child.wait_with_output().map_err(failed)?;
        if !output.status.success() {
            let said = serde_json::from_slice::<CniError>(&output.stdout).unwrap_or_else(|_| {
                let words = if output.stderr.is_empty() { &output.stdout } else { &output.stderr };
                CniError::new(code::FAILED, String::from_utf8_lossy(words).trim().to_owned())
            });
            return Err(CniError { msg: format!("{name} {command}: {}", said.msg), ..said });
        }
        if output.stdout.iter().all(u8::is_ascii_whitespace) {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&output.stdout)
            .map_err(|error| CniError::new(code::DECODING, format!("{name} {command}: its result: {error}")))
    }

    /// What a plugin reads.
    fn input(&self, plugin: &Map<String, Value>, attach: &Attach, previous: Option<&Value>) -> Value {
        let mut input = plugin.clone();
        input.insert("name".to_owned(), json!(self.name));
        input.insert("cniVersion".to_owned(), json!(self.version));
        let able = input.remove("capabilities");
        let able = |key: &str| able.as_ref().and_then(|c| c.get(key)).and_then(Value::as_bool) == Some(true);
        let told: Map<String, Value> = attach
            .capabilities
            .iter()
            .filter(|(key, _)| able(key))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        if !told.is_empty() {
            input.insert("runtimeConfig".to_owned(), Value::Object(told));
        }
        if let Some(previous) = previous.filter(|previous| !previous.is_null()) {
            input.insert("prevResult".to_owned(), previous.clone());
        }
        Value::Object(input)
    }
}
