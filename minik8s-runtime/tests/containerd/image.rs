//! An image made of the busybox of this machine.

use std::path::Path;

use sha2::{Digest, Sha256};

pub(crate) fn put<W: std::io::Write>(tar: &mut tar::Builder<W>, name: &str, bytes: &[u8], mode: u32) {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(mode);
    tar.append_data(&mut header, name, bytes).unwrap();
}

/// An image in its parts.
pub(crate) struct Blobs {
    pub(crate) manifest: Vec<u8>,
    /// The configuration and the layer.
    pub(crate) others: [Vec<u8>; 2],
}

pub(crate) fn sha(bytes: &[u8]) -> String {
    format!("sha256:{:x}", Sha256::digest(bytes))
}

/// Busybox, its applets and a user database.
pub(crate) fn blobs() -> Blobs {
    let mut layer = tar::Builder::new(Vec::new());
    put(&mut layer, "bin/busybox", &std::fs::read("/bin/busybox").unwrap(), 0o755);
    for applet in ["sh", "cat", "echo", "sleep", "id", "env", "hostname", "stty", "tty", "dd", "kill", "seq"]
    {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        layer.append_link(&mut header, format!("bin/{applet}"), "busybox").unwrap();
    }
    put(&mut layer, "etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/:/bin/sh\n", 0o644);
    put(&mut layer, "etc/group", b"root:x:0:\nwww:x:34:\nlogs:x:40:web\n", 0o644);
    let layer = layer.into_inner().unwrap();
    let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = serde_json::to_vec(&serde_json::json!({
        "architecture": arch, "os": "linux",
        "config": {"Cmd": ["sh"], "Env": ["PATH=/bin", "FROM=image"], "User": "web"},
        "rootfs": {"type": "layers", "diff_ids": [sha(&layer)]},
    }))
    .unwrap();
    let manifest = serde_json::to_vec(&serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json", "digest": sha(&config), "size": config.len(),
        },
        "layers": [
            {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": sha(&layer), "size": layer.len()},
        ],
    }))
    .unwrap();
    Blobs { manifest, others: [config, layer] }
}

/// Writes an OCI layout with that one image.
pub(crate) fn write_image(path: &Path, name: &str) {
    let Blobs { manifest, others } = blobs();
    let index = serde_json::to_vec(&serde_json::json!({
        "schemaVersion": 2,
        "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": sha(&manifest), "size": manifest.len(),
            "annotations": {"io.containerd.image.name": name},
        }],
    }))
    .unwrap();
    let mut tar = tar::Builder::new(std::fs::File::create(path).unwrap());
    put(&mut tar, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#, 0o644);
    put(&mut tar, "index.json", &index, 0o644);
    for blob in others.iter().chain([&manifest]) {
        put(&mut tar, &format!("blobs/sha256/{}", &sha(blob)["sha256:".len()..]), blob, 0o644);
    }
    tar.finish().unwrap();
}
