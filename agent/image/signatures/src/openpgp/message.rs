//! Signed messages: one signature around literal content, perhaps compressed
//! (RFC 9580, sections 5.4, 5.6, 5.9 and 10.3).

use std::{borrow::Cow, io::Read};

use flate2::bufread::{DeflateDecoder, ZlibDecoder};

use super::{
    clock::CLOCK_SKEW_SECONDS,
    crypto::Hash,
    cursor::Cursor,
    error::{Day, OpenPgpError},
    key::hex,
    keyring::{Keyring, Signer},
    packet::{COMPRESSED, LITERAL, ONE_PASS, Packet, Packets, SIGNATURE},
    signature::{BINARY, Signature},
};

/// Payloads of simple signing have a few hundred bytes.
const UNPACKED_MAX_BYTES: u64 = 256 * 1024;

/// Content with proof of who signed it.
#[derive(Debug)]
pub(crate) struct Signed {
    pub(crate) content: Vec<u8>,
    /// The fingerprint of the primary key or subkey that signed.
    pub(crate) signer: String,
}

impl Keyring {
    /// Verifies a message at a time in seconds since 1970.
    ///
    /// # Errors
    /// See [`OpenPgpError`].
    pub(crate) fn verify(&self, message: &[u8], now: u64) -> Result<Signed, OpenPgpError> {
        let message = unpack(message)?;
        let (content, signature) = read(&message)?;
        Hash::parse(signature.hash)?;
        let issuer = signature.issuer;
        let name = match (issuer.fingerprint, issuer.id) {
            (Some(fingerprint), _) => hex(&fingerprint),
            (None, Some(id)) => hex(&id.to_be_bytes()),
            (None, None) => {
                return Err(OpenPgpError::Malformed(
                    "the signature does not say who made it",
                ));
            }
        };
        let mut failure = OpenPgpError::UnknownKey(name);
        // A key id may be that of several keys.
        for signer in self.of(issuer) {
            match judge(signer, &signature, &content, now) {
                Ok(()) => {
                    return Ok(Signed {
                        content,
                        signer: signer.key.name(),
                    });
                }
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }
}

fn judge(
    signer: &Signer,
    signature: &Signature,
    content: &[u8],
    now: u64,
) -> Result<(), OpenPgpError> {
    let key = &signer.key;
    if let Some(flaw) = &signer.flaw {
        return Err(OpenPgpError::Key {
            key: key.name(),
            flaw: flaw.clone(),
        });
    }
    if !signature.verify(&key.public, &[content])? {
        return Err(OpenPgpError::Forged(key.name()));
    }
    let made = u64::from(signature.created);
    let dated = |reason| OpenPgpError::Dated {
        made: Day(made),
        reason,
    };
    if signature.created < key.created {
        return Err(dated("before its key was made"));
    }
    if made > now.saturating_add(CLOCK_SKEW_SECONDS) {
        return Err(dated("in the future; check the clock"));
    }
    match signature.valid_until() {
        Some(until) if until <= now => Err(OpenPgpError::Expired(Day(until))),
        _ => Ok(()),
    }
}

/// Takes the message out of a compressed packet, if it is in one. What was in it may
/// not be compressed again.
fn unpack(message: &[u8]) -> Result<Cow<'_, [u8]>, OpenPgpError> {
    let mut packets = Packets::new(message);
    let Some(Packet {
        tag: COMPRESSED,
        body,
    }) = packets.next()?
    else {
        return Ok(Cow::Borrowed(message));
    };
    if packets.next()?.is_some() {
        return Err(OpenPgpError::Malformed(
            "something follows the compressed message",
        ));
    }
    let (algorithm, packed) = body
        .split_first()
        .ok_or(OpenPgpError::Malformed("the compressed message is empty"))?;
    let mut unpacked = Vec::new();
    let left = match algorithm {
        0 => return Ok(Cow::Owned(packed.to_vec())),
        1 => {
            let mut decoder = DeflateDecoder::new(packed);
            inflate(&mut decoder, &mut unpacked)?;
            decoder.into_inner()
        }
        2 => {
            let mut decoder = ZlibDecoder::new(packed);
            inflate(&mut decoder, &mut unpacked)?;
            decoder.into_inner()
        }
        3 => return Err(OpenPgpError::Unsupported("bzip2 compression".to_owned())),
        other => {
            return Err(OpenPgpError::Unsupported(format!(
                "compression algorithm {other}"
            )));
        }
    };
    if left.is_empty() {
        Ok(Cow::Owned(unpacked))
    } else {
        Err(OpenPgpError::Malformed(
            "something follows the compressed content",
        ))
    }
}

fn inflate(decoder: &mut dyn Read, into: &mut Vec<u8>) -> Result<(), OpenPgpError> {
    decoder
        .take(UNPACKED_MAX_BYTES + 1)
        .read_to_end(into)
        .map_err(|_| OpenPgpError::Malformed("the compression is broken"))?;
    if into.len() as u64 > UNPACKED_MAX_BYTES {
        return Err(OpenPgpError::Malformed(
            "the compressed message is too large",
        ));
    }
    Ok(())
}

/// Content and signature of a message that has exactly one of each, with the
/// one-pass packet that announces the signature.
fn read(message: &[u8]) -> Result<(Vec<u8>, Signature), OpenPgpError> {
    let mut packets = Packets::new(message);
    let mut expect = |tag, missing| match packets.next() {
        Ok(Some(packet)) if packet.tag == tag => Ok(packet.body),
        Ok(_) => Err(OpenPgpError::Malformed(missing)),
        Err(error) => Err(error),
    };
    let one_pass = expect(
        ONE_PASS,
        "it is not a signed message (a detached signature is none)",
    )?;
    let literal = expect(LITERAL, "it does not have one signature around its content")?;
    let signature = expect(SIGNATURE, "no signature follows the content")?;
    if packets.next()?.is_some() {
        return Err(OpenPgpError::Malformed("something follows the signature"));
    }
    let signature = Signature::parse(&signature)?;
    if signature.kind != BINARY {
        return Err(OpenPgpError::Unsupported(format!(
            "a signature of type {:#04x} instead of one over bytes",
            signature.kind
        )));
    }
    check_announced(&one_pass, &signature)?;
    let content = content(&literal).ok_or(OpenPgpError::Malformed("the content is cut off"))?;
    Ok((content.to_vec(), signature))
}

/// Version, type, digest, key algorithm, key id, and that no other signature follows.
fn check_announced(one_pass: &[u8], signature: &Signature) -> Result<(), OpenPgpError> {
    let cut = || OpenPgpError::Malformed("the packet that announces the signature has no key id");
    let mut cursor = Cursor::new(one_pass);
    let head = cursor.take(4).ok_or_else(cut)?;
    let id = cursor.u64().ok_or_else(cut)?;
    if let Some(version) = head.first().filter(|version| **version != 3) {
        return Err(OpenPgpError::Unsupported(format!(
            "a signature announced in version {version}"
        )));
    }
    let known = head == [3, signature.kind, signature.hash, signature.algorithm];
    let last = cursor.u8() == Some(1) && cursor.is_empty();
    if !known || !last || signature.issuer.id.is_some_and(|issuer| issuer != id) {
        return Err(OpenPgpError::Malformed(
            "the signature is not the one announced",
        ));
    }
    Ok(())
}

/// What follows format, file name and date, none of which is signed.
fn content(literal: &[u8]) -> Option<&[u8]> {
    let mut cursor = Cursor::new(literal);
    cursor.u8()?;
    let name = usize::from(cursor.u8()?);
    cursor.take(name)?;
    cursor.u32()?;
    Some(cursor.rest())
}
