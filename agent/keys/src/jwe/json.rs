//! JSON in which no member is given twice, at any depth.
//!
//! `serde_json` lets the last of two equal members win, other readers the first; what
//! is signed or encrypted must read the same to everybody (RFC 7516, section 4: header
//! parameter names must be unique). The limit of depth of all documents holds here too.

use std::{collections::BTreeMap, fmt};

use agent_documents::parse_json;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// The members of an object.
pub(super) type Members = BTreeMap<String, Node>;

/// A JSON value, as far as JWE has use for it.
#[derive(Debug, Clone)]
pub(super) enum Node {
    Object(Members),
    Array(Vec<Node>),
    Text(String),
    /// Numbers, truth values and `null`.
    Other,
}

impl Node {
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// Reads one object, and nothing after it.
pub(super) fn object(bytes: &[u8]) -> Result<Members, serde_json::Error> {
    match parse_json(bytes)? {
        Node::Object(members) => Ok(members),
        _ => Err(Error::custom("it is not an object")),
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut members = Members::new();
        while let Some((name, value)) = access.next_entry::<String, Node>()? {
            if members.contains_key(&name) {
                let name = super::short(&name);
                return Err(Error::custom(format_args!(
                    "member `{name}` is given twice"
                )));
            }
            members.insert(name, value);
        }
        Ok(Node::Object(members))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = access.next_element()? {
            nodes.push(node);
        }
        Ok(Node::Array(nodes))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Text(text.to_owned()))
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_unit<E: Error>(self) -> Result<Node, E> {
        Ok(Node::Other)
    }
}
