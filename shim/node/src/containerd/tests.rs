use std::{fs, os::unix::fs::PermissionsExt as _};

use super::*;

const BACKUP_NAME: &str = "config.toml.before-kata-cc";

/// A folder with an installed shim and a main file that only root reads.
fn node(main: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("bin")).unwrap();
    let shim = folder.path().join("bin/containerd-shim-kata-cc-v2");
    fs::write(shim, "").unwrap();
    let config = folder.path().join("config.toml");
    fs::write(&config, main).unwrap();
    fs::set_permissions(&config, fs::Permissions::from_mode(0o600)).unwrap();
    folder
}

fn arguments(folder: &Path, remove: bool) -> Arguments {
    Arguments {
        config: folder.join("config.toml"),
        remove,
        prefix: folder.to_owned(),
        configuration: None,
        containerd: "/nonexistent/containerd".into(),
    }
}

#[test]
fn a_file_that_only_root_reads_has_a_backup_and_a_drop_in_that_only_root_reads() {
    for text in ["version = 2 # two", "version = 3 # three"] {
        let folder = node(text);
        let changed = arguments(folder.path(), false).run().unwrap();
        assert!(changed.contains(&folder.path().join(BACKUP_NAME)));
        for path in changed {
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{}", path.display());
        }
        arguments(folder.path(), true).run().unwrap();
        let back = fs::read_to_string(folder.path().join("config.toml"));
        assert_eq!(back.unwrap(), text);
        assert!(!folder.path().join(BACKUP_NAME).exists());
    }
}

#[test]
fn an_imported_file_with_our_names_or_that_takes_ours_away_is_named() {
    for (version, text) in [
        (3, "[proxy_plugins.kata-cc]\n"),
        (2, "[proxy_plugins.kata-cc]\n"),
        (2, "[plugins.'io.containerd.grpc.v1.cri']\n"),
    ] {
        let main = format!("version = {version}\nimports = ['conf.d/o*.toml']\n");
        let folder = node(&main);
        let other = folder.path().join("conf.d/other.toml");
        fs::create_dir(folder.path().join("conf.d")).unwrap();
        fs::write(&other, text).unwrap();
        let error = arguments(folder.path(), false).run().unwrap_err();
        assert!(error.to_string().contains(&other.display().to_string()));
        assert!(!folder.path().join(BACKUP_NAME).exists());
    }
}
