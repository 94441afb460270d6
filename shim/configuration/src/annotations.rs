//! What a pod may change about its own VM.
//!
//! Pods carry Kata's annotations, `io.katacontainers.config.TABLE.KEY`. Each is honoured only
//! when the node's configuration lists it: `enable_annotations` holds regular expressions that
//! must match the whole of what an annotation is enabled as, `KEY` for the hypervisor's table
//! and `TABLE.KEY` for the others. An annotation that is not listed fails the pod: a pod that
//! asked for something and silently runs without it is worse than one that does not run. What
//! would weaken the node or the guest is no annotation at all ([`known::NEVER`]), whatever is
//! listed.

mod known;
#[cfg(test)]
mod tests;

use regex_lite::Regex;
use shim_oci::Spec;
use thiserror::Error;

use self::known::{KNOWN, NEVER};
use crate::Config;

const PREFIX: &str = "io.katacontainers.config.";

/// Why a pod's annotations were refused.
#[derive(Debug, Error)]
pub enum AnnotationError {
    /// The node does not allow it.
    #[error(
        "annotation {key} is not allowed on this node: remove it, or list {name:?} in enable_annotations of [hypervisor.qemu]"
    )]
    NotAllowed {
        /// The annotation.
        key: String,
        /// What it is enabled as.
        name: String,
    },
    /// It means nothing here, or is nothing that a pod may say.
    #[error("annotation {key} is not supported: {why}")]
    Unsupported {
        /// The annotation.
        key: String,
        /// The reason.
        why: &'static str,
    },
    /// The value does not fit.
    #[error("annotation {key} is {value:?}: expected {expected}")]
    BadValue {
        /// The annotation.
        key: String,
        /// Its value.
        value: String,
        /// What would fit.
        expected: &'static str,
    },
    /// The node's list holds something that is no regular expression.
    #[error(
        "enable_annotations of [hypervisor.qemu] holds {pattern:?}, which is no regular expression"
    )]
    BadPattern {
        /// The entry.
        pattern: String,
        /// The cause.
        #[source]
        source: regex_lite::Error,
    },
}

/// Changes the configuration as the pod's annotations say.
///
/// # Errors
///
/// [`AnnotationError`] names the first annotation that cannot be honoured.
pub fn apply(spec: &Spec, config: &mut Config) -> Result<(), AnnotationError> {
    let enabled = patterns(&config.qemu().enable_annotations)?;
    for (key, value) in &spec.annotations {
        let Some(name) = key.strip_prefix(PREFIX) else {
            continue;
        };
        let annotation = Annotation { key, value };
        let Some(known) = KNOWN.iter().find(|known| known.name == name) else {
            let never = NEVER.iter().find(|(never, _)| *never == name);
            let why = never.map_or("this runtime has no such annotation", |(_, why)| why);
            return Err(annotation.unsupported(why));
        };
        let name = known.enabled_as();
        if !enabled.iter().any(|pattern| pattern.is_match(name)) {
            return Err(AnnotationError::NotAllowed {
                key: key.clone(),
                name: name.to_owned(),
            });
        }
        (known.set)(&annotation, config)?;
    }
    Ok(())
}

fn patterns(texts: &[String]) -> Result<Vec<Regex>, AnnotationError> {
    let anchored = |text: &String| {
        Regex::new(&format!("^(?:{text})$")).map_err(|source| AnnotationError::BadPattern {
            pattern: text.clone(),
            source,
        })
    };
    texts.iter().map(anchored).collect()
}

struct Annotation<'a> {
    key: &'a str,
    value: &'a str,
}

impl Annotation<'_> {
    fn parse<T: std::str::FromStr>(&self, expected: &'static str) -> Result<T, AnnotationError> {
        self.value.parse().map_err(|_| self.bad(expected))
    }

    fn bad(&self, expected: &'static str) -> AnnotationError {
        AnnotationError::BadValue {
            key: self.key.to_owned(),
            value: self.value.to_owned(),
            expected,
        }
    }

    fn unsupported(&self, why: &'static str) -> AnnotationError {
        AnnotationError::Unsupported {
            key: self.key.to_owned(),
            why,
        }
    }
}
