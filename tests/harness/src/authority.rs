//! The certificate authority of the bed's registry, made with `openssl`.
//!
//! It is kept in the cache, so that the guest image that trusts it is built
//! once. Its key signs registries of beds on this machine and nothing else.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};

use crate::{
    network::HOST,
    run::run_ok,
    tools::{cache_dir, unique},
};

const OPENSSL_DEADLINE: Duration = Duration::from_secs(30);

/// An authority on disk.
#[derive(Debug, Clone)]
pub struct Authority {
    directory: PathBuf,
}

impl Authority {
    /// Opens the cached authority, or makes it.
    ///
    /// # Errors
    /// When `openssl` fails.
    pub fn open() -> Result<Self> {
        let directory = cache_dir()?.join("bed-authority");
        let authority = Self { directory };
        if !authority.certificate().exists() {
            authority.make()?;
        }
        Ok(authority)
    }

    /// The certificate that clients trust, PEM.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.directory.join("ca.crt")
    }

    fn key(&self) -> PathBuf {
        self.directory.join("ca.key")
    }

    /// Made aside and moved into place, so that two beds at once end with one authority.
    fn make(&self) -> Result<()> {
        let aside = self.directory.with_extension(unique());
        fs::create_dir_all(&aside)?;
        openssl(&[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "3650",
            "-subj",
            "/CN=kata-cc test bed",
            "-addext",
            "keyUsage=critical,keyCertSign",
            "-keyout",
            &text(&aside.join("ca.key")),
            "-out",
            &text(&aside.join("ca.crt")),
        ])?;
        if fs::rename(&aside, &self.directory).is_err() && self.certificate().exists() {
            fs::remove_dir_all(&aside)?;
        }
        Ok(())
    }

    /// Signs a certificate for the bed's address; writes `server.crt` and `server.key`.
    ///
    /// # Errors
    /// When `openssl` fails.
    pub(crate) fn sign_server(&self, into: &Path) -> Result<()> {
        fs::create_dir_all(into).with_context(|| format!("making {}", into.display()))?;
        let request = text(&into.join("server.csr"));
        let extensions = into.join("server.ext");
        fs::write(
            &extensions,
            format!(
                "subjectAltName=IP:{HOST}\nextendedKeyUsage=serverAuth\nbasicConstraints=CA:FALSE\n"
            ),
        )?;
        openssl(&[
            "req",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-subj",
            "/CN=registry",
            "-keyout",
            &text(&into.join("server.key")),
            "-out",
            &request,
        ])?;
        openssl(&[
            "x509",
            "-req",
            "-in",
            &request,
            "-CA",
            &text(&self.certificate()),
            "-CAkey",
            &text(&self.key()),
            "-set_serial",
            "1",
            "-days",
            "3650",
            "-extfile",
            &text(&extensions),
            "-out",
            &text(&into.join("server.crt")),
        ])
    }
}

fn openssl(arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("openssl");
    command.args(arguments);
    run_ok(command, OPENSSL_DEADLINE).map(drop)
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
