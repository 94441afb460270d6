//! Texts from outside in error messages.

/// A text of a policy or signature, as an error message shows it: one line, bounded.
pub(super) fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(100).collect()
}
