//! Image references, written out in full as containerd keeps them.

use std::fmt;

/// A reference in its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The registry and path: `docker.io/library/busybox`.
    pub name: String,
    /// The tag; [`LATEST`] if neither tag nor digest was given, `None` beside a digest.
    pub tag: Option<String>,
    /// The digest: `sha256:…`.
    pub digest: Option<String>,
}

/// The tag that is meant without one.
pub const LATEST: &str = "latest";

/// The registry that is meant without one, as everywhere in Kubernetes.
const REGISTRY: &str = "docker.io";

impl Reference {
    /// Reads `[REGISTRY/]PATH[:TAG][@DIGEST]`, and fills in what is meant where it is not said. A digest makes the tag
    /// beside it void. `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        // A colon before the last slash belongs to the registry's port.
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        let (registry, path) = match name.split_once('/') {
            Some((first, path)) if first.contains(['.', ':']) || first == "localhost" => {
                (first, path.to_owned())
            }
            _ => (REGISTRY, name.to_owned()),
        };
        let registry = if registry == "index.docker.io" { REGISTRY } else { registry };
        let path = if registry == REGISTRY && !path.contains('/') { format!("library/{path}") } else { path };
        let sound = is_registry(registry)
            && path.split('/').all(is_path_component)
            && registry.len() + path.len() < 255
            && tag.is_none_or(is_tag)
            && digest.is_none_or(is_digest);
        sound.then(|| Self {
            name: format!("{registry}/{path}"),
            tag: if digest.is_some() { None } else { Some(tag.unwrap_or(LATEST).to_owned()) },
            digest: digest.map(str::to_owned),
        })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// Whether this is the digest of some content: `sha256:` and 64 hexadecimal digits.
pub fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|hex| {
        hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    })
}

fn is_registry(registry: &str) -> bool {
    let (host, port) = match registry.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (registry, None),
    };
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let sound_host = match bracketed {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.split('.').all(is_label),
    };
    sound_host && port.is_none_or(|port| port.parse::<u16>().is_ok())
}

/// Lower-case letters and digits, separated by single `.`, `_`, by `__`, or by any number of `-`.
fn is_path_component(component: &str) -> bool {
    let edge = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    let separators = component.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    edge(first)
        && edge(last)
        && separators
            .into_iter()
            .all(|run| matches!(run, "" | "." | "_" | "__") || run.bytes().all(|b| b == b'-'))
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let bytes = tag.as_bytes();
    bytes.len() <= 128
        && bytes.first().is_some_and(|&b| word(b))
        && bytes.iter().all(|&b| word(b) || b == b'.' || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn full(text: &str) -> Option<String> {
        Reference::parse(text).map(|reference| reference.to_string())
    }

    #[test]
    fn short_names_are_written_out() {
        for (short, long) in [
            ("busybox", "docker.io/library/busybox:latest"),
            ("busybox:1.36", "docker.io/library/busybox:1.36"),
            ("me/app", "docker.io/me/app:latest"),
            ("docker.io/busybox", "docker.io/library/busybox:latest"),
            ("index.docker.io/busybox", "docker.io/library/busybox:latest"),
            ("localhost/busybox:1", "localhost/busybox:1"),
            ("localhost:5000/a/b:v1", "localhost:5000/a/b:v1"),
            ("registry.example.com/a", "registry.example.com/a:latest"),
            ("10.0.0.1:5000/a", "10.0.0.1:5000/a:latest"),
            ("[fd00::1]:5000/a", "[fd00::1]:5000/a:latest"),
            ("a__b/c--d.e_f", "docker.io/a__b/c--d.e_f:latest"),
        ] {
            assert_eq!(full(short).as_deref(), Some(long), "{short}");
            assert_eq!(full(long).as_deref(), Some(long), "{long} is written out already");
        }
    }

    #[test]
    fn a_digest_makes_the_tag_void() {
        let both = format!("busybox:1.36@{DIGEST}");
        assert_eq!(full(&both), Some(format!("docker.io/library/busybox@{DIGEST}")));
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        for text in [
            "",
            "Busybox",
            "busybox:",
            "busybox:a b",
            "busy box",
            "/busybox",
            "a//b",
            "a/",
            "-a",
            "a-",
            "a..b",
            "a___b",
            "busybox@sha256:12",
            "busybox@md5:12",
            "localhost:port/a",
            "-x.com/a",
            "busybox:-tag",
        ] {
            assert_eq!(full(text), None, "{text:?}");
        }
    }
}
