//! The token that an attested guest gets: an EAR (EAT attestation result) as a JWT, ES256.
//!
//! The broker takes its own tokens and no others. The header must be, byte for byte, the one
//! that it writes, so nothing in a token can choose the algorithm, the key or where a key is
//! fetched from; issuer and profile are compared exactly.

use std::time::Duration;

use agent_keys_protocol::TeePublicKey;
use aws_lc_rs::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _,
        UnparsedPublicKey,
    },
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::trust::TrustVector;

/// Who says that it issued a token, as Trustee's attestation service says it.
pub const ISSUER: &str = "CoCo-Attestation-Service";
/// The profile of the claims.
pub const PROFILE: &str = "tag:github.com,2024:confidential-containers/Trustee";
/// How long a token holds.
pub const LIFETIME: Duration = Duration::from_secs(300);
/// Longest token read, in bytes.
pub const TOKEN_BYTES_MAX: usize = 64 * 1024;

/// The key that signs tokens.
pub struct TokenKey {
    key: EcdsaKeyPair,
    header: String,
}

/// The stored bytes are no key, or no key can be made or used.
#[derive(Debug, thiserror::Error)]
#[error("the token key cannot be made or used")]
pub struct TokenKeyError;

/// Why a token is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not three parts, or too long.
    #[error("the token has not the form of one")]
    Form,
    /// Another header than ours: another algorithm, key or address of keys.
    #[error(
        "the token's header is not this broker's: algorithm and key are not the token's to choose"
    )]
    Header,
    /// Not signed by our key.
    #[error("the token is not signed by this broker")]
    Signature,
    /// Signed, and not of the form that we sign.
    #[error("the token's claims are not this broker's")]
    Claims,
    /// Not yet, or no longer.
    #[error("the token has expired, or is not yet valid")]
    Time,
    /// Issued under files that have changed since.
    #[error("the token was issued before the owner changed what is accepted")]
    Rules,
}

/// What one guest proved.
pub struct Attested<'a> {
    /// The TEE, by its name in the protocol.
    pub tee: &'a str,
    /// What the report says.
    pub claims: &'a Value,
    /// The guest's key, for which whatever it gets is encrypted.
    pub tee_key: &'a TeePublicKey,
    /// The nonce that it answered.
    pub nonce: &'a str,
    /// Entries of its initdata.
    pub init_data_claims: &'a Value,
    /// What its log says.
    pub log: &'a Value,
    /// How good it is.
    pub trust: &'a TrustVector,
    /// Which files it was judged by.
    pub rules: &'a str,
}

/// The claims of a token that is ours and holds.
pub struct Token {
    claims: Value,
    issued: i64,
    tee_key: TeePublicKey,
}

impl TokenKey {
    /// A new key, as it is stored.
    ///
    /// # Errors
    ///
    /// [`TokenKeyError`]
    pub fn generate() -> Result<Zeroizing<Vec<u8>>, TokenKeyError> {
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random);
        key.map(|key| Zeroizing::new(key.as_ref().to_vec()))
            .map_err(|_| TokenKeyError)
    }

    /// Reads a stored key.
    ///
    /// # Errors
    ///
    /// [`TokenKeyError`]
    pub fn parse(stored: &[u8]) -> Result<Self, TokenKeyError> {
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, stored);
        let key = key.map_err(|_| TokenKeyError)?;
        // 4, then X and Y of 32 bytes each.
        let point = key.public_key().as_ref().strip_prefix(&[4]);
        let (x, y) = point
            .and_then(|point| point.split_at_checked(32))
            .ok_or(TokenKeyError)?;
        let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        let jwk = json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "x": x, "y": y});
        let header = json!({"alg": "ES256", "typ": "JWT", "jwk": jwk});
        let header = URL_SAFE_NO_PAD.encode(header.to_string());
        Ok(Self { key, header })
    }

    /// Issues a token at a time in seconds since 1970.
    ///
    /// # Errors
    ///
    /// [`TokenKeyError`]
    pub fn issue(&self, attested: &Attested<'_>, now: i64) -> Result<String, TokenKeyError> {
        let payload = URL_SAFE_NO_PAD.encode(claims(attested, now).to_string());
        let signed = format!("{}.{payload}", self.header);
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes());
        let signature = signature.map_err(|_| TokenKeyError)?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// Takes a token that this key issued and that holds at this time.
    ///
    /// # Errors
    ///
    /// [`TokenError`] says why not.
    pub fn verify(&self, token: &str, rules: &str, now: i64) -> Result<Token, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Form);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Form)?;
        let (header, payload) = signed.split_once('.').ok_or(TokenError::Form)?;
        if header != self.header {
            return Err(TokenError::Header);
        }
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Form);
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.key.public_key());
        key.verify(signed.as_bytes(), &decode(signature)?)
            .map_err(|_| TokenError::Signature)?;
        let claims: Value =
            agent_documents::parse_json(&decode(payload)?).map_err(|_| TokenError::Claims)?;
        Token::read(claims, rules, now)
    }
}

