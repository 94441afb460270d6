//! The entries as files, for the parts of the guest that read them.
//!
//! The directory is the agent's own, in memory; no container sees it. Names were
//! checked when the document was parsed: each is one plain file name.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
};

use agent_protocol::initdata::{DOCUMENT_FILE, Initdata};

/// Writes the document and each of its entries.
pub(super) fn lay_out(directory: &Path, document: &Initdata) -> io::Result<()> {
    if let Some(parent) = directory.parent() {
        fs::create_dir_all(parent)?;
    }
    DirBuilder::new().mode(0o700).create(directory)?;
    let put = |name: &str, text: &str| {
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(directory.join(name))?;
        file.write_all(text.as_bytes())
    };
    put(DOCUMENT_FILE, document.text())?;
    document
        .entries()
        .iter()
        .try_for_each(|(name, text)| put(name, text))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, os::unix::fs::PermissionsExt as _};

    use agent_protocol::initdata::{Algorithm, write};

    use super::*;

    #[test]
    fn every_entry_and_the_document_become_private_files() {
        let entries = BTreeMap::from([
            ("aa.toml".to_owned(), "a = 1\n".to_owned()),
            ("cdh.toml".to_owned(), String::new()),
        ]);
        let document = write(Algorithm::Sha256, &entries).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("confidential/initdata");
        lay_out(&directory, &document).unwrap();
        let read = |name: &str| fs::read_to_string(directory.join(name)).unwrap();
        assert_eq!(read("initdata.toml"), document.text());
        assert_eq!(read("aa.toml"), "a = 1\n");
        assert_eq!(read("cdh.toml"), "");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&directory), 0o700);
        assert_eq!(mode(&directory.join("aa.toml")), 0o600);
        assert!(lay_out(&directory, &document).is_err(), "twice");
    }
}
