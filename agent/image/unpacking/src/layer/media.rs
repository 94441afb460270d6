//! What a layer's media type says about its bytes.
//!
//! Types: OCI image specification 1.1 (`media-types.md`), Docker image manifest
//! version 2 schema 2, and the `+encrypted` types of the container image
//! encryption draft (`ocicrypt`).

/// How the archive is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

/// A layer's form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Form {
    pub(crate) compression: Compression,
    /// Whether it must be decrypted first.
    pub encrypted: bool,
}

const OCI: &str = "application/vnd.oci.image.layer.v1.tar";
const OCI_NONDISTRIBUTABLE: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar";
const DOCKER: &str = "application/vnd.docker.image.rootfs.diff.tar";
const DOCKER_FOREIGN: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar";

/// Parses a layer's media type; `None` if it is not one of a file-system layer.
#[must_use]
pub fn parse(media_type: &str) -> Option<Form> {
    let (plain, encrypted) = match media_type.strip_suffix("+encrypted") {
        Some(plain) => (plain, true),
        None => (media_type, false),
    };
    let oci = plain
        .strip_prefix(OCI)
        .or_else(|| plain.strip_prefix(OCI_NONDISTRIBUTABLE));
    let docker = plain
        .strip_prefix(DOCKER)
        .or_else(|| plain.strip_prefix(DOCKER_FOREIGN));
    let compression = match (oci, docker) {
        (Some(""), _) => Compression::None,
        (Some("+gzip"), _) => Compression::Gzip,
        (Some("+zstd"), _) => Compression::Zstd,
        (_, Some("")) if !encrypted => Compression::None,
        (_, Some(".gzip")) if !encrypted => Compression::Gzip,
        (_, Some(".zstd")) if !encrypted => Compression::Zstd,
        _ => return None,
    };
    Some(Form {
        compression,
        encrypted,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_type_is_read() {
        for base in [OCI, OCI_NONDISTRIBUTABLE] {
            for (suffix, compression) in [
                ("", Compression::None),
                ("+gzip", Compression::Gzip),
                ("+zstd", Compression::Zstd),
            ] {
                for encrypted in [false, true] {
                    let text = format!(
                        "{base}{suffix}{}",
                        if encrypted { "+encrypted" } else { "" }
                    );
                    assert_eq!(
                        parse(&text),
                        Some(Form {
                            compression,
                            encrypted
                        }),
                        "{text}"
                    );
                }
            }
        }
        for base in [DOCKER, DOCKER_FOREIGN] {
            for (suffix, compression) in [
                ("", Compression::None),
                (".gzip", Compression::Gzip),
                (".zstd", Compression::Zstd),
            ] {
                assert_eq!(
                    parse(&format!("{base}{suffix}")),
                    Some(Form {
                        compression,
                        encrypted: false
                    })
                );
            }
        }
    }

    #[test]
    fn other_types_are_not_layers() {
        for text in [
            "",
            "application/json",
            "application/vnd.oci.image.layer.v1.tar+xz",
            "application/vnd.docker.image.rootfs.diff.tar.gzip+encrypted",
            "application/vnd.oci.image.layer.v1.tarx",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
