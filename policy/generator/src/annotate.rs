//! The annotation, in the owner's files or in a patch.
//!
//! A file is changed where the annotation has to be and nowhere else: comments, order and spelling
//! stay. What comes out is read again and compared with what was there: it says the same, and the
//! annotation.

use std::fmt::Write as _;

use agent_protocol::initdata::{ANNOTATION, POLICY_ANNOTATION};

use crate::{
    derive::containers,
    generate::Generated,
    inputs::{Inputs, Reading, Text, Workload},
    problem::Problems,
    yaml::{self, Key, Kind, Node},
};

/// Why the annotation cannot be put into a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AnnotateError {
    /// It is written once and used twice.
    #[error(
        "{file}:{line}: the metadata of {workload} is used elsewhere in the file too (an alias), so it cannot be changed here: make a patch instead (--output patch)"
    )]
    Shared {
        /// The file.
        file: String,
        /// Where.
        line: usize,
        /// What has it.
        workload: String,
    },
    /// The older annotation says another policy.
    #[error(
        "{file}:{line}: {workload} has the annotation {POLICY_ANNOTATION} too, and a pod can have one policy: remove it"
    )]
    Two {
        /// The file.
        file: String,
        /// Where.
        line: usize,
        /// What has it.
        workload: String,
    },
    /// What was written does not say what it should; a bug.
    #[error(
        "{0} cannot be changed without changing what it says: make a patch instead (--output patch)"
    )]
    Different(String),
}

/// The annotations with a policy or initdata of each pod of a file: what has it, the annotation's
/// name, and its value.
///
/// # Errors
///
/// [`Problems`] where the text is no YAML.
pub fn annotations(file: &Text, reading: &Reading) -> Result<Vec<[String; 3]>, Problems> {
    let lenient = Reading {
        lenient: true,
        ..reading.clone()
    };
    let inputs = Inputs::read(vec![file.clone()], Vec::new(), &lenient);
    if inputs.workloads.is_empty() && Problems::any_error(&inputs.problems) {
        return Err(Problems(inputs.problems));
    }
    let of = |workload: &Workload| {
        let name = format!("{} {}", workload.kind, workload.name);
        let annotations = &workload.template.metadata.annotations;
        let found = [ANNOTATION, POLICY_ANNOTATION]
            .into_iter()
            .filter_map(|known| {
                let value = annotations.get(known)?.clone();
                Some([name.clone(), known.to_owned(), value])
            });
        found.collect::<Vec<_>>()
    };
    Ok(inputs.workloads.iter().flat_map(of).collect())
}

/// Images that the pods of a file name by a tag only: what has the pod, and the image.
#[must_use]
pub fn images_by_tag(file: &Text) -> Vec<(String, String)> {
    let reading = Reading::default();
    let inputs = Inputs::read(vec![file.clone()], Vec::new(), &reading);
    let of = |workload: &Workload| {
        let name = format!("{} {}", workload.kind, workload.name);
        let all = containers(workload).into_iter();
        let images = all.map(|(_, _, container)| container.image.clone());
        let tagged = images.filter(|image| !image.is_empty() && !image.contains('@'));
        tagged
            .map(|image| (name.clone(), image))
            .collect::<Vec<_>>()
    };
    inputs.workloads.iter().flat_map(of).collect()
}

/// A change of a text: what to put in place of some bytes.
struct Edit {
    at: std::ops::Range<usize>,
    text: String,
}

/// The files with the annotation of each pod, in the order of [`Generated::policies`]; only files
/// with pods.
///
/// # Errors
///
/// [`AnnotateError`].
pub fn annotated(generated: &Generated, values: &[String]) -> Result<Vec<Text>, AnnotateError> {
    let inputs = &generated.inputs;
    let mut all = Vec::new();
    for (number, file) in inputs.files.iter().enumerate() {
        let mut edits = Vec::new();
        for (policy, value) in generated.policies.iter().zip(values) {
            let workload = inputs.workloads.get(policy.workload);
            if let Some(workload) = workload.filter(|one| one.file == number) {
                edits.push(edit(generated, workload, (file, value))?);
            }
        }
        if edits.is_empty() {
            continue;
        }
        let text = applied(&file.text, edits);
        check(generated, number, (&text, values))?;
        let name = file.name.clone();
        all.push(Text { name, text });
    }
    Ok(all)
}

