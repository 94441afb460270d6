//! The part of `docs/compatibility.md` that the table makes.

use std::{fmt::Write as _, fs, path::PathBuf};

use anyhow::{Context, Result};

use crate::table::{DIFFERENCES, DIFFERENCES_OF_1_7, FAULTS, Here, SAME};

const BEGIN: &str = "<!-- From tests/replay/src/table.rs; its test says when they differ. -->\n";
const END: &str = "<!-- End of what is from the table. -->\n";

const INTRODUCTION: &str = "
Pods of a kubelet 1.36 were recorded on a node with runc. A test asks the same of a node with
kata-cc and compares what containers see, and what becomes of them. As on a plain node, but for
the table below:
";

/// What the page says, by the table.
///
/// # Panics
/// Never: text takes any text.
#[must_use]
pub fn wanted() -> String {
    let mut text = String::from(BEGIN);
    let mut line = |row: std::fmt::Arguments<'_>| {
        text.write_fmt(row).expect("text takes any text");
        text.push('\n');
    };
    line(format_args!("{INTRODUCTION}"));
    for (what, _) in SAME {
        line(format_args!("- {what}"));
    }
    line(format_args!(
        "\n| otherwise, or refused | here |\n|---|---|"
    ));
    for row in DIFFERENCES.iter().chain(DIFFERENCES_OF_1_7) {
        match row.here {
            Here::Otherwise(how) => line(format_args!("| {} | {how} |", row.what)),
            Here::Refused(sentence) => {
                line(format_args!("| {} | refused: \"… {sentence}\" |", row.what));
            }
        }
    }
    if !FAULTS.is_empty() {
        line(format_args!("\nKnown to be wrong, and being mended:\n"));
    }
    for fault in FAULTS {
        line(format_args!("- {}", fault.sentence));
    }
    text.push('\n');
    text.push_str(END);
    text
}

/// Where the page is.
#[must_use]
pub fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/compatibility.md")
}

/// What the page says now.
///
/// # Errors
/// When it has no such part.
pub fn found() -> Result<String> {
    let text = fs::read_to_string(path()).context("reading docs/compatibility.md")?;
    let from = text
        .find(BEGIN)
        .context("the page has no part from the table")?;
    let to = text
        .find(END)
        .context("the page's part from the table has no end")?;
    Ok(text
        .get(from..to + END.len())
        .unwrap_or_default()
        .to_owned())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_page_says_what_the_table_says() {
        let (wanted, found) = (super::wanted(), super::found().unwrap());
        assert!(
            wanted == found,
            "docs/compatibility.md should have:\n{wanted}"
        );
    }
}
