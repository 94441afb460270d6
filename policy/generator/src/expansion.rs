//! `$(NAME)` in values and command lines, as Kubernetes expands it.

/// A piece of a text with references.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Text as it is.
    Text(&'a str),
    /// The name between `$(` and `)`.
    Reference(&'a str),
}

/// Takes a text apart: `$$` is one `$`, and what is no reference is text.
#[must_use]
pub fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        if !before.is_empty() {
            pieces.push(Piece::Text(before));
        }
        if let Some(after) = after.strip_prefix('$') {
            pieces.push(Piece::Text("$"));
            rest = after;
            continue;
        }
        let reference = after.strip_prefix('(').and_then(|a| a.split_once(')'));
        match reference {
            Some((name, after)) => {
                pieces.push(Piece::Reference(name));
                rest = after;
            }
            None => {
                pieces.push(Piece::Text("$"));
                rest = after;
            }
        }
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest));
    }
    pieces
}

/// Replaces references by what `known` says; one that it does not know stays as it is written.
pub fn expand(text: &str, known: impl Fn(&str) -> Option<String>) -> String {
    let expanded = pieces(text).into_iter().map(|piece| match piece {
        Piece::Text(text) => text.to_owned(),
        Piece::Reference(name) => known(name).unwrap_or_else(|| format!("$({name})")),
    });
    expanded.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_expand_as_kubernetes_says() {
        let known = |name: &str| (name == "A").then(|| "1".to_owned());
        for (text, expected) in [
            ("$(A)", "1"),
            ("x$(A)y$(A)", "x1y1"),
            ("$(NONE)", "$(NONE)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$A ${A} $", "$A ${A} $"),
            ("$(A", "$(A"),
            ("", ""),
        ] {
            assert_eq!(expand(text, known), expected, "{text}");
        }
    }
}
