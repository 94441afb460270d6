//! The messages of the handshake, and the body of an error.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::TeePublicKey;

/// The one version that is spoken.
pub const VERSION: &str = "0.4.0";
/// What the `type` of every error begins with.
pub const ERROR_PREFIX: &str = "https://github.com/confidential-containers/kbs/errors/";
/// The member of a challenge's `extra-params` that asks for the measurement log, and of the
/// additional evidence that holds it.
pub const LOG_EVIDENCE: &str = "measurement-log";

const HASH: &str = "selected-hash-algorithm";
/// 32 bytes take 44 characters; what is longer is not signed.
const NONCE_MAX: usize = 256;

/// The guest's first message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Request {
    /// Which protocol it speaks.
    pub version: String,
    /// Which kind of hardware it runs on.
    pub tee: String,
    /// Anything else.
    #[serde(default)]
    pub extra_params: Value,
}

impl Request {
    /// A request of our version; of the hashes, only SHA-384 is offered.
    #[must_use]
    pub fn new(tee: &str) -> Self {
        Self {
            version: VERSION.to_owned(),
            tee: tee.to_owned(),
            extra_params: json!({"supported-hash-algorithms": ["sha384"]}),
        }
    }
}

/// What the broker wants the evidence to be bound to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Challenge {
    /// Used once.
    pub nonce: String,
    /// Which hash is selected, and whether the log is asked for.
    #[serde(default)]
    pub extra_params: Value,
}

/// Why a challenge cannot be answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChallengeError {
    /// Empty or too long.
    #[error("its nonce has {0} bytes, but 1 to {NONCE_MAX} are expected")]
    Nonce(usize),
    /// Another hash.
    #[error("it selects another hash algorithm than sha384")]
    Hash,
    /// Neither true nor false.
    #[error("its `{LOG_EVIDENCE}` is neither true nor false")]
    Log,
}

impl Challenge {
    /// Whether it asks for the measurement log, if it can be answered at all.
    ///
    /// # Errors
    /// See [`ChallengeError`].
    pub fn wants_log(&self) -> Result<bool, ChallengeError> {
        if self.nonce.is_empty() || self.nonce.len() > NONCE_MAX {
            return Err(ChallengeError::Nonce(self.nonce.len()));
        }
        let hash = self.extra_params.get(HASH);
        let is_ours = |hash: &Value| {
            hash.as_str()
                .is_some_and(|name| name.eq_ignore_ascii_case("sha384"))
        };
        if !hash.is_none_or(is_ours) {
            return Err(ChallengeError::Hash);
        }
        match self.extra_params.get(LOG_EVIDENCE) {
            None => Ok(false),
            Some(wanted) => wanted.as_bool().ok_or(ChallengeError::Log),
        }
    }
}

/// The guest's proof.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Attestation {
    /// What its owner configured it with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init_data: Option<InitData>,
    /// What the evidence is bound to.
    pub runtime_data: RuntimeData,
    /// The evidence.
    pub tee_evidence: TeeEvidence,
}

/// Initdata as it is written, which the hardware's report holds the digest of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct InitData {
    /// `toml`.
    pub format: String,
    /// Its text.
    pub body: String,
}

/// What the evidence is bound to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RuntimeData {
    /// The challenge's.
    pub nonce: String,
    /// The key that resources are to be sealed for.
    pub tee_pubkey: TeePublicKey,
}

/// The evidence. Its members have underscores, unlike all the others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TeeEvidence {
    /// What the hardware signed; its form depends on the hardware.
    pub primary_evidence: Value,
    /// Empty, or a JSON object.
    pub additional_evidence: String,
}

impl TeeEvidence {
    /// The measurement log among the additional evidence; none where there is none, or
    /// where it cannot be read.
    #[must_use]
    pub fn log(&self) -> Option<Vec<u8>> {
        let additional: Value =
            agent_documents::parse_json(self.additional_evidence.as_bytes()).ok()?;
        STANDARD
            .decode(additional.get(LOG_EVIDENCE)?.as_str()?)
            .ok()
    }
}

/// Additional evidence with the measurement log.
#[must_use]
pub fn log_evidence(log: &[u8]) -> String {
    json!({ LOG_EVIDENCE: STANDARD.encode(log) }).to_string()
}

/// The broker's answer to evidence that convinced it; it tells nothing of itself.
#[derive(Clone, Serialize, Deserialize)]
pub struct Token {
    /// A JWT.
    pub token: String,
}

/// The body of an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Details {
    /// [`ERROR_PREFIX`] and what kind of error it is.
    #[serde(rename = "type")]
    pub kind: String,
    /// For people.
    #[serde(default)]
    pub detail: String,
}

impl Details {
    /// An error of a kind.
    #[must_use]
    pub fn new(kind: &str, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("{ERROR_PREFIX}{kind}"),
            detail: detail.into(),
        }
    }

    /// What kind of error it is, without what all have.
    #[must_use]
    pub fn variant(&self) -> &str {
        self.kind.strip_prefix(ERROR_PREFIX).unwrap_or(&self.kind)
    }
}

#[cfg(test)]
mod tests {
    use agent_documents::parse_json;

    use super::*;

    fn challenge(extra: &str) -> Challenge {
        parse_json(format!(r#"{{"nonce":"AAAA","extra-params":{extra}}}"#).as_bytes()).unwrap()
    }

    #[test]
    fn a_challenge_may_ask_for_the_log_and_for_no_other_hash() {
        for (extra, expected) in [
            (r#""""#, Ok(false)),
            ("{}", Ok(false)),
            (r#"{"measurement-log":true}"#, Ok(true)),
            (r#"{"measurement-log":false}"#, Ok(false)),
            (r#"{"measurement-log":"yes"}"#, Err(ChallengeError::Log)),
            (r#"{"selected-hash-algorithm":"SHA384"}"#, Ok(false)),
            (
                r#"{"selected-hash-algorithm":"sha512"}"#,
                Err(ChallengeError::Hash),
            ),
            (
                r#"{"selected-hash-algorithm":7}"#,
                Err(ChallengeError::Hash),
            ),
        ] {
            assert_eq!(challenge(extra).wants_log(), expected, "{extra}");
        }
        for length in [0, NONCE_MAX + 1] {
            let mut challenge = challenge("{}");
            challenge.nonce = "A".repeat(length);
            assert_eq!(challenge.wants_log(), Err(ChallengeError::Nonce(length)));
        }
    }

    #[test]
    fn the_log_travels_in_additional_evidence() {
        let evidence = |additional: &str| TeeEvidence {
            primary_evidence: Value::Null,
            additional_evidence: additional.to_owned(),
        };
        assert_eq!(evidence(&log_evidence(b"log")).log().unwrap(), b"log");
        for none in ["", "{}", "[", r#"{"measurement-log":"?"}"#] {
            assert_eq!(evidence(none).log(), None);
        }
    }

    #[test]
    fn messages_are_written_as_upstream_names_them() {
        let request = serde_json::to_value(Request::new("snp")).unwrap();
        assert_eq!(
            request,
            json!({"version": "0.4.0", "tee": "snp",
                "extra-params": {"supported-hash-algorithms": ["sha384"]}})
        );
        let details = Details::new("PolicyDeny", "no");
        assert_eq!(
            serde_json::to_value(&details).unwrap(),
            json!({"type": format!("{ERROR_PREFIX}PolicyDeny"), "detail": "no"})
        );
        assert_eq!(details.variant(), "PolicyDeny");
    }
}
