//! Where the server keeps its objects.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use minik8s_reconcile::storage::Storage;
use minik8s_reconcile::storage::embedded::EmbeddedStorage;
use minik8s_reconcile::storage::etcd::{EtcdOptions, EtcdStorage, EtcdTls};

use crate::args::{Etcd, Server, StorageKind};

/// The storage that the arguments ask for.
pub async fn open(args: &Server) -> anyhow::Result<Arc<dyn Storage>> {
    Ok(match args.storage {
        StorageKind::Embedded => Arc::new(embedded(&args.data_dir)?),
        StorageKind::Etcd => Arc::new(EtcdStorage::connect(etcd(&args.etcd)?).await?),
    })
}

fn etcd(args: &Etcd) -> anyhow::Result<EtcdOptions> {
    let read =
        |path: &Path| fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()));
    let mut options = EtcdOptions::new(&args.etcd_endpoints);
    options.prefix.clone_from(&args.etcd_prefix);
    if let Some(ca) = &args.etcd_ca {
        let identity = match (&args.etcd_cert, &args.etcd_key) {
            (Some(certificate), Some(key)) => Some((read(certificate)?, read(key)?)),
            _ => None,
        };
        options.tls = Some(EtcdTls { ca: read(ca)?, identity });
    }
    if let (Some(user), Some(file)) = (&args.etcd_user, &args.etcd_password_file) {
        options.user = Some((user.clone(), read(file)?.trim_end_matches('\n').to_owned()));
    }
    Ok(options)
}

/// The storage in the server's own data.
fn embedded(data_dir: &Path) -> anyhow::Result<EmbeddedStorage> {
    refuse_old(data_dir)?;
    EmbeddedStorage::open(directory(data_dir))
        .with_context(|| format!("cannot open the data in {}", data_dir.display()))
}

/// The directory of that storage.
pub fn directory(data_dir: &Path) -> PathBuf {
    data_dir.join("objects")
}

/// Complains of data that this version would not see.
pub fn refuse_old(data_dir: &Path) -> anyhow::Result<()> {
    let old = data_dir.join("objects.redb");
    anyhow::ensure!(
        !old.exists(),
        "{} was written by a version of minik8s before storage format 1, which this version cannot read: \
         move it away to begin with an empty cluster",
        old.display()
    );
    Ok(())
}
