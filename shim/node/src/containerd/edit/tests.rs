use super::*;

const OLD: &str = "# mine\nversion = 2 # old\n\n[plugins.\"io.containerd.grpc.v1.cri\".containerd]\n  # why\n  snapshotter = \"overlayfs\"\n";
const NEW: &str = "# mine\nversion = 3\n\n[proxy_plugins.other]\n  type = \"snapshot\" # theirs\n";

fn names() -> Names {
    Names {
        shim: "/p/bin/shim".into(),
        configuration: "/p/a \"b\".toml".into(),
        drop_in: "/etc/containerd/conf.d/kata-cc.toml".into(),
    }
}

fn added(text: &str) -> Edited {
    add(text, &names()).unwrap()
}

#[test]
fn version_2_gets_a_block_behind_what_it_was() {
    let edited = added(OLD);
    let block = edited.main.strip_prefix(OLD).unwrap();
    assert!(block.starts_with(BEGIN) && block.ends_with(END), "{block}");
    assert_eq!(edited.drop_in, None);
    let document = parse(&edited.main).unwrap();
    let runtime = &document["plugins"]["io.containerd.grpc.v1.cri"]["containerd"]["runtimes"];
    let options = &runtime["kata-cc"]["options"];
    assert_eq!(options["ConfigPath"].as_str(), Some("/p/a \"b\".toml"));
}

#[test]
fn later_versions_get_an_import_and_a_drop_in_of_their_version() {
    let imports = "imports = [\"/etc/containerd/conf.d/kata-cc.toml\"]\n";
    for (version, number) in [("version = 3", 3), ("version = 4", 4)] {
        let edited = added(&NEW.replace("version = 3", version));
        let expected = NEW.replace("version = 3\n", &format!("{version}\n{imports}"));
        assert_eq!(edited.main, expected);
        let drop_in = edited.drop_in.unwrap();
        assert!(is_ours(&drop_in));
        let document = parse(&drop_in).unwrap();
        assert_eq!(document["version"].as_integer(), Some(number));
    }
}

#[test]
fn an_import_that_names_the_drop_in_already_is_enough() {
    for imports in [
        "[ '/etc/containerd/conf.d/*.toml' ]",
        "[\"/x\", \"conf.d/kata-cc.toml\"]",
    ] {
        let text = format!("imports = {imports} # c\nversion = 3\n");
        assert_eq!(added(&text).main, text);
    }
    let other = added("version = 3\nimports = [ # why\n  '/x/*.toml', # x\n]\n").main;
    assert!(other.contains("# why\n  '/x/*.toml'"), "{other}");
    assert!(other.contains("conf.d/kata-cc.toml\""), "{other}");
}

#[test]
fn run_again_it_writes_the_same_and_removed_it_gives_the_same_back() {
    let unended = OLD.trim_end();
    for text in [OLD, NEW, unended, "imports = []\nversion = 3", "version=4"] {
        let once = added(text);
        assert_eq!(added(&once.main), once, "{text}");
        let back = remove(&once.main, Some(text), &names().drop_in).unwrap();
        assert_eq!(back, text);
    }
}

#[test]
fn what_others_changed_meanwhile_stays_when_ours_is_removed() {
    let drop_in = names().drop_in;
    for text in [OLD, NEW] {
        let changed = format!("{}\n[debug]\n  level = \"debug\"\n", added(text).main);
        let back = remove(&changed, Some(text), &drop_in).unwrap();
        assert!(
            back.contains("# mine") && back.contains("[debug]"),
            "{back}"
        );
        assert!(!back.contains("kata-cc"), "{back}");
    }
    assert_eq!(remove(NEW, None, &drop_in).unwrap(), NEW);
}

#[test]
fn a_runtime_of_somebody_else_is_named() {
    for (version, table) in [
        (2, "proxy_plugins.kata-cc"),
        (
            2,
            "plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.kata-cc",
        ),
        (
            3,
            "plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes.kata-cc",
        ),
    ] {
        let text = format!("version = {version}\n[{table}]\nruntime_type = 'x'\n");
        let error = add(&text, &names()).unwrap_err().to_string();
        assert!(error.contains(&format!("[{table}]")), "{error}");
    }
}

#[test]
fn files_that_cannot_be_edited_are_refused() {
    let refused = |text| add(text, &names()).unwrap_err();
    assert!(matches!(refused("version = "), EditError::Syntax(_)));
    for text in ["", "version = 1", "version = 5", "version = '2'"] {
        assert!(matches!(refused(text), EditError::Version), "{text}");
    }
    let closed = "version = 2\nplugins = { a = 1 }";
    assert!(matches!(refused(closed), EditError::Closed(_)));
    let imports = "version = 3\nimports = 'x'";
    assert!(matches!(refused(imports), EditError::Imports));
}

#[test]
fn a_missing_file_is_the_default_of_version_2_and_short_later() {
    assert_eq!(absent(OLD).unwrap(), OLD);
    assert_eq!(absent(NEW).unwrap(), "version = 3\n");
    let imports = "imports = ['/etc/containerd/conf.d/*.toml']\n";
    let short = absent(&format!("version = 4\nroot = '/r'\n{imports}[grpc]\n")).unwrap();
    assert_eq!(short, format!("version = 4\n{imports}"));
}
