//! What the kernel can do, as `guest-image/kernel/features` lists it, and the options of Linux
//! that follow from it.

use std::collections::BTreeMap;

/// The list that this program builds with.
pub(super) const FEATURES: &str = include_str!("../../../kernel/features");

/// The options that are asked for, by name without `CONFIG_`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Options(BTreeMap<String, Wanted>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Wanted {
    feature: String,
    /// `y`, `n`, a number or a text in quotation marks.
    value: String,
}

/// Why a list of features is none.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FeaturesError {
    /// An option before the first feature.
    #[error("line {0} has options of no feature")]
    NoFeature(usize),
    /// A feature without a description.
    #[error("line {0} does not say what the feature is for")]
    NoDescription(usize),
    /// An option's name is not one.
    #[error("line {line} names the option {name:?}, which cannot be one")]
    Name {
        /// Where.
        line: usize,
        /// What.
        name: String,
    },
    /// An option twice.
    #[error("line {line} names {name} again")]
    Twice {
        /// Where.
        line: usize,
        /// What.
        name: String,
    },
}

/// The source has decided otherwise than the list asks.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "the feature {feature:?} needs CONFIG_{name}={wanted}, this source makes it {found}: look for what the option depends on"
)]
pub struct UnmetError {
    feature: String,
    name: String,
    wanted: String,
    found: String,
}

impl Options {
    /// Reads a list.
    ///
    /// # Errors
    ///
    /// When a line is not one of the list's forms.
    pub(super) fn parse(text: &str) -> Result<Self, FeaturesError> {
        let mut options = BTreeMap::new();
        let mut feature: Option<&str> = None;
        for (index, line) in text.lines().enumerate() {
            let number = index + 1;
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            if !line.starts_with(' ') {
                let (name, purpose) = line.split_once(':').unwrap_or_default();
                if name.is_empty() || purpose.trim().is_empty() {
                    return Err(FeaturesError::NoDescription(number));
                }
                feature = Some(name);
                continue;
            }
            let feature = feature.ok_or(FeaturesError::NoFeature(number))?;
            for word in line.split_whitespace() {
                add(&mut options, feature, word, number)?;
            }
        }
        Ok(Self(options))
    }

    /// The fragment that Linux' own configuration program completes.
    #[must_use]
    pub(super) fn fragment(&self) -> String {
        let line = |(name, wanted): (&String, &Wanted)| match wanted.value.as_str() {
            "n" => format!("# CONFIG_{name} is not set\n"),
            value => format!("CONFIG_{name}={value}\n"),
        };
        self.0.iter().map(line).collect()
    }

    /// Whether a completed configuration is what was asked for.
    ///
    /// # Errors
    ///
    /// [`UnmetError`] names the first option that is not.
    pub(super) fn check(&self, configuration: &str) -> Result<(), UnmetError> {
        let found: BTreeMap<&str, &str> = configuration
            .lines()
            .filter_map(|line| line.strip_prefix("CONFIG_")?.split_once('='))
            .collect();
        for (name, wanted) in &self.0 {
            let found = found.get(name.as_str()).copied().unwrap_or("n");
            if found != wanted.value {
                return Err(UnmetError {
                    feature: wanted.feature.clone(),
                    name: name.clone(),
                    wanted: wanted.value.clone(),
                    found: found.to_owned(),
                });
            }
        }
        Ok(())
    }
}

fn add(
    options: &mut BTreeMap<String, Wanted>,
    feature: &str,
    word: &str,
    line: usize,
) -> Result<(), FeaturesError> {
    let (name, value) = word.split_once('=').unwrap_or((word, "y"));
    let named = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
    let name = name.to_owned();
    if name.is_empty() || value.is_empty() || !name.bytes().all(named) {
        return Err(FeaturesError::Name { line, name });
    }
    let wanted = Wanted {
        feature: feature.to_owned(),
        value: value.to_owned(),
    };
    match options.insert(name.clone(), wanted) {
        None => Ok(()),
        Some(_) => Err(FeaturesError::Twice { line, name }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_this_program_is_one() {
        let options = Options::parse(FEATURES).unwrap();
        assert!(options.fragment().contains("CONFIG_EXT4_FS=y\n"));
    }

    #[test]
    fn what_a_host_could_misuse_is_asked_to_be_out() {
        let fragment = Options::parse(FEATURES).unwrap().fragment();
        for name in [
            "MODULES",
            "ACPI_TABLE_UPGRADE",
            "ACPI_CUSTOM_METHOD",
            "ACPI_APEI",
            "ACPI_CPPC_LIB",
            "ACPI_PCC",
            "ACPI_SPCR_TABLE",
            "ACPI_SLEEP",
            "ACPI_DEBUG",
            "PCI_MMCONFIG",
            "KEXEC",
            "DEVMEM",
            "DEBUG_FS",
            "DMI",
        ] {
            let line = format!("# CONFIG_{name} is not set\n");
            assert!(fragment.contains(&line), "{name}");
        }
        assert!(fragment.contains("CONFIG_LOCK_DOWN_KERNEL_FORCE_CONFIDENTIALITY=y\n"));
    }

    #[test]
    fn options_are_in_out_or_have_a_value() {
        let text = "# A comment.\na: first\n    NET MODULES=n\n\nb: second\n    NR_CPUS=256\n";
        let options = Options::parse(text).unwrap();
        let fragment = "# CONFIG_MODULES is not set\nCONFIG_NET=y\nCONFIG_NR_CPUS=256\n";
        assert_eq!(options.fragment(), fragment);
        assert_eq!(options.check("CONFIG_NR_CPUS=256\nCONFIG_NET=y\n"), Ok(()));
    }

    #[test]
    fn what_a_source_decides_otherwise_is_told_by_its_feature() {
        let options = Options::parse("a: first\n    NET MODULES=n\n").unwrap();
        for (configuration, found) in [
            ("# CONFIG_NET is not set\n", "n"),
            ("CONFIG_NET=y\nCONFIG_MODULES=y\n", "y"),
            ("CONFIG_NET=m\n", "m"),
        ] {
            let error = options.check(configuration).unwrap_err();
            assert_eq!((error.feature.as_str(), error.found.as_str()), ("a", found));
        }
    }

    #[test]
    fn lines_that_are_none_are_refused_by_number() {
        use FeaturesError::{Name, NoDescription, NoFeature, Twice};
        let name = |line, name: &str| Name {
            line,
            name: name.into(),
        };
        let twice = Twice {
            line: 3,
            name: "NET".into(),
        };
        for (text, expected) in [
            ("    NET\n", NoFeature(1)),
            ("a\n", NoDescription(1)),
            ("a: \n", NoDescription(1)),
            ("a: b\n    net\n", name(2, "net")),
            ("a: b\n    NET=\n", name(2, "NET")),
            ("a: b\n    NET\n    NET=n\n", twice),
        ] {
            assert_eq!(Options::parse(text), Err(expected), "{text:?}");
        }
    }
}