fn document<'a>(generated: &'a Generated, workload: &Workload) -> Option<&'a Node> {
    let documents = generated.inputs.documents.get(workload.file)?;
    documents.get(workload.document)
}

fn edit(
    generated: &Generated,
    workload: &Workload,
    (file, value): (&Text, &str),
) -> Result<Edit, AnnotateError> {
    let name = || format!("{} {}", workload.kind, workload.name);
    let different = || AnnotateError::Different(file.name.clone());
    let document = document(generated, workload).ok_or_else(different)?;
    let template = document.find(&workload.path).ok_or_else(different)?;
    let metadata = template
        .entry("metadata")
        .filter(|(_, node)| !node.is_null());
    let annotations = metadata.and_then(|(_, node)| node.entry("annotations"));
    let old = annotations.and_then(|(_, node)| node.entry(POLICY_ANNOTATION));
    if let Some((key, _)) = old {
        return Err(AnnotateError::Two {
            file: file.name.clone(),
            line: key.line,
            workload: name(),
        });
    }
    if is_shared(document, &workload.path) {
        return Err(AnnotateError::Shared {
            file: file.name.clone(),
            line: template.line,
            workload: name(),
        });
    }
    let annotations = annotations.filter(|(_, node)| !node.is_null());
    let old = annotations.and_then(|(_, node)| node.entry(ANNOTATION));
    if let Some((_, node)) = old {
        return Ok(Edit {
            at: node.span.clone(),
            text: quoted(value),
        });
    }
    let added: &[&str] = match (metadata, annotations) {
        (_, Some(_)) => &[ANNOTATION],
        (Some(_), None) => &["annotations", ANNOTATION],
        (None, None) => &["metadata", "annotations", ANNOTATION],
    };
    let place = annotations.or(metadata).map_or(template, |(_, node)| node);
    let empty = place.entry(added.first().copied().unwrap_or_default());
    match empty {
        // `annotations:` without anything.
        Some((key, node)) => Ok(in_place_of_nothing(&file.text, key, node, (added, value))),
        None => first_entry(&file.text, place, (added, value)).ok_or_else(different),
    }
}

/// Whether anything on the way to the pod's annotations is written elsewhere.
fn is_shared(document: &Node, path: &str) -> bool {
    let paths = [
        path.to_owned(),
        format!("{path}.metadata"),
        format!("{path}.metadata.annotations"),
    ];
    paths.iter().any(|path| {
        let ends = path
            .match_indices('.')
            .map(|(end, _)| end)
            .chain([path.len()]);
        let mut prefixes = ends.filter_map(|end| path.get(..end));
        prefixes.any(|prefix| document.find(prefix).is_some_and(|node| node.borrowed))
    })
}

fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}

/// `{"a": {"b": "value"}}` of the names behind the first.
fn in_braces(names: &[&str], value: &str) -> String {
    match names.split_first() {
        None => quoted(value),
        Some((name, rest)) => format!("{{{}: {}}}", quoted(name), in_braces(rest, value)),
    }
}

fn in_place_of_nothing(
    text: &str,
    key: &Key,
    node: &Node,
    (names, value): (&[&str], &str),
) -> Edit {
    let behind = text.get(key.span.end..).unwrap_or_default();
    let colon = behind.find(':').map_or(0, |at| at + 1);
    let after = key.span.end + colon;
    let inner = in_braces(names.get(1..).unwrap_or_default(), value);
    let said = text.get(node.span.clone()).unwrap_or_default();
    if said.is_empty() {
        return Edit {
            at: after..after,
            text: format!(" {inner}"),
        };
    }
    Edit {
        at: node.span.clone(),
        text: inner,
    }
}

