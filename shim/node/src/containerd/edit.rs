//! What containerd's configuration becomes: text in, text out.
//!
//! containerd 1.7 replaces whole tables by those of an imported file, so there our tables are
//! appended to the main file, as a block between two comments. containerd 2.x adds an imported
//! file's tables to those of the main file, so there they are a file of their own (a drop-in),
//! and the main file only gets it into its `imports`. All else in the file stays as it is.

use std::path::{Path, PathBuf};

use agent_documents::{TooMuch, measure_toml};
use thiserror::Error;
use toml_edit::{Array, DocumentMut, Item, TomlError, Value, value};

const VERSION_2: &str = include_str!("version-2.toml");
const VERSION_3: &str = include_str!("version-3.toml");
/// The first line of everything that this program writes.
const BEGIN: &str = "# BEGIN kata-cc: written and removed by kata-cc-node containerd\n";
const END: &str = "# END kata-cc\n";
/// The tables that may be nobody else's.
const OURS: [&[&str]; 4] = [
    &["proxy_plugins", "kata-cc"],
    &[
        "plugins",
        "io.containerd.grpc.v1.cri",
        "containerd",
        "runtimes",
        "kata-cc",
    ],
    &[
        "plugins",
        "io.containerd.cri.v1.runtime",
        "containerd",
        "runtimes",
        "kata-cc",
    ],
    &[
        "plugins",
        "io.containerd.cri.v1.images",
        "runtime_platforms",
        "kata-cc",
    ],
];

/// Why a file cannot be edited.
#[derive(Debug, Error)]
pub(crate) enum EditError {
    /// The file is no TOML.
    #[error("it is not valid TOML, so containerd cannot read it either: mend it first")]
    Syntax(#[source] TomlError),
    /// The file is deeper or longer than any configuration.
    #[error("it is no configuration of containerd's")]
    TooMuch(#[source] TooMuch),
    /// The file has no version, or one that is not known.
    #[error(
        "its version is neither 2, 3 nor 4: write what `containerd config migrate` prints over it, and run this again"
    )]
    Version,
    /// Somebody else's table has our name.
    #[error(
        "it already has the table [{0}], which this command did not write: remove or rename it, and run this again"
    )]
    Foreign(String),
    /// The table that ours belong into is closed.
    #[error(
        "a table that ours belong into is written inline, as in `plugins = {{ … }}`: write it with a [header], and run this again"
    )]
    Closed(#[source] TomlError),
    /// containerd 1.7 would replace the main file's table by an imported one.
    #[error(
        "it is imported and has the table of CRI, by which containerd 1.7 replaces the main file's: move the table into the main file, and run this again"
    )]
    Replaces,
    /// The imports are no list.
    #[error("its imports are not a list: containerd expects imports = [\"FILE\", …]")]
    Imports,
}

/// What our tables name.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    /// The shim's binary.
    pub(crate) shim: PathBuf,
    /// The shim's configuration.
    pub(crate) configuration: PathBuf,
    /// Where the drop-in is, if there is to be one.
    pub(crate) drop_in: PathBuf,
}

/// The files as they are to be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Edited {
    /// The main file.
    pub(crate) main: String,
    /// The drop-in; `None` if there is to be none.
    pub(crate) drop_in: Option<String>,
}

/// Adds our runtime to the main file `text`, which may have it already.
///
/// # Errors
/// [`EditError`] says what stands in the way.
pub(crate) fn add(text: &str, names: &Names) -> Result<Edited, EditError> {
    let base = without_block(text);
    let document = parse(&base)?;
    check_vacant(&document)?;
    let version = version(&document)?;
    if version > 2 {
        let drop_in = format!(
            "{BEGIN}version = {version}\n\n{}{END}",
            filled(VERSION_3, names)
        );
        return Ok(Edited {
            main: import(document, &names.drop_in)?,
            drop_in: Some(drop_in),
        });
    }
    let end = if base.ends_with('\n') { "" } else { "\n" };
    let main = format!("{base}{end}{BEGIN}{}{END}", filled(VERSION_2, names));
    main.parse::<DocumentMut>().map_err(EditError::Closed)?;
    Ok(Edited {
        main,
        drop_in: None,
    })
}

/// Takes our runtime out of the main file `text`. Gives `original` back if nothing but our
/// runtime was added to it since.
///
/// # Errors
/// [`EditError`] if `text` cannot be read.
pub(crate) fn remove(
    text: &str,
    original: Option<&str>,
    drop_in: &Path,
) -> Result<String, EditError> {
    let base = without_block(text);
    if let Some(original) = original {
        let imported = import(parse(original)?, drop_in)?;
        let appended = base.strip_suffix('\n') == Some(original);
        if base == original || appended || base == imported {
            return Ok(original.to_owned());
        }
    }
    let mut document = parse(&base)?;
    let Some(imports) = document.get_mut("imports").and_then(Item::as_array_mut) else {
        return Ok(base);
    };
    let before = imports.len();
    imports.retain(|entry| entry.as_str().map(Path::new) != Some(drop_in));
    if imports.len() == before {
        return Ok(base);
    }
    Ok(document.to_string())
}

