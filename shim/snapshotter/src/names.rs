//! The names that containerd gives snapshots, and what each one asks for.
//!
//! Clients of containerd use a layer's chain id (`sha256:…`, OCI image
//! specification 1.1, "Layer ChainID") for a committed snapshot and names of their
//! own for active ones. containerd's metadata store renames what it passes to a
//! proxy snapshotter: `<namespace>/<number>/<name>`. It keeps the back end's name
//! only for a snapshot that `Prepare` found to exist already, and that name is ours
//! to choose: the bare chain id, which needs no record to be understood.

use std::{collections::BTreeMap, fmt};

/// Label with the chain id for which an unpacker prepares a snapshot.
pub const REF_LABEL: &str = "containerd.io/snapshot.ref";

/// The chain id of a layer: names it and everything below it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChainId(String);

impl ChainId {
    /// Reads `sha256:` and 64 lower-case hexadecimal digits; chain ids are always SHA-256.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("sha256:")?;
        let hex = digits.len() == 64
            && digits
                .bytes()
                .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        hex.then(|| Self(text.to_owned()))
    }

    /// Reads the name of a committed snapshot: a chain id, renamed by containerd or not.
    #[must_use]
    pub fn of_committed(name: &str) -> Option<Self> {
        Self::parse(client_name(name))
    }

    /// The text, `sha256:…`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ChainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a caller of `Prepare` wants the snapshot for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To unpack a layer, unless a snapshot of this chain id exists already.
    Layer(ChainId),
    /// To unpack a layer into; the caller cannot be told that it exists already.
    Unpack,
    /// To show the image's files to a container through a directory of the node.
    ImageVolume,
    /// To run a container.
    Container,
}

/// A `Prepare` that makes no sense.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("label {REF_LABEL} of snapshot {key} is not a chain id: {value}")]
pub struct RefLabelError {
    key: String,
    value: String,
}

impl Purpose {
    /// Tells what `Prepare` or `View` is for, by the key and the labels.
    ///
    /// # Errors
    ///
    /// When the reference label holds something else than a chain id.
    pub fn of(key: &str, labels: &BTreeMap<String, String>) -> Result<Self, RefLabelError> {
        if let Some(value) = labels.get(REF_LABEL) {
            let chain = ChainId::parse(value).ok_or_else(|| RefLabelError {
                key: key.to_owned(),
                value: value.clone(),
            })?;
            return Ok(Self::Layer(chain));
        }
        let name = client_name(key);
        Ok(if is_unpack_key(name) {
            Self::Unpack
        } else if name.starts_with('/') {
            Self::ImageVolume
        } else {
            Self::Container
        })
    }
}

/// The filter by which containerd looks up the snapshot that `Prepare` said exists:
/// `labels."containerd.io/snapshot.ref"==<chain id>,parent=="<name>"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefFilter {
    /// The chain id that has to be found.
    pub target: ChainId,
    /// The name that its parent has to have; empty for none.
    pub parent: String,
}

impl RefFilter {
    /// Reads that filter; no other has a meaning here.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("labels.\"containerd.io/snapshot.ref\"==")?;
        let (target, parent) = rest.split_once(",parent==")?;
        let parent = parent.strip_prefix('"')?.strip_suffix('"')?;
        // Go escapes both; containerd's names hold neither.
        if parent.contains(['"', '\\']) {
            return None;
        }
        Some(Self {
            target: ChainId::parse(target)?,
            parent: parent.to_owned(),
        })
    }
}

/// What the client called the snapshot that containerd calls `<namespace>/<number>/<name>`.
fn client_name(name: &str) -> &str {
    let mut parts = name.splitn(3, '/');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(namespace), Some(number), Some(rest))
            if !namespace.is_empty()
                && !number.is_empty()
                && number.bytes().all(|b| b.is_ascii_digit()) =>
        {
            rest
        }
        _ => name,
    }
}

