//! Responses, taken apart (TPM 2.0 library, part 1, 18; part 2; part 3). Big-endian.
//!
//! A TPM outside the confidential guest is the host's: each response is hostile. One
//! that is not exactly of its command's form is an error, never a guess.

use super::command::{CAPABILITY_PCRS, Command, NO_SESSIONS, RSASSA, SHA_256};
use crate::{
    bytes::{Reader, Truncated},
    field::Sha256Digest,
};

/// Longest response read, in bytes; TPMs have buffers of 4096.
pub const MAX_RESPONSE_LEN: usize = 4096;

/// Most banks of a TPM (part 2, `HASH_COUNT` of the reference code is 4).
const MAX_BANKS: u32 = 16;
/// Empty nonce, "continue session", empty acknowledgment: of a password session.
const ACKNOWLEDGMENT: [u8; 5] = [0, 0, 1, 0, 0];

/// Why bytes are no response.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResponseError {
    /// A length points past the end.
    #[error("it is cut off")]
    Truncated(#[from] Truncated),
    /// The size it says is not the size it has.
    #[error("it says that it has {said} bytes, and has {got}")]
    Size {
        /// In its header.
        said: u32,
        /// As read.
        got: usize,
    },
    /// The tag is not that of the command.
    #[error("its tag is {0:#06x}")]
    Tag(u16),
    /// A refusal with something after it.
    #[error("a refusal has more than a code")]
    Refusal,
    /// Its session is not the one of the command.
    #[error("its session area is not that of an empty password")]
    Session,
    /// Bytes after its parameters.
    #[error("{0} bytes follow its parameters")]
    Trailing(usize),
    /// It is about something else than was asked.
    #[error("it answers for another {0}")]
    Other(&'static str),
}

/// What a response says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Response<'a> {
    /// The parameters.
    Done(&'a [u8]),
    /// The code, which is not zero.
    Refused(u32),
}

/// The parameters of a command that succeeded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parameters<'a>(Reader<'a>);

/// A bank of PCRs: its hash algorithm and which PCRs it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bank {
    pub(super) algorithm: u16,
    pub(super) mask: u32,
}

/// A quote as the TPM made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedAttest {
    /// The `TPMS_ATTEST`.
    pub message: Vec<u8>,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    pub signature: Vec<u8>,
}

impl<'a> Response<'a> {
    /// Reads the frame of the response to `command`.
    pub(super) fn parse(command: Command, bytes: &'a [u8]) -> Result<Self, ResponseError> {
        let mut reader = Reader::new(bytes);
        let (tag, said, code) = (reader.u16_be()?, reader.u32_be()?, reader.u32_be()?);
        if usize::try_from(said).ok() != Some(bytes.len()) {
            let got = bytes.len();
            return Err(ResponseError::Size { said, got });
        }
        if code != 0 {
            return match (tag, reader.is_empty()) {
                (NO_SESSIONS, true) => Ok(Self::Refused(code)),
                (NO_SESSIONS, false) => Err(ResponseError::Refusal),
                _ => Err(ResponseError::Tag(tag)),
            };
        }
        if tag != command.tag() {
            return Err(ResponseError::Tag(tag));
        }
        if command.is_authorized() {
            let length = reader.u32_be()?;
            let parameters = reader.take_u32(length)?;
            if reader.rest() != ACKNOWLEDGMENT {
                return Err(ResponseError::Session);
            }
            return Ok(Self::Done(parameters));
        }
        Ok(Self::Done(reader.rest()))
    }
}

impl<'a> Parameters<'a> {
    pub(super) fn of(bytes: &'a [u8]) -> Self {
        Self(Reader::new(bytes))
    }

    /// There are none.
    pub(super) fn nothing(self) -> Result<(), ResponseError> {
        self.end()
    }