/// Puts names and a value before the first entry of a map.
fn first_entry(text: &str, map: &Node, (names, value): (&[&str], &str)) -> Option<Edit> {
    let Kind::Map(entries) = &map.kind else {
        return None;
    };
    let (name, rest) = names.split_first()?;
    if map.flow {
        let brace = map.span.start + 1;
        let comma = if entries.is_empty() { "" } else { ", " };
        let entry = format!("{}: {}{comma}", quoted(name), in_braces(rest, value));
        return Some(Edit {
            at: brace..brace,
            text: entry,
        });
    }
    // Of those that are written here and not merged in from elsewhere.
    let own = entries.iter().filter(|(_, value)| !value.borrowed);
    let (first, _) = own.min_by_key(|(key, _)| key.span.start)?;
    let start = first.span.start;
    let line = text.get(..start)?.rfind('\n').map_or(0, |at| at + 1);
    let before = text.get(line..start)?;
    let mut entry = String::new();
    let columns = before.chars().count();
    for (depth, name) in names.iter().enumerate() {
        let indent = match depth {
            0 => String::new(),
            depth => " ".repeat(columns + 2 * depth),
        };
        let is_last = depth + 1 == names.len();
        let value = if is_last {
            quoted(value)
        } else {
            String::new()
        };
        let line = format!("{indent}{name}: {value}");
        // Writing to a string cannot fail.
        let _ = writeln!(entry, "{}", line.trim_end());
    }
    entry.push_str(&" ".repeat(columns));
    Some(Edit {
        at: start..start,
        text: entry,
    })
}

fn applied(text: &str, mut edits: Vec<Edit>) -> String {
    edits.sort_by_key(|edit| edit.at.start);
    let (mut whole, mut done) = (String::with_capacity(text.len()), 0);
    for edit in edits {
        whole.push_str(text.get(done..edit.at.start).unwrap_or_default());
        whole.push_str(&edit.text);
        done = edit.at.end;
    }
    whole.push_str(text.get(done..).unwrap_or_default());
    whole
}

/// Compares what a changed file says with what it said.
fn check(
    generated: &Generated,
    file: usize,
    (text, values): (&str, &[String]),
) -> Result<(), AnnotateError> {
    let inputs = &generated.inputs;
    let name = inputs.files.get(file).map_or("", |file| &file.name);
    let different = || AnnotateError::Different(name.to_owned());
    let after = yaml::parse(text).map_err(|_| different())?;
    let mut expected = inputs.documents.get(file).cloned().unwrap_or_default();
    for (policy, value) in generated.policies.iter().zip(values) {
        let workload = inputs.workloads.get(policy.workload);
        let Some(workload) = workload.filter(|one| one.file == file) else {
            continue;
        };
        let document = expected.get_mut(workload.document).ok_or_else(different)?;
        let template = document.find_mut(&workload.path).ok_or_else(different)?;
        template.set(&["metadata", "annotations", ANNOTATION], value);
    }
    let same = after.len() == expected.len()
        && after
            .iter()
            .zip(&expected)
            .all(|(one, other)| one.same(other));
    same.then_some(()).ok_or_else(different)
}

/// A strategic-merge patch for kustomize with the annotation of each pod.
#[must_use]
pub fn patch(generated: &Generated, values: &[String]) -> String {
    let mut text = String::new();
    for (policy, value) in generated.policies.iter().zip(values) {
        let Some(workload) = generated.inputs.workloads.get(policy.workload) else {
            continue;
        };
        let inner = workload.path.rsplit(']').next().unwrap_or_default();
        let path: Vec<_> = inner.split('.').filter(|part| !part.is_empty()).collect();
        let mut lines = vec![
            "---".to_owned(),
            format!("apiVersion: {}", workload.api_version),
            format!("kind: {}", workload.kind),
            "metadata:".to_owned(),
            format!("  name: {}", quoted(&workload.name)),
        ];
        if let Some(namespace) = &workload.namespace {
            lines.push(format!("  namespace: {}", quoted(namespace)));
        }
        // A pod's own metadata is already begun.
        let names = path
            .iter()
            .copied()
            .chain(["metadata"].into_iter().filter(|_| !path.is_empty()));
        let mut depth = usize::from(path.is_empty());
        for name in names.chain(["annotations"]) {
            lines.push(format!("{}{name}:", "  ".repeat(depth)));
            depth += 1;
        }
        lines.push(format!(
            "{}{ANNOTATION}: {}",
            "  ".repeat(depth),
            quoted(value)
        ));
        for line in lines {
            text.push_str(&line);
            text.push('\n');
        }
    }
    text
}
