//! The words of an encrypted layer's annotations, for the guest that reads them and the
//! owner's tools that write them.
//!
//! Format: the OCI image encryption draft as `ocicrypt` implements it.

/// Cipher, MAC and other options that are in the open.
pub const PUBLIC_OPTIONS: &str = "org.opencontainers.image.enc.pubopts";
/// What wrapped keys begin with, however they are wrapped.
pub const KEYS_PREFIX: &str = "org.opencontainers.image.enc.keys.";
/// Keys that are wrapped for public keys.
pub const JWE: &str = "org.opencontainers.image.enc.keys.jwe";
/// What keys begin with that are wrapped for a key provider, whose name follows.
pub const PROVIDER_PREFIX: &str = "org.opencontainers.image.enc.keys.provider.";
/// The cipher option with the initial counter block.
pub const NONCE: &str = "nonce";
/// The one cipher that is supported.
pub const CIPHER: &str = "AES_256_CTR_HMAC_SHA256";
