//! `minik8s backup` and `minik8s restore`.

use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use http_body_util::BodyExt;
use minik8s_reconcile::storage::backup::{self, Summary};

use crate::args::{Backup, Connection, Restore};
use crate::cli::{self, Session, note};
use crate::storage;

/// `minik8s backup`
pub async fn run(connection: &Connection, args: &Backup) -> anyhow::Result<()> {
    let file = &args.file;
    ensure!(
        args.force || !file.exists(),
        "{} exists already; give another name, or --force to replace it",
        file.display()
    );
    // It gets its name when it is whole.
    let unfinished = PathBuf::from(format!("{}.part", file.display()));
    let made = make(connection, args, &unfinished).await;
    if made.is_err() {
        let _ = fs::remove_file(&unfinished);
    }
    let summary = made?;
    fs::rename(&unfinished, file).with_context(|| format!("cannot make {}", file.display()))?;
    note(&format!(
        "{} objects at revision {} are in {}; the cluster's keys are not: keep the server's pki folder too",
        summary.objects,
        summary.revision,
        file.display()
    ));
    Ok(())
}

async fn make(connection: &Connection, args: &Backup, at: &Path) -> anyhow::Result<Summary> {
    let cannot = || format!("cannot write {}", at.display());
    let mut options = File::options();
    options.write(true).create(true).truncate(true);
    // There are secrets in it.
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut out = BufWriter::new(options.open(at).with_context(cannot)?);
    if args.salvage {
        let objects = storage::directory(&args.data_dir);
        let (_, lost) = backup::salvage(&objects, &mut out)?;
        for what in &lost {
            note(&format!("lost: {what}"));
        }
    } else {
        let session = Session::connect(connection).await?;
        let request = http::Request::get("/minik8s/backup").body(kube::client::Body::empty())?;
        let response = session.kube().send(request).await.map_err(cli::unreachable)?;
        let status = response.status();
        let mut body = response.into_body();
        if !status.is_success() {
            let text = body.collect().await?.to_bytes();
            bail!("the server answers {status}: {}", String::from_utf8_lossy(&text));
        }
        while let Some(frame) = body.frame().await {
            let frame = frame.context("the server has ended the backup")?;
            if let Ok(data) = frame.into_data() {
                out.write_all(&data).with_context(cannot)?;
            }
        }
    }
    let file = out.into_inner().map_err(|e| e.into_error()).with_context(cannot)?;
    file.sync_all().with_context(cannot)?;
    // As it will be read one day.
    Ok(backup::verify(BufReader::new(File::open(at)?), &at.display().to_string())?)
}

/// `minik8s restore`
pub fn restore(args: &Restore) -> anyhow::Result<()> {
    let name = args.file.display().to_string();
    let open = || {
        File::open(&args.file)
            .map(|f| BufReader::with_capacity(1 << 18, f))
            .with_context(|| format!("cannot read {name}"))
    };
    let objects = storage::directory(&args.data_dir);
    storage::refuse_old(&args.data_dir)?;
    if args.force && objects.exists() {
        // Not a step before it is known that there is something to put in its place.
        backup::verify(open()?, &name)?;
        let aside = set_aside(&objects)?;
        note(&format!("what was there is in {} now", aside.display()));
    }
    let summary = backup::restore(open()?, &name, &objects).with_context(|| {
        format!(
            "nothing was restored into {}; to put the backup in the place of what is there, stop its server and give --force",
            args.data_dir.display()
        )
    })?;
    note(&format!(
        "{} objects of revision {} are in {} now",
        summary.objects,
        summary.revision,
        args.data_dir.display()
    ));
    Ok(())
}

/// Moves the objects aside, if no server uses them.
fn set_aside(objects: &Path) -> anyhow::Result<PathBuf> {
    let lock = backup::lock(objects)?;
    let aside = (1..)
        .map(|n| PathBuf::from(format!("{}.before-restore-{n}", objects.display())))
        .find(|path| !path.exists())
        .expect("there is always another number");
    fs::rename(objects, &aside).with_context(|| format!("cannot move {} aside", objects.display()))?;
    drop(lock);
    Ok(aside)
}
