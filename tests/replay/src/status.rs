//! What the kubelet reported of a pod in the end, held against what was seen.

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{facts::Facts, recording};

/// What differs from the recorded status, a sentence each.
///
/// # Errors
/// When the recording is not what it should be.
pub fn unlike_recorded(pod: &str, facts: &Facts) -> Result<Vec<String>> {
    let status: Value = serde_json::from_str(&recording::read(&format!("status/{pod}.json"))?)?;
    let containers = status["containers"].as_array();
    let mut all = Vec::new();
    for one in containers.context("a status has containers")? {
        let name = one["name"].as_str().context("a container has a name")?;
        let name = match one["restartCount"].as_u64() {
            None | Some(0) => name.to_owned(),
            Some(count) => format!("{name}.{count}"),
        };
        let fact = |what: &str| facts.get(&format!("{name}/status.{what}"));
        for (what, expected) in expected(one) {
            let seen = fact(what).cloned().unwrap_or_default();
            // For want of a file, the kubelet reports what containerd says, or the log.
            let told = |text: &String| text == &expected;
            let log = facts.get(&format!("{name}/log.stdout"));
            let message = what == "told" && [fact("message"), log].into_iter().flatten().any(told);
            if seen != expected && !message {
                all.push(format!(
                    "{pod}/{name}: {what} is {seen:?}, not {expected:?}"
                ));
            }
        }
    }
    Ok(all)
}

fn expected(container: &Value) -> Vec<(&'static str, String)> {
    let user = &container["user"]["linux"];
    let groups: Vec<_> = user["supplementalGroups"]
        .as_array()
        .into_iter()
        .flatten()
        .collect();
    let groups: Vec<_> = groups.iter().map(ToString::to_string).collect();
    let user = format!("{} {} [{}]", user["uid"], user["gid"], groups.join(", "));
    let mut all = vec![("user", user)];
    let ended = &container["state"]["terminated"];
    // What still ran was stopped later.
    if ended.is_object() {
        let text = |name: &str| {
            ended[name]
                .as_str()
                .unwrap_or_default()
                .replace('\n', "\\n")
        };
        all.push(("exit", ended["exitCode"].to_string()));
        all.push(("reason", text("reason")));
        all.push(("told", text("message")));
    }
    all
}
