//! The limit of depth, for JSON.

use serde::de::{Deserialize, Error};

/// Most objects and lists inside each other; of members that are read `serde_json` takes one
/// level less.
pub const DEPTH_MAX: usize = 128;

/// Parses a document that is nowhere nested too deep.
///
/// # Errors
/// It is nested too deep, no JSON, or not what is wanted.
pub fn parse_json<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, serde_json::Error> {
    measure_json(bytes)?;
    serde_json::from_slice(bytes)
}

/// The first half of [`parse_json`], for whoever reads the rest in another way.
///
/// # Errors
/// It is nested too deep.
pub fn measure_json(bytes: &[u8]) -> Result<(), serde_json::Error> {
    if is_too_deep(bytes) {
        let error = format_args!("it is nested more than {DEPTH_MAX} deep");
        return Err(Error::custom(error));
    }
    Ok(())
}

fn is_too_deep(bytes: &[u8]) -> bool {
    let mut depth: usize = 0;
    let mut rest = bytes.iter();
    while let Some(byte) = rest.next() {
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => skip_string(&mut rest),
            _ => {}
        }
        if depth > DEPTH_MAX {
            return true;
        }
    }
    false
}

fn skip_string(rest: &mut std::slice::Iter<'_, u8>) {
    while let Some(byte) = rest.next() {
        match byte {
            b'"' => return,
            b'\\' => {
                rest.next();
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde::de::IgnoredAny;

    use super::*;

    fn nested(open: &str, close: &str, depth: usize) -> String {
        open.repeat(depth) + "1" + &close.repeat(depth)
    }

    #[test]
    fn depth_is_limited_wherever_it_is() {
        for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
            let text = nested(open, close, DEPTH_MAX);
            parse_json::<IgnoredAny>(text.as_bytes()).unwrap();
            for depth in [DEPTH_MAX + 1, 200_000] {
                let text = nested(open, close, depth);
                let error = parse_json::<IgnoredAny>(text.as_bytes()).unwrap_err();
                assert_eq!(
                    error.to_string(),
                    "it is nested more than 128 deep",
                    "{open}"
                );
            }
        }
    }

    #[test]
    fn brackets_in_text_and_beside_each_other_do_not_count() {
        for text in [
            format!(r#""{}""#, "[{".repeat(1000)),
            format!(r#""\"{}\\""#, "[".repeat(1000)),
            format!("[{}1]", "[],".repeat(1000)),
        ] {
            parse_json::<IgnoredAny>(text.as_bytes()).unwrap();
        }
    }
}
