//! What runs, with which environment, where.

use std::path::PathBuf;

use super::{SpecError, namespaces};
use crate::runtime::{ContainerSpec, Image};

/// Where programs are searched if the image does not say.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The pod's `command` replaces the image's entrypoint and makes its cmd void; the pod's `args` replace its cmd.
pub(super) fn args(spec: &ContainerSpec, image: &Image) -> Result<Vec<String>, SpecError> {
    let (command, args) = if !spec.command.is_empty() {
        (&spec.command, &spec.args)
    } else if !spec.args.is_empty() {
        (&image.entrypoint, &spec.args)
    } else {
        (&image.entrypoint, &image.cmd)
    };
    let all: Vec<String> = command.iter().chain(args).cloned().collect();
    // An empty program name is as good as none: the kernel would look for a file without a name.
    match all.first() {
        Some(program) if !program.is_empty() => Ok(all),
        _ => Err(SpecError::NoCommand),
    }
}

/// A usual search path and the host's name, then the image's variables, then the pod's; later ones win in place.
pub(super) fn env(spec: &ContainerSpec, image: &Image) -> Vec<String> {
    let mut env = Vec::with_capacity(image.env.len() + spec.env.len() + 3);
    set_env(&mut env, "PATH", PATH);
    if let Some(hostname) = namespaces::hostname(spec) {
        set_env(&mut env, "HOSTNAME", hostname);
    }
    if spec.tty {
        set_env(&mut env, "TERM", "xterm");
    }
    for variable in &image.env {
        // Images may carry a bare NAME: set, and empty.
        let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
        set_env(&mut env, name, value);
    }
    for (name, value) in &spec.env {
        set_env(&mut env, name, value);
    }
    env
}

/// Sets one variable, in the place of an earlier one of that name.
pub(super) fn set_env(env: &mut Vec<String>, name: &str, value: &str) {
    let entry = format!("{name}={value}");
    let earlier = env.iter_mut().find(|old| old.split_once('=').is_some_and(|(old, _)| old == name));
    match earlier {
        Some(old) => *old = entry,
        None => env.push(entry),
    }
}

/// The pod's, else the image's, else the root.
pub(super) fn working_dir(spec: &ContainerSpec, image: &Image) -> PathBuf {
    let dir = [&spec.working_dir, &image.working_dir].into_iter().find(|dir| !dir.is_empty());
    dir.map_or_else(|| PathBuf::from("/"), |dir| PathBuf::from("/").join(dir))
}
