//! Linux's TSM reports in configfs, for SNP and TDX alike.
//!
//! An entry is made for each report. Its generation counts writes: one, ours, or the
//! answer may belong to somebody else's question.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
};

use super::source::{Tee, TeeError, TeeKind};
use crate::{
    field::ReportData,
    obtained::{MAX_CERTIFICATES_LEN, Obtained},
};

const REPORTS: &str = "/sys/kernel/config/tsm/report";
/// Bound on what is read of any attribute; a TDX quote has about 8 KiB.
const MAX_ATTRIBUTE_LEN: usize = MAX_CERTIFICATES_LEN;

/// Reports through configfs.
#[derive(Debug)]
pub struct ConfigfsTsm {
    reports: PathBuf,
    kind: TeeKind,
}

struct Entry(PathBuf);

static NEXT_ENTRY: AtomicU64 = AtomicU64::new(0);

impl ConfigfsTsm {
    /// Looks for the interface and which TEE it serves.
    pub fn open() -> Option<Self> {
        let reports = PathBuf::from(REPORTS);
        let entry = Entry::make(&reports).ok()?;
        let kind = kind_of(&entry).ok()?;
        drop(entry);
        Some(Self { reports, kind })
    }
}

impl Tee for ConfigfsTsm {
    fn kind(&self) -> TeeKind {
        self.kind
    }

    fn obtain(&self, report_data: &ReportData) -> Result<Obtained, TeeError> {
        let entry = Entry::make(&self.reports)?;
        if kind_of(&entry)? != self.kind {
            return Err(TeeError::Provider(entry.text("provider")?));
        }
        let path = entry.path("inblob");
        fs::write(&path, report_data.0).map_err(|source| TeeError::File {
            step: "write",
            path,
            source,
        })?;
        let report = entry.read("outblob")?;
        // Kernels before 6.10 may lack it, and a host need not give any.
        let certificates = match entry.read("auxblob") {
            Err(TeeError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Vec::new()
            }
            read => read?,
        };
        if entry.text("generation")? != "1" {
            return Err(TeeError::Raced);
        }
        Ok(Obtained {
            report,
            certificates,
        })
    }
}

impl Entry {
    fn make(reports: &Path) -> Result<Self, TeeError> {
        let number = NEXT_ENTRY.fetch_add(1, Ordering::Relaxed);
        let path = reports.join(format!("kata-cc-{}-{number}", process::id()));
        match fs::create_dir(&path) {
            Ok(()) => Ok(Self(path)),
            Err(source) => Err(TeeError::File {
                step: "make",
                path,
                source,
            }),
        }
    }

    fn path(&self, attribute: &str) -> PathBuf {
        self.0.join(attribute)
    }

    fn read(&self, attribute: &str) -> Result<Vec<u8>, TeeError> {
        let path = self.path(attribute);
        let limit = u64::try_from(MAX_ATTRIBUTE_LEN).unwrap_or(u64::MAX);
        let mut content = Vec::new();
        File::open(&path)
            .and_then(|file| file.take(limit).read_to_end(&mut content))
            .map_err(|source| TeeError::File {
                step: "read",
                path,
                source,
            })?;
        Ok(content)
    }

    fn text(&self, attribute: &str) -> Result<String, TeeError> {
        let content = self.read(attribute)?;
        Ok(String::from_utf8_lossy(&content).trim_end().to_owned())
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        // An entry left behind holds a report and nothing secret.
        let _ = fs::remove_dir(&self.0);
    }
}

fn kind_of(entry: &Entry) -> Result<TeeKind, TeeError> {
    let provider = entry.text("provider")?;
    match provider.as_str() {
        "sev_guest" => Ok(TeeKind::Snp),
        "tdx_guest" => Ok(TeeKind::Tdx),
        _ => Err(TeeError::Provider(provider)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(provider: &str, generation: &str) -> (tempfile::TempDir, Entry) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("entry");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("provider"), provider).unwrap();
        fs::write(path.join("generation"), generation).unwrap();
        (folder, Entry(path))
    }

    #[test]
    fn provider_names_the_tee() {
        let (_folder, snp) = entry("sev_guest\n", "0\n");
        assert_eq!(kind_of(&snp).unwrap(), TeeKind::Snp);
        let (_folder, tdx) = entry("tdx_guest\n", "0\n");
        assert_eq!(kind_of(&tdx).unwrap(), TeeKind::Tdx);
        let (_folder, other) = entry("none\n", "0\n");
        assert!(matches!(kind_of(&other), Err(TeeError::Provider(_))));
    }

    #[test]
    fn a_missing_interface_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let tee = ConfigfsTsm {
            reports: folder.path().join("absent"),
            kind: TeeKind::Snp,
        };
        let error = tee.obtain(&ReportData::ZERO).unwrap_err();
        assert!(matches!(error, TeeError::File { step: "make", .. }));
    }
}
