//! A text for the host, with places for values.

use std::fmt;

use crate::told::field::{self, Field};

/// Most bytes of what is told of one error.
const BYTES_MAX: usize = 1024;

/// What the host may hear of an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    /// Fixed; `{name}` stands for the field of that name.
    text: &'static str,
    fields: Vec<Field>,
    cause: Option<Box<Told>>,
}

impl Told {
    /// A text without values yet.
    pub(crate) fn new(text: &'static str) -> Self {
        Self {
            text,
            fields: Vec::new(),
            cause: None,
        }
    }

    /// Sets the value for the place in the text that has its name.
    pub(crate) fn with(mut self, field: Field) -> Self {
        self.fields.push(field);
        self
    }

    /// Adds what made it happen.
    pub(crate) fn because(mut self, cause: Self) -> Self {
        self.cause = Some(Box::new(cause));
        self
    }

    /// Adds the kernel's name of why it happened.
    pub(crate) fn errno(self, error: &std::io::Error) -> Self {
        self.because(Self::new("{kernel}").with(Field::errno(error)))
    }

    fn write(&self, out: &mut String) {
        let mut rest = self.text;
        while let Some((before, name, after)) = place(rest) {
            out.push_str(before);
            let field = self.fields.iter().find(|field| field.name == name);
            out.push_str(field.map_or("?", |field| &field.value));
            rest = after;
        }
        out.push_str(rest);
        if let Some(cause) = &self.cause {
            out.push_str(": ");
            cause.write(out);
        }
    }
}

/// The first place for a value in a text: what is before it, its name, what is after it.
fn place(text: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = text.split_once('{')?;
    let (name, after) = rest.split_once('}')?;
    Some((before, name, after))
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        self.write(&mut text);
        field::truncate(&mut text, BYTES_MAX);
        f.write_str(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::told::field::FromHost;

    #[test]
    fn values_stand_where_the_text_names_them_and_causes_follow() {
        let cause = Told::new("{what} is missing").with(Field::what("its key"));
        let told = Told::new("layer {layer} of {count} is not usable")
            .with(Field::count(3))
            .with(Field::layer(2))
            .because(cause);
        assert_eq!(
            told.to_string(),
            "layer 2 of 3 is not usable: its key is missing"
        );
    }

    #[test]
    fn what_a_value_says_is_not_read_as_a_place() {
        let told = Told::new("{user} and {step}")
            .with(Field::user(FromHost("{step}")))
            .with(Field::step("x"));
        assert_eq!(told.to_string(), "{step} and x");
    }

    #[test]
    fn a_whole_text_is_bounded() {
        let long = "x".repeat(300);
        let mut told = Told::new("end");
        for _ in 0..10 {
            told = Told::new("{user}")
                .with(Field::user(FromHost(&long)))
                .because(told);
        }
        assert!(told.to_string().len() <= BYTES_MAX);
    }
}
