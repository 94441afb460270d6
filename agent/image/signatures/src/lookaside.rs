//! Where simple signatures are kept: beside the registry, in a folder or on a web server.
//!
//! Format: `containers-registries.d(5)`; location: "separate storage" of the
//! signature protocols of containers/image. The configuration is the owner's, what
//! is found there is anybody's, so plain HTTP is fine: a signature proves itself.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read},
    path::PathBuf,
};

use agent_image_registry::{Client, Deadline, Digest, FetchError, Reference};

use super::{
    error::Refusal,
    policy::scopes_of,
    settings_file::{Entry, entries},
    shown::shown,
};

/// A simple signature has about a kilobyte.
const SIGNATURE_MAX_BYTES: u64 = 128 * 1024;
const SIZE_MAX: usize = 256 * 1024;
const NAMESPACES_MAX: usize = 4096;

/// Where the signatures of which images are.
#[derive(Debug, Clone, Default)]
pub struct Lookaside {
    default: Option<Store>,
    namespaces: BTreeMap<String, Store>,
}

/// The top of a store.
#[derive(Debug, Clone)]
enum Store {
    Folder(PathBuf),
    /// `http://` or `https://`, without a slash at its end.
    Web(String),
}

/// Why a lookaside configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("line {line} of the lookaside configuration cannot be used: {reason}")]
pub struct LookasideError {
    line: usize,
    reason: String,
}

impl Lookaside {
    /// Parses a `registries.d` file: `default-docker` and, by namespace, `docker`,
    /// each with `lookaside` (formerly `sigstore`). What is for writing is ignored.
    ///
    /// # Errors
    /// The file is no such file, or names a store that is neither folder nor web server.
    pub fn parse(text: &str) -> Result<Self, LookasideError> {
        if text.len() > SIZE_MAX {
            return Err(LookasideError {
                line: 0,
                reason: format!("it has more than {SIZE_MAX} bytes"),
            });
        }
        let entries = entries(text).map_err(|refused| LookasideError {
            line: refused.line,
            reason: refused.reason.to_owned(),
        })?;
        let mut lookaside = Self::default();
        // The old name first, so that the new one wins.
        for name in ["sigstore", "lookaside"] {
            for entry in &entries {
                lookaside
                    .add(name, entry)
                    .map_err(|reason| LookasideError {
                        line: entry.line,
                        reason,
                    })?;
            }
        }
        Ok(lookaside)
    }

    fn add(&mut self, wanted: &str, entry: &Entry) -> Result<(), String> {
        let path: Vec<&str> = entry.path.iter().map(String::as_str).collect();
        let (namespace, field) = match path.as_slice() {
            ["default-docker", field] => (None, *field),
            ["docker", namespace, field] => (Some(*namespace), *field),
            ["default-docker" | "docker"] | ["docker", _] if entry.value.is_empty() => {
                return Ok(());
            }
            _ => return Err(format!("`{}` is not known", shown(&path.join(".")))),
        };
        match field {
            "lookaside" | "sigstore" => {}
            "lookaside-staging"
            | "sigstore-staging"
            | "use-sigstore-attachments"
            | "use-cosign-attachments" => return Ok(()),
            other => return Err(format!("`{}` is not known", shown(other))),
        }
        if field != wanted || entry.value.is_empty() {
            return Ok(());
        }
        let store = Store::parse(&entry.value)?;
        match namespace {
            None => self.default = Some(store),
            Some(namespace) if self.namespaces.len() < NAMESPACES_MAX => {
                self.namespaces.insert(namespace.to_owned(), store);
            }
            Some(_) => return Err(format!("there are more than {NAMESPACES_MAX} namespaces")),
        }
        Ok(())
    }

    /// Where the signatures of one manifest of an image are; `None` if nothing says so.
    pub(super) fn place(&self, reference: &Reference, digest: &Digest) -> Option<Place> {
        let store = scopes_of(reference)
            .iter()
            .find_map(|scope| self.namespaces.get(scope))
            .or(self.default.as_ref())?;
        let folder = format!(
            "{}@{}",
            reference.repository(),
            digest.as_str().replacen(':', "=", 1)
        );
        Some(match store {
            Store::Folder(top) => Place::Folder(top.join(folder)),
            Store::Web(top) => Place::Web(format!("{top}/{folder}")),
        })
    }
}

