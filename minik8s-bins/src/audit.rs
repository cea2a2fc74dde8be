//! `minik8s server --audit-log`: who asked for what.

use anyhow::{Context, ensure};
use jiff::SignedDuration;
use minik8s_reconcile::http::audit::{Audit, Level, LogFile, Policy, Rotation};

use crate::args::AuditOptions;

/// The audit log that is asked for, if one is.
pub fn open(options: &AuditOptions) -> anyhow::Result<Option<Audit>> {
    let Some(path) = &options.audit_log else {
        ensure!(
            options.audit_policy.is_none(),
            "--audit-policy says what to note; give --audit-log FILE too"
        );
        return Ok(None);
    };
    let policy = match &options.audit_policy {
        Some(file) => {
            let text =
                std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
            Policy::parse(&text).with_context(|| file.display().to_string())?
        }
        None => Policy::everything(Level::Metadata),
    };
    let rotation = Rotation {
        bytes: options.audit_log_max_size << 20,
        files: options.audit_log_max_files,
        age: SignedDuration::from_hours(i64::from(options.audit_log_max_age) * 24),
    };
    let file = LogFile::open(path, rotation).with_context(|| format!("cannot open {}", path.display()))?;
    Ok(Some(Audit::new(policy, file)))
}