/// containerd's form of a key to unpack into: `extract-<unique> <chain id>`.
fn is_unpack_key(name: &str) -> bool {
    name.strip_prefix("extract-")
        .and_then(|rest| rest.split_once(' '))
        .is_some_and(|(_, chain)| ChainId::parse(chain).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn chain() -> ChainId {
        ChainId::parse(&format!("sha256:{HEX}")).unwrap()
    }

    #[test]
    fn committed_names_are_chain_ids_with_or_without_a_namespace() {
        let cases = [
            (format!("sha256:{HEX}"), true),
            (format!("k8s.io/12/sha256:{HEX}"), true),
            (format!("default/1/sha256:{HEX}"), true),
            (format!("sha512:{HEX}"), false),
            (format!("sha256:{}", &HEX[1..]), false),
            (format!("sha256:{}", HEX.to_uppercase()), false),
            (format!("sha256:{HEX}0"), false),
            (format!("k8s.io/sha256:{HEX}"), false),
            (format!("k8s.io/x/sha256:{HEX}"), false),
            (format!("k8s.io//sha256:{HEX}"), false),
            (format!("/1/sha256:{HEX}"), false),
            (format!("k8s.io/1/2/sha256:{HEX}"), false),
            (format!("k8s.io/3/extract-1-ab sha256:{HEX}"), false),
            (HEX.to_owned(), false),
            (String::new(), false),
        ];
        for (name, committed) in cases {
            let expected = committed.then(chain);
            assert_eq!(ChainId::of_committed(&name), expected, "{name}");
        }
    }

    #[test]
    fn the_purpose_follows_from_label_and_key() {
        let unlabelled = BTreeMap::new();
        let labelled = BTreeMap::from([(REF_LABEL.to_owned(), chain().to_string())]);
        let unpack = format!("k8s.io/3/extract-1-ab sha256:{HEX}");
        let volume = "k8s.io/4//run/containerd/image-volumes/1";
        let cases = [
            (unpack.as_str(), &labelled, Purpose::Layer(chain())),
            ("k8s.io/5/0123", &labelled, Purpose::Layer(chain())),
            (unpack.as_str(), &unlabelled, Purpose::Unpack),
            (volume, &unlabelled, Purpose::ImageVolume),
            ("k8s.io/5/0123", &unlabelled, Purpose::Container),
            ("k8s.io/5/extract-me", &unlabelled, Purpose::Container),
        ];
        for (key, labels, purpose) in cases {
            assert_eq!(Purpose::of(key, labels), Ok(purpose), "{key}");
        }
    }

    #[test]
    fn a_reference_that_is_no_chain_id_is_refused() {
        let labels = BTreeMap::from([(REF_LABEL.to_owned(), "../../etc".to_owned())]);
        let error = Purpose::of("k8s.io/5/x", &labels).unwrap_err();
        assert_eq!(
            error.to_string(),
            "label containerd.io/snapshot.ref of snapshot k8s.io/5/x is not a chain id: ../../etc"
        );
    }

    #[test]
    fn the_lookup_filter_is_read_and_others_are_not() {
        let found = |text: &str| RefFilter::parse(text).map(|f| f.parent);
        let label = "labels.\"containerd.io/snapshot.ref\"==";
        let chain = chain();
        assert_eq!(
            found(&format!("{label}{chain},parent==\"\"")),
            Some(String::new())
        );
        assert_eq!(
            found(&format!("{label}{chain},parent==\"{chain}\"")),
            Some(chain.to_string())
        );
        for other in [
            String::new(),
            "kind==active".to_owned(),
            format!("{label}{chain}"),
            format!("{label}x,parent==\"\""),
            format!("{label}{chain},parent==\"a\\\"b\""),
            format!("{label}{chain},parent==a"),
        ] {
            assert_eq!(RefFilter::parse(&other), None, "{other}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_namespace_and_number_lead_to_the_same_chain(
            namespace in "[a-z0-9]([a-z0-9.-]{0,20}[a-z0-9])?", number: u64
        ) {
            let name = format!("{namespace}/{number}/{}", chain());
            proptest::prop_assert_eq!(ChainId::of_committed(&name), Some(chain()));
        }
    }
}
