//! What the fuzzer calls.

use crate::{
    inputs::{Inputs, Reading, Text},
    yaml,
};

/// Reads a text as the owner's YAML: its documents, its pods, and what they refer to.
pub fn yaml(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes).into_owned();
    for document in yaml::parse(&text).unwrap_or_default() {
        assert!(document.same(&document));
        let span = document.span.clone();
        assert!(text.get(span).is_some(), "a span is a part of its text");
    }
    let name = "fuzz.yaml".to_owned();
    let inputs = Inputs::read(vec![Text { name, text }], Vec::new(), &Reading::default());
    for problem in &inputs.problems {
        assert!(problem.line > 0, "{problem}");
    }
}