    /// `TPM2_GetCapability` of the PCR banks.
    pub(super) fn banks(mut self) -> Result<Vec<Bank>, ResponseError> {
        let (more, capability) = (self.0.u8()?, self.0.u32_be()?);
        if more != 0 || capability != CAPABILITY_PCRS {
            return Err(ResponseError::Other("capability"));
        }
        let banks = self.selections()?;
        self.end()?;
        Ok(banks)
    }

    /// `TPM2_PCR_Read` of one bank: which of the PCRs that were asked for, with values.
    pub(super) fn pcrs(mut self, asked: Bank) -> Result<Vec<(u8, Sha256Digest)>, ResponseError> {
        let _update_counter = self.0.u32_be()?;
        let selections = self.selections()?;
        let &[Bank { algorithm, mask }] = selections.as_slice() else {
            return Err(ResponseError::Other("bank"));
        };
        if algorithm != asked.algorithm || mask & !asked.mask != 0 {
            return Err(ResponseError::Other("bank"));
        }
        if self.0.u32_be()? != mask.count_ones() {
            return Err(ResponseError::Other("number of pcrs"));
        }
        let mut values = Vec::new();
        for index in (0..24).filter(|index| mask & (1 << index) != 0) {
            if usize::from(self.0.u16_be()?) != Sha256Digest::SIZE {
                return Err(ResponseError::Other("hash"));
            }
            values.push((index, Sha256Digest(self.0.array()?)));
        }
        self.end()?;
        Ok(values)
    }

    /// `TPM2_NV_ReadPublic`: the size of the index, in bytes.
    pub(super) fn nv_size(mut self, asked: u32) -> Result<u16, ResponseError> {
        let mut public = Reader::new(self.sized()?);
        let _name = self.sized()?;
        self.end()?;
        let (index, _hash, _attributes) = (public.u32_be()?, public.u16_be()?, public.u32_be()?);
        if index != asked {
            return Err(ResponseError::Other("index"));
        }
        let policy = public.u16_be()?;
        public.take(usize::from(policy))?;
        let size = public.u16_be()?;
        Self(public).end()?;
        Ok(size)
    }

    /// `TPM2_NV_Read`: as many bytes as were asked for.
    pub(super) fn nv_bytes(mut self, asked: u16) -> Result<&'a [u8], ResponseError> {
        let bytes = self.sized()?;
        self.end()?;
        if bytes.len() == usize::from(asked) {
            Ok(bytes)
        } else {
            Err(ResponseError::Other("number of bytes"))
        }
    }

    /// `TPM2_Quote` by an RSA key.
    pub(super) fn quote(mut self) -> Result<SignedAttest, ResponseError> {
        let message = self.sized()?;
        if (self.0.u16_be()?, self.0.u16_be()?) != (RSASSA, SHA_256) {
            return Err(ResponseError::Other("signature scheme"));
        }
        let signature = self.sized()?;
        self.end()?;
        Ok(SignedAttest {
            message: message.to_vec(),
            signature: signature.to_vec(),
        })
    }

    fn sized(&mut self) -> Result<&'a [u8], ResponseError> {
        let length = self.0.u16_be()?;
        Ok(self.0.take(usize::from(length))?)
    }

    fn selections(&mut self) -> Result<Vec<Bank>, ResponseError> {
        let count = self.0.u32_be()?;
        if count > MAX_BANKS {
            return Err(ResponseError::Other("number of banks"));
        }
        (0..count).map(|_| self.selection()).collect()
    }

    /// PCRs above 23 are of no use here and passed over.
    fn selection(&mut self) -> Result<Bank, ResponseError> {
        let (algorithm, length) = (self.0.u16_be()?, self.0.u8()?);
        let mut mask = [0; 4];
        let bits = self.0.take(usize::from(length))?;
        mask.iter_mut()
            .take(3)
            .zip(bits)
            .for_each(|(to, from)| *to = *from);
        let mask = u32::from_le_bytes(mask);
        Ok(Bank { algorithm, mask })
    }

    fn end(self) -> Result<(), ResponseError> {
        match self.0.rest().len() {
            0 => Ok(()),
            trailing => Err(ResponseError::Trailing(trailing)),
        }
    }
}
