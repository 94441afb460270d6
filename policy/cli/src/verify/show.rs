//! A verdict as text and as JSON.
//!
//! Evidence comes from strangers: whatever is printed of it is escaped, so that it can neither
//! move the cursor nor look like a line of ours.

use std::fmt;

use agent_evidence::log::{Entry, Event};
use serde::{Serialize, Serializer, ser::SerializeStruct as _};

use super::judge::Judged;

#[derive(Serialize)]
struct ShownEvent<'a> {
    domain: &'a str,
    operation: &'a str,
    content: &'a str,
}

impl fmt::Display for Judged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = self.verdict.to_string();
        let (checks, _) = verdict.rsplit_once('\n').unwrap_or_default();
        for line in checks.lines() {
            writeln!(f, "{}", escaped(line))?;
        }
        if !self.events().is_empty() {
            writeln!(f, "\nwhat the guest logged:")?;
        }
        for event in self.events() {
            let operation = escaped(event.operation());
            writeln!(f, "  {operation:<10} {}", escaped(&words(event)))?;
        }
        writeln!(f, "\nguard of the guest's kernel: {}", self.guard)?;
        let word = if self.is_accepted() {
            "accepted"
        } else {
            "refused"
        };
        writeln!(f, "\n{word}")
    }
}

impl Serialize for Judged {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let events: Vec<ShownEvent<'_>> = self
            .events()
            .iter()
            .map(|event| ShownEvent {
                domain: event.domain(),
                operation: event.operation(),
                content: event.content(),
            })
            .collect();
        let mut judged = serializer.serialize_struct("Judged", 4)?;
        judged.serialize_field("accepted", &self.is_accepted())?;
        judged.serialize_field("checks", self.verdict.findings())?;
        judged.serialize_field("kernel_guard", &self.guard)?;
        judged.serialize_field("log", &events)?;
        judged.end()
    }
}

/// What an event says, in one line; as it is if it is none of the guest's own.
fn words(event: &Event) -> String {
    let Some(Ok(entry)) = Entry::of(event) else {
        return event.content().to_owned();
    };
    let bound = |bound| {
        if bound {
            "bound by the report"
        } else {
            "not bound"
        }
    };
    let shortly = |digest: &dyn fmt::Display| digest.to_string().chars().take(16).collect();
    match entry {
        Entry::Boot(boot) => format!(
            "agent {}, kernel {}, tee {}",
            boot.agent,
            boot.kernel,
            boot.tee.as_deref().unwrap_or("none")
        ),
        Entry::Initdata(initdata) => format!(
            "{}:{}, {}",
            initdata.algorithm,
            initdata.digest,
            bound(initdata.bound)
        ),
        Entry::Policy(policy) => format!("sha256:{}, {}", policy.digest, bound(policy.bound)),
        Entry::Image(image) => format!("{} with manifest {}", image.reference, image.manifest),
        Entry::Container(container) => {
            let process: String = shortly(&container.digests.process);
            let image = container.image.as_deref().unwrap_or("none, it is a pause");
            let mut words = format!(
                "{} of image {image}, process {process}…",
                container.container
            );
            for mark in &container.marks {
                words.push_str(&format!("; {mark}"));
            }
            words + &times(container.count)
        }
        Entry::Exec(exec) => {
            let process: String = shortly(&exec.digests.process);
            format!("in {}, process {process}…", exec.container) + &times(exec.count)
        }
        Entry::Files(files) => {
            format!("at {}, sha256:{}", files.at, files.digest) + &times(files.count)
        }
        Entry::Change(change) => {
            let count = change.count;
            format!(
                "of {}, sha256:{}, the {count}. one",
                change.what, change.digest
            )
        }
        Entry::Denial(denial) => format!("by {}, for the {}. time", denial.rule, denial.count),
    }
}

/// How often, where it is more than once. The log tells at powers of two.
fn times(count: u64) -> String {
    match count {
        1 => String::new(),
        count => format!("; at least {count} times so far"),
    }
}

/// Text with everything but printable ASCII and the signs of our own messages escaped.
pub(crate) fn escaped(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            ' '..='~' | '≤' | '…' => shown.push(character),
            _ => shown.extend(character.escape_unicode()),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use agent_evidence::{
        Sha256Digest,
        log::{ContainerDigests, ContainerEntry, Operation},
    };

    use super::*;

    #[test]
    fn an_event_is_told_in_words_and_another_as_it_is() {
        let entry = Entry::from(ContainerEntry {
            container: "c1".to_owned(),
            image: Some("sha256:11".to_owned()),
            digests: ContainerDigests {
                process: Sha256Digest([2; 32]),
                environment: Sha256Digest([3; 32]),
                mounts: Sha256Digest([4; 32]),
                rights: Sha256Digest([5; 32]),
                settings: Sha256Digest([6; 32]),
            },
            marks: vec!["host content covers /x".to_owned()],
            chosen: Vec::new(),
            count: 2,
        });
        assert_eq!(
            words(&entry.event().unwrap()),
            "c1 of image sha256:11, process 0202020202020202…; host content covers /x; \
             at least 2 times so far"
        );
        let other = Event::of(Operation::Container, "web").unwrap();
        assert_eq!(words(&other), "web");
    }

    #[test]
    fn nothing_of_a_stranger_moves_the_cursor_or_turns_the_text_around() {
        assert_eq!(
            escaped("a b\u{1b}[2J\u{202e}ü"),
            "a b\\u{1b}[2J\\u{202e}\\u{fc}"
        );
    }
}