fn claims(attested: &Attested<'_>, now: i64) -> Value {
    let lifetime = i64::try_from(LIFETIME.as_secs()).unwrap_or_default();
    let report = |name: &str| attested.claims.get(name).cloned().unwrap_or_default();
    let evidence = json!({
        attested.tee: attested.claims,
        "report_data": report("report_data"),
        "init_data": report("init_data"),
        "runtime_data_claims": {"nonce": attested.nonce, "tee-pubkey": attested.tee_key},
        "init_data_claims": attested.init_data_claims,
        "measurement_log": attested.log,
    });
    json!({
        "eat_profile": PROFILE,
        "iss": ISSUER,
        "iat": now,
        "exp": now.saturating_add(lifetime),
        "ear.verifier-id": {
            "developer": "kata-cc",
            "build": concat!("kata-cc-broker ", env!("CARGO_PKG_VERSION")),
        },
        "kata-cc.rules": attested.rules,
        "submods": {"cpu0": {
            "ear.status": "affirming",
            "ear.trustworthiness-vector": attested.trust.claims(),
            "ear.appraisal-policy-id": "default_cpu",
            "ear.veraison.annotated-evidence": evidence,
        }},
    })
}

impl Token {
    fn read(claims: Value, rules: &str, now: i64) -> Result<Self, TokenError> {
        let text = |name: &str| claims.get(name).and_then(Value::as_str);
        let number = |name: &str| claims.get(name).and_then(Value::as_i64);
        let status = claims.pointer("/submods/cpu0/ear.status");
        let is_ours = text("iss") == Some(ISSUER)
            && text("eat_profile") == Some(PROFILE)
            && status.and_then(Value::as_str) == Some("affirming");
        let (Some(issued), Some(expires), true) = (number("iat"), number("exp"), is_ours) else {
            return Err(TokenError::Claims);
        };
        if now < issued || now >= expires {
            return Err(TokenError::Time);
        }
        if text("kata-cc.rules") != Some(rules) {
            return Err(TokenError::Rules);
        }
        let place = "/submods/cpu0/ear.veraison.annotated-evidence/runtime_data_claims/tee-pubkey";
        let key = claims.pointer(place).ok_or(TokenError::Claims)?;
        let tee_key = serde_json::from_value(key.clone()).map_err(|_| TokenError::Claims)?;
        Ok(Self {
            issued,
            tee_key,
            claims,
        })
    }

    /// All claims, as a resource policy reads them.
    pub fn claims(&self) -> &Value {
        &self.claims
    }

    /// The key to encrypt for.
    pub fn tee_key(&self) -> &TeePublicKey {
        &self.tee_key
    }

    /// When it was issued, in seconds since 1970.
    pub fn issued(&self) -> i64 {
        self.issued
    }

    /// What the guest's log said; null if there was none.
    pub fn log(&self) -> &Value {
        let place = "/submods/cpu0/ear.veraison.annotated-evidence/measurement_log";
        self.claims.pointer(place).unwrap_or(&Value::Null)
    }
}
