//! What a node asks for instead of what the YAML says, and how the guest denies it.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::life::{Life, set_variable};

/// One thing that a node changes in what it asks for a container.
#[derive(Debug, Clone, Copy)]
pub struct Change {
    /// The pod and the container.
    pub of: (&'static str, &'static str),
    /// What is changed.
    pub what: &'static str,
    /// The code of the denial, and a pointer that it has to name.
    pub denied: (&'static str, &'static str),
    change: fn(&mut Value),
}

const fn change(
    of: (&'static str, &'static str),
    what: &'static str,
    denied: (&'static str, &'static str),
    change: fn(&mut Value),
) -> Change {
    Change {
        of,
        what,
        denied,
        change,
    }
}

const LOCKED: (&str, &str) = ("security", "app");
const EMPTY: (&str, &str) = ("empty-dirs", "main");
const CONFIGURED: (&str, &str) = ("config-sub-path", "app");

fn security(config: &mut Value) -> &mut Value {
    &mut config["linux"]["security_context"]
}

fn mount_at<'a>(config: &'a mut Value, at: &str) -> Option<&'a mut Value> {
    let mut mounts = config["mounts"].as_array_mut()?.iter_mut();
    mounts.find(|one| one["container_path"] == at)
}

/// Each is asked of the VM that then runs the pod as it should be.
pub const CHANGES: [Change; 21] = [
    change(LOCKED, "command", ("ARGUMENTS", "/args"), |one| {
        one["command"] = json!(["sh", "-c", "id"]);
    }),
    change(
        LOCKED,
        "variable",
        ("ENV_NOT_DECLARED", "/env/LD_PRELOAD"),
        |one| {
            set_variable(one, "LD_PRELOAD", "/tmp/evil.so");
        },
    ),
    change(LOCKED, "host name", ("ENV_VALUE", "/env/HOSTNAME"), |one| {
        set_variable(one, "HOSTNAME", "evil");
    }),
    change(LOCKED, "user", ("USER", "/user/uid"), |one| {
        security(one)["run_as_user"] = json!({"value": "10009"});
    }),
    change(LOCKED, "group", ("GROUPS", "/user/groups"), |one| {
        security(one)["supplemental_groups"] = json!(["10002", "10003", "10004", "4242"]);
    }),
    change(LOCKED, "capability", ("CAPABILITIES", ""), |one| {
        security(one)["capabilities"]["add_capabilities"] = json!(["NET_BIND_SERVICE", "CHOWN"]);
    }),
    change(LOCKED, "new privileges", ("NO_NEW_PRIVILEGES", ""), |one| {
        security(one)["no_new_privs"] = json!(false);
    }),
    change(LOCKED, "writable root", ("READ_ONLY_ROOT", ""), |one| {
        security(one)["readonly_rootfs"] = json!(false);
    }),
    change(LOCKED, "all capabilities", ("CAPABILITIES", ""), |one| {
        security(one)["capabilities"] = json!({"add_capabilities": ["ALL"]});
    }),
    change(
        LOCKED,
        "processes of all",
        ("PROCESS_NAMESPACE", ""),
        |one| {
            security(one)["namespace_options"]["pid"] = json!("POD");
        },
    ),
    change(LOCKED, "directory", ("WORKING_DIRECTORY", ""), |one| {
        one["working_dir"] = json!("/tmp");
    }),
    change(LOCKED, "terminal", ("TERMINAL", ""), |one| {
        one["tty"] = json!(true);
    }),
    change(
        LOCKED,
        "another container",
        ("CONTAINER_NOT_DECLARED", ""),
        |one| {
            one["metadata"]["name"] = json!("debugger");
            one["labels"]["io.kubernetes.container.name"] = json!("debugger");
        },
    ),
    change(
        EMPTY,
        "mount left out",
        ("MOUNT_MISSING", "/mounts/~1cache"),
        |one| {
            if let Some(mounts) = one["mounts"].as_array_mut() {
                mounts.retain(|one| one["container_path"] != "/cache/");
            }
        },
    ),
    change(
        EMPTY,
        "mount added",
        ("COPY_TARGET", "/mounts/bin"),
        |one| {
            if let Some(mounts) = one["mounts"].as_array_mut() {
                mounts.push(json!({"container_path": "/usr/bin", "host_path": "/run/bed/cni"}));
            }
        },
    ),
    change(
        EMPTY,
        "volume of another",
        ("MOUNT_SOURCE", "/mounts/~1whole"),
        |one| {
            let other = mount_at(one, "/cache/").map(|one| one["host_path"].clone());
            if let (Some(mount), Some(other)) = (mount_at(one, "/whole"), other) {
                mount["host_path"] = other;
            }
        },
    ),
    change(
        EMPTY,
        "read-only",
        ("MOUNT_OPTIONS", "/mounts/~1whole"),
        |one| {
            if let Some(mount) = mount_at(one, "/whole") {
                mount["readonly"] = json!(true);
            }
        },
    ),
    change(
        EMPTY,
        "service",
        ("ENV_NOT_DECLARED", "/env/EVIL_SERVICE_HOST"),
        |one| {
            set_variable(one, "EVIL_SERVICE_HOST", "10.0.0.1");
        },
    ),
    change(EMPTY, "downward value", ("ENV_VALUE", "/env/POD"), |one| {
        set_variable(one, "POD", "other");
    }),
    change(
        CONFIGURED,
        "value of a ConfigMap",
        ("ENV_VALUE", "/env/COLOUR"),
        |one| {
            set_variable(one, "COLOUR", "red");
        },
    ),
    change(
        CONFIGURED,
        "file over a program",
        ("COPY_TARGET", "/mounts/sh"),
        |one| {
            if let Some(mount) = mount_at(one, "/etc/app.conf") {
                mount["container_path"] = json!("/bin/sh");
            }
        },
    ),
];

/// Asks for each change of a container, and holds each answer against what it has to be.
pub(super) fn deny_changes(life: &Life<'_>, pod: &str, name: &str, config: &Value) -> Result<()> {
    for Change {
        what,
        denied: (code, pointer),
        change,
        ..
    } in CHANGES.iter().filter(|one| one.of == (pod, name))
    {
        let mut changed = config.clone();
        change(&mut changed);
        ensure!(changed != *config, "{what} changes nothing");
        let refusal = life.start(&changed)?.err();
        let refusal = refusal.with_context(|| format!("{what} was not denied"))?;
        is_denied(&refusal, code, pointer).with_context(|| format!("the node changed: {what}"))?;
    }
    Ok(())
}

/// Holds that it is the policy's denial, with this code, of this member.
///
/// # Errors
/// When it is another one, or none.
pub fn is_denied(refusal: &str, code: &str, pointer: &str) -> Result<()> {
    let told = format!("is blocked by policy: {code} ");
    ensure!(refusal.contains(&told), "not {code}: {refusal}");
    let at = refusal.split_once(" at ").map_or("", |(_, at)| at);
    ensure!(at.contains(pointer), "not at {pointer}: {refusal}");
    Ok(())
}
