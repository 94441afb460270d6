//! What a container's process is: its words, its place, its user, and what may be run beside it.

use std::collections::{BTreeMap, BTreeSet};

use policy_engine::document::User;

use super::{
    Derivation,
    environment::{Environment, NotKnown, Value, expanded},
};
use crate::{
    expansion::expand,
    images::Image,
    pod::{Container, Exec, GroupsPolicy},
    users::{ImageUser, Users},
};

/// Signals by name (`signal(7)`, x86 and Arm), by number from 1.
const SIGNALS: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];
const REAL_TIME_MIN: u8 = 34;
const REAL_TIME_MAX: u8 = 64;
/// Those that every container can be sent: KILL and TERM.
const ALWAYS: [u8; 2] = [9, 15];

/// Where it starts; nothing for `/`.
pub(super) fn cwd(container: &Container, image: &Image) -> Option<String> {
    let cwd = [&container.working_dir, &image.config.working_dir];
    let cwd = cwd.into_iter().find(|cwd| !cwd.is_empty());
    cwd.filter(|cwd| *cwd != "/").cloned()
}

/// Whether the image's files have to be looked at for a container's user.
pub(crate) fn needs_users(
    pod: &crate::pod::PodSecurity,
    container: &Container,
    user: &str,
) -> bool {
    let own = &container.security_context;
    let has_group = own.run_as_group.or(pod.run_as_group).is_some();
    match own.run_as_user.or(pod.run_as_user) {
        Some(0) => false,
        Some(_) => !has_group,
        None => {
            let image = ImageUser::parse(user);
            let number = |text: &str| text.parse::<u32>().ok();
            let named = !image.user.is_empty() && number(image.user).is_none();
            let needs_group = match image.group {
                Some(group) => number(group).is_none(),
                None => !matches!(number(image.user), Some(0)) && !image.user.is_empty(),
            };
            named || needs_group && !has_group
        }
    }
}

impl Derivation<'_> {
    pub(super) fn args(
        &mut self,
        at: &str,
        container: &Container,
        image: &Image,
        environment: &Environment,
    ) -> Vec<String> {
        let command = self.words(&format!("{at}.command"), &container.command, environment);
        let args = self.words(&format!("{at}.args"), &container.args, environment);
        let config = &image.config;
        let words = match (container.command.is_empty(), container.args.is_empty()) {
            (false, _) => [command, args].concat(),
            (true, false) => [config.entrypoint.clone(), args].concat(),
            (true, true) => [config.entrypoint.clone(), config.cmd.clone()].concat(),
        };
        if words.is_empty() {
            let message = "the image says no program, so the pod must: set command";
            self.error(&format!("{at}.command"), message);
        }
        words
    }

    fn words(&mut self, at: &str, words: &[String], environment: &Environment) -> Vec<String> {
        let mut all = Vec::new();
        for (number, word) in words.iter().enumerate() {
            let at = format!("{at}[{number}]");
            match expanded(word, environment) {
                Ok(Value::Known { text, secret }) => {
                    if secret {
                        let message = "would have the value of a Secret in it, which the host \
                                       and every reader of the policy would see: let the program \
                                       read the variable itself";
                        self.error(&at, message);
                    }
                    all.push(text);
                }
                Ok(Value::Later(_)) => self.not_known(&at, word),
                Err(NotKnown(name)) => self.not_known(&at, &format!("$({name})")),
            }
        }
        all
    }

    fn not_known(&mut self, at: &str, name: &str) {
        let message = format!(
            "refers to {name}, which is not known before the pod runs: let the program read the \
             variable itself (sh -c 'exec program \"$NAME\"')"
        );
        self.error(at, message);
    }

    /// What probes and hooks run.
    pub(super) fn exec(
        &mut self,
        container: &Container,
        _environment: &Environment,
    ) -> BTreeSet<Vec<String>> {
        // A kubelet expands a probe's words with what `env` says as it is written, and the words
        // of a hook not at all.
        let literal: BTreeMap<&str, &str> = container
            .env
            .iter()
            .map(|one| (one.name.as_str(), one.value.as_deref().unwrap_or_default()))
            .collect();
        let known = |name: &str| literal.get(name).map(|value| (*value).to_owned());
        let probes = [
            &container.liveness_probe,
            &container.readiness_probe,
            &container.startup_probe,
        ];
        let probes = probes.into_iter().flatten();
        let probes = probes.filter_map(|probe| probe.exec.as_ref());
        let probes = probes.map(|Exec { command }| {
            let words = command.iter().map(|word| expand(word, known));
            words.collect::<Vec<_>>()
        });
        let hooks = [
            &container.lifecycle.post_start,
            &container.lifecycle.pre_stop,
        ];
        let hooks = hooks.into_iter().flatten();
        let hooks = hooks.filter_map(|hook| hook.exec.as_ref());
        let hooks = hooks.map(|Exec { command }| command.clone());
        probes
            .chain(hooks)
            .filter(|words| !words.is_empty())
            .collect()
    }

    pub(super) fn user(&mut self, at: &str, container: &Container, image: &Image) -> User {
        let pod = &self.workload.template.spec.security_context;
        let own = &container.security_context;
        let non_root = own.run_as_non_root.or(pod.run_as_non_root) == Some(true);
        let users = image.users.clone().unwrap_or_default();
        let found = match own.run_as_user.or(pod.run_as_user) {
            Some(uid) => Ok((uid, if uid == 0 { 0 } else { users.group_of(uid) })),
            None => of_image(&image.config.user, &users),
        };
        let (uid, gid) = found.unwrap_or_else(|name| {
            let message = format!(
                "its image runs as {name:?}, which is not in the image's /etc/passwd and \
                 /etc/group: set runAsUser"
            );
            self.error(&format!("{at}.image"), message);
            (0, 0)
        });
        if non_root && uid == 0 {
            let message = "runAsNonRoot is set, and it would run as root: set runAsUser";
            self.error(&format!("{at}.securityContext"), message);
        }
        let gid = own.run_as_group.or(pod.run_as_group).unwrap_or(gid);
        let groups = pod.supplemental_groups.iter().chain(&pod.fs_group);
        User {
            uid,
            gid,
            groups: groups.copied().filter(|group| *group != gid).collect(),
            strict: pod.groups_policy == GroupsPolicy::Strict,
        }
    }

    pub(super) fn signals(
        &mut self,
        at: &str,
        container: &Container,
        image: &Image,
    ) -> BTreeSet<u8> {
        let (field, name) = match (&container.lifecycle.stop_signal, &image.config.stop_signal) {
            (Some(name), _) => ("lifecycle.stopSignal", name),
            (None, Some(name)) => ("image", name),
            (None, None) => return BTreeSet::new(),
        };
        let Some(number) = signal(name) else {
            let message = format!("{name} is no signal");
            self.error(&format!("{at}.{field}"), message);
            return BTreeSet::new();
        };
        [number]
            .into_iter()
            .filter(|one| !ALWAYS.contains(one))
            .collect()
    }
}