/// What stands for a main file that does not exist, given what `containerd config default`
/// prints: for 1.7 all of it, because a table of the file replaces the default one; later
/// only what says which files are read.
///
/// # Errors
/// [`EditError`] if `default` is no configuration that is known.
pub(crate) fn absent(default: &str) -> Result<String, EditError> {
    let document = parse(default)?;
    let version = version(&document)?;
    if version == 2 {
        return Ok(default.to_owned());
    }
    let mut short = DocumentMut::new();
    short.insert("version", value(version));
    let imports = document.get("imports").and_then(Item::as_array);
    if let Some(imports) = imports.filter(|imports| !imports.is_empty()) {
        short.insert("imports", value(imports.clone()));
    }
    Ok(short.to_string())
}

/// The files that the main file `text` imports, or patterns of them.
///
/// # Errors
/// [`EditError`] if it cannot be read.
pub(crate) fn imports(text: &str) -> Result<Vec<String>, EditError> {
    let document = parse(text)?;
    let Some(item) = document.get("imports") else {
        return Ok(Vec::new());
    };
    let entries = item.as_array().ok_or(EditError::Imports)?.iter();
    let texts = entries.filter_map(Value::as_str).map(str::to_owned);
    Ok(texts.collect())
}

/// Checks a file that a main file imports: it has none of our names, and takes nothing of ours
/// away from a main file of version 2.
///
/// # Errors
/// [`EditError`] says what stands in the way.
pub(crate) fn check_imported(text: &str, main_is_version_2: bool) -> Result<(), EditError> {
    let document = parse(text)?;
    check_vacant(&document)?;
    let cri = ["plugins", "io.containerd.grpc.v1.cri"];
    if main_is_version_2 && has(document.as_item(), &cri) {
        return Err(EditError::Replaces);
    }
    Ok(())
}

/// Whether the file is of version 2, which containerd 1.7 reads.
pub(crate) fn is_version_2(text: &str) -> bool {
    parse(text).and_then(|document| version(&document)).ok() == Some(2)
}

/// Whether this program wrote the file.
pub(crate) fn is_ours(drop_in: &str) -> bool {
    drop_in.starts_with(BEGIN)
}

fn parse(text: &str) -> Result<DocumentMut, EditError> {
    measure_toml(text).map_err(EditError::TooMuch)?;
    text.parse().map_err(EditError::Syntax)
}

fn version(document: &DocumentMut) -> Result<i64, EditError> {
    let version = document.get("version").and_then(Item::as_integer);
    version
        .filter(|version| (2..=4).contains(version))
        .ok_or(EditError::Version)
}

/// Nobody else has our names in this file.
fn check_vacant(document: &DocumentMut) -> Result<(), EditError> {
    let taken = OURS.iter().find(|path| has(document.as_item(), path));
    taken.map_or(Ok(()), |table| Err(EditError::Foreign(shown(table))))
}

fn has(item: &Item, path: &[&str]) -> bool {
    let mut keys = path.iter();
    keys.try_fold(item, |item, key| item.get(key)).is_some()
}

fn shown(path: &[&str]) -> String {
    let quoted = path.iter().map(|key| {
        if key.contains('.') {
            format!("\"{key}\"")
        } else {
            (*key).to_owned()
        }
    });
    quoted.collect::<Vec<_>>().join(".")
}

fn filled(template: &str, names: &Names) -> String {
    let quoted = |path: &Path| Value::from(path.display().to_string()).to_string();
    template
        .replace("@SHIM@", &quoted(&names.shim))
        .replace("@CONFIGURATION@", &quoted(&names.configuration))
}

/// The text without the block between our two comments.
fn without_block(text: &str) -> String {
    let block = text.split_once(BEGIN).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(END)?;
        Some(format!("{before}{after}"))
    });
    block.unwrap_or_else(|| text.to_owned())
}

/// The document with `drop_in` among its imports; unchanged if they name it already.
fn import(mut document: DocumentMut, drop_in: &Path) -> Result<String, EditError> {
    let entry = drop_in.display().to_string();
    let imports = document.entry("imports").or_insert(value(Array::new()));
    let imports = imports.as_array_mut().ok_or(EditError::Imports)?;
    let imported = imports
        .iter()
        .filter_map(Value::as_str)
        .any(|pattern| names(pattern, drop_in));
    if !imported {
        imports.push(entry);
    }
    Ok(document.to_string())
}

/// Whether an entry of `imports` names the drop-in, itself or by its folder.
fn names(pattern: &str, drop_in: &Path) -> bool {
    let all = drop_in.with_file_name("*.toml");
    let main = drop_in.parent().and_then(Path::parent);
    let pattern = main.unwrap_or(Path::new("/")).join(pattern);
    pattern == drop_in || pattern == all
}

#[cfg(test)]
mod tests;
