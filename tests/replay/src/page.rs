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
fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/compatibility.md")
}

/// The page's text before, in and after the part that the table makes.
///
/// # Errors
/// When it has no such part.
pub fn found() -> Result<[String; 3]> {
    let text = fs::read_to_string(path()).context("reading docs/compatibility.md")?;
    let begin = text.find(BEGIN);
    let begin = begin.context("the page has no part from the table")?;
    let end = text.find(END).filter(|end| *end >= begin);
    let end = end.context("the page's part from the table has no end")? + END.len();
    let parts = [0..begin, begin..end, end..text.len()];
    Ok(parts.map(|part| text.get(part).unwrap_or_default().to_owned()))
}

/// Makes the page say what the table says.
///
/// # Errors
/// When it has no such part, or cannot be written.
pub fn write() -> Result<()> {
    let [before, _, after] = found()?;
    fs::write(path(), before + &wanted() + &after).context("writing docs/compatibility.md")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `REPLAY_WRITE_PAGE=1` writes it.
    #[test]
    fn the_page_says_what_the_table_says() {
        if std::env::var_os("REPLAY_WRITE_PAGE").is_some() {
            write().unwrap();
        }
        let [_, found, _] = found().unwrap();
        assert!(
            found == wanted(),
            "docs/compatibility.md should have (REPLAY_WRITE_PAGE=1 writes it):\n{}",
            wanted()
        );
    }
}