/// The user of an image; the name that is not known otherwise.
fn of_image<'a>(text: &'a str, users: &Users) -> Result<(u32, u32), &'a str> {
    let ImageUser { user, group } = ImageUser::parse(text);
    let (uid, own) = match (user, user.parse::<u32>()) {
        ("", _) | (_, Ok(0)) => (0, 0),
        (_, Ok(uid)) => (uid, users.group_of(uid)),
        (name, Err(_)) => users.named(name).ok_or(text)?,
    };
    let gid = match group {
        None => own,
        Some(group) => match group.parse() {
            Ok(gid) => gid,
            Err(_) => users.group_named(group).ok_or(text)?,
        },
    };
    Ok((uid, gid))
}

/// The number of a signal by name, with or without `SIG`, or by number.
fn signal(text: &str) -> Option<u8> {
    let name = text.to_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    if let Ok(number) = name.parse::<u8>() {
        return (1..=REAL_TIME_MAX).contains(&number).then_some(number);
    }
    let offset = |rest: &str| rest.parse::<u8>().ok();
    if let Some(rest) = name.strip_prefix("RTMIN") {
        let offset = if rest.is_empty() {
            0
        } else {
            offset(rest.strip_prefix('+')?)?
        };
        return REAL_TIME_MIN
            .checked_add(offset)
            .filter(|one| *one <= REAL_TIME_MAX);
    }
    if let Some(rest) = name.strip_prefix("RTMAX") {
        let offset = if rest.is_empty() {
            0
        } else {
            offset(rest.strip_prefix('-')?)?
        };
        return REAL_TIME_MAX
            .checked_sub(offset)
            .filter(|one| *one >= REAL_TIME_MIN);
    }
    let position = SIGNALS.iter().position(|known| *known == name)?;
    u8::try_from(position + 1).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        for (text, number) in [
            ("SIGQUIT", Some(3)),
            ("quit", Some(3)),
            ("15", Some(15)),
            ("SIGRTMIN+3", Some(37)),
            ("SIGRTMAX-1", Some(63)),
            ("SIGWINCH", Some(28)),
            ("SIGNONE", None),
            ("0", None),
        ] {
            assert_eq!(signal(text), number, "{text}");
        }
    }

    #[test]
    fn an_images_user_is_a_number_in_the_end() {
        let users = Users {
            passwd: "app:x:10:20::/:/bin/sh\n".into(),
            group: "staff:x:50:\n".into(),
        };
        for (text, expected) in [
            ("", Ok((0, 0))),
            ("0", Ok((0, 0))),
            ("10", Ok((10, 20))),
            ("11", Ok((11, 0))),
            ("app", Ok((10, 20))),
            ("app:staff", Ok((10, 50))),
            ("app:7", Ok((10, 7))),
            ("none", Err("none")),
            ("app:none", Err("app:none")),
        ] {
            assert_eq!(of_image(text, &users), expected, "{text}");
        }
    }
}
