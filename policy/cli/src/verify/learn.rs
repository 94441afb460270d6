//! What ran, as a file for `--workload`: from a run that its owner trusts.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, anyhow, bail};
use policy_appraisal::Workload;

use super::judge::Judged;

/// Writes it, if the evidence is accepted: what a stranger says is not learnt.
///
/// # Errors
///
/// When there is no log, or the file cannot be written.
pub(super) fn write(judged: &Judged, path: &Path) -> Result<()> {
    if !judged.is_accepted() {
        eprintln!("kata-cc: nothing is learnt from evidence that is refused");
        return Ok(());
    }
    let Some(log) = &judged.log else {
        bail!("this form of evidence has no log to learn from");
    };
    let workload = Workload::learn(log)
        .map_err(|line| anyhow!("entry {line} of the log is malformed: nothing can be learnt"))?;
    let text = serde_json::to_string_pretty(&workload)?;
    fs::write(path, text + "\n").with_context(|| format!("writing {}", path.display()))
}