impl Store {
    fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("file://") {
            if path.starts_with('/') && !path.contains('\0') {
                return Ok(Self::Folder(path.into()));
            }
        } else if text.starts_with("http://") || text.starts_with("https://") {
            let top = text.trim_end_matches('/');
            if Client::is_url(top) && !top.contains(['?', '#']) {
                return Ok(Self::Web(top.to_owned()));
            }
        }
        Err(format!(
            "`{}` is no `file:///path`, `http://…` or `https://…`",
            shown(text)
        ))
    }
}

/// The folder of one manifest's signatures.
#[derive(Debug)]
pub(super) enum Place {
    Folder(PathBuf),
    Web(String),
}

impl Place {
    /// The name of signature `number`, counted from 1.
    pub(super) fn name(&self, number: usize) -> String {
        match self {
            Self::Folder(folder) => format!("{}/signature-{number}", folder.display()),
            Self::Web(url) => format!("{url}/signature-{number}"),
        }
    }

    /// The signature's bytes; `None` if there is none of this number.
    pub(super) fn read(
        &self,
        number: usize,
        client: &Client,
        deadline: &Deadline,
    ) -> Result<Option<Vec<u8>>, Refusal> {
        match self {
            Self::Folder(folder) => {
                let file = match File::open(folder.join(format!("signature-{number}"))) {
                    Ok(file) => file,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                    Err(error) => return Err(Refusal::File(error)),
                };
                let mut bytes = Vec::new();
                file.take(SIGNATURE_MAX_BYTES + 1)
                    .read_to_end(&mut bytes)
                    .map_err(Refusal::File)?;
                if bytes.len() as u64 > SIGNATURE_MAX_BYTES {
                    return Err(Refusal::Size(SIGNATURE_MAX_BYTES));
                }
                Ok(Some(bytes))
            }
            Self::Web(_) => {
                let url = self.name(number);
                match client.get_url(&url, "signature", SIGNATURE_MAX_BYTES, deadline) {
                    Ok(answer) => Ok(Some(answer.body)),
                    Err(FetchError::NotFound { .. }) => Ok(None),
                    Err(error) => Err(error.into()),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str, image: &str) -> Option<String> {
        let digest = Digest::sha256(b"");
        let place = Lookaside::parse(text)
            .unwrap()
            .place(&Reference::parse(image).unwrap(), &digest)?;
        Some(place.name(1).replace(digest.hex(), "HEX"))
    }

    #[test]
    fn the_most_specific_namespace_wins() {
        let text = "default-docker:\n  sigstore: file:///d\ndocker:\n  r.example:\n    lookaside: http://l.example/s/\n    \
            sigstore: file:///old\n  r.example/team:\n    sigstore: file:///t\n    sigstore-staging: file:///w\n";
        for (image, place) in [
            ("r.example/team/app:1", "/t/team/app@sha256=HEX/signature-1"),
            (
                "r.example/app:1",
                "http://l.example/s/app@sha256=HEX/signature-1",
            ),
            ("busybox", "/d/library/busybox@sha256=HEX/signature-1"),
        ] {
            assert_eq!(name(text, image).unwrap(), place);
        }
        assert_eq!(
            name(
                "docker:\n  r.example:\n    lookaside: file:///x\n",
                "s.example/app"
            ),
            None
        );
        assert_eq!(name("docker:\n", "s.example/app"), None);
    }

    #[test]
    fn what_is_not_understood_is_refused_by_line() {
        for (text, part) in [
            ("other:\n  sigstore: file:///x\n", "line 2"),
            (
                "default-docker:\n  store: file:///x\n",
                "`store` is not known",
            ),
            ("default-docker:\n  sigstore: ftp://x\n", "ftp://x"),
            ("default-docker:\n  sigstore: file://x\n", "file://x"),
            ("default-docker:\n  sigstore: http://\n", "http://"),
            (
                "default-docker:\n  sigstore: https://u@h/x\n",
                "https://u@h",
            ),
            ("default-docker: {sigstore: x}\n", "line 1"),
        ] {
            let error = Lookaside::parse(text).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
