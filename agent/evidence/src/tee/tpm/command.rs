//! Commands as they are sent (TPM 2.0 library, part 1, 18; part 3). Big-endian.

use std::fmt;

/// Longest qualifying data of a quote, in bytes: every TPM with SHA-384 takes these.
pub const MAX_QUALIFYING_LEN: usize = 48;

/// The commands that this client knows, by their codes (part 2, 6.5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[allow(missing_docs, reason = "the names are the specification's")]
pub enum Command {
    NvDefineSpace = 0x12A,
    NvWrite = 0x137,
    NvRead = 0x14E,
    Quote = 0x158,
    NvReadPublic = 0x169,
    GetCapability = 0x17A,
    PcrRead = 0x17E,
    PcrExtend = 0x182,
}

/// Without and with an authorization area (part 2, 6.9).
pub(super) const NO_SESSIONS: u16 = 0x8001;
pub(super) const SESSIONS: u16 = 0x8002;
/// Algorithms (part 2, 6.3).
pub(super) const SHA_256: u16 = 0x000B;
pub(super) const SHA_384: u16 = 0x000C;
pub(super) const RSASSA: u16 = 0x0014;
/// `TPM_CAP_PCRS`.
pub(super) const CAPABILITY_PCRS: u32 = 5;
/// Tag, size and code.
const HEADER_LEN: usize = 10;
/// One password session (`TPM_RS_PW`) with the empty password, of 9 bytes: handle,
/// empty nonce, no attributes, empty password.
const EMPTY_PASSWORD: [u8; 13] = [0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0];

impl Command {
    /// Its name in part 3 of the library.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NvDefineSpace => "TPM2_NV_DefineSpace",
            Self::NvWrite => "TPM2_NV_Write",
            Self::NvRead => "TPM2_NV_Read",
            Self::Quote => "TPM2_Quote",
            Self::NvReadPublic => "TPM2_NV_ReadPublic",
            Self::GetCapability => "TPM2_GetCapability",
            Self::PcrRead => "TPM2_PCR_Read",
            Self::PcrExtend => "TPM2_PCR_Extend",
        }
    }

    /// Its code: the variants' numbers.
    const fn code(self) -> u32 {
        self as u32
    }

    /// Whether its first handle needs an authorization.
    pub(super) const fn is_authorized(self) -> bool {
        !matches!(
            self,
            Self::NvReadPublic | Self::GetCapability | Self::PcrRead
        )
    }

    /// Its tag, and that of the response if it succeeds.
    pub(super) const fn tag(self) -> u16 {
        if self.is_authorized() {
            SESSIONS
        } else {
            NO_SESSIONS
        }
    }

    /// The whole command.
    pub(super) fn frame(self, handles: &[u32], parameters: &[u8]) -> Vec<u8> {
        let mut body: Vec<u8> = handles
            .iter()
            .flat_map(|handle| handle.to_be_bytes())
            .collect();
        if self.is_authorized() {
            body.extend(EMPTY_PASSWORD);
        }
        body.extend(parameters);
        let size = u32::try_from(HEADER_LEN + body.len()).expect("commands are of some 100 bytes");
        let mut framed = self.tag().to_be_bytes().to_vec();
        framed.extend(size.to_be_bytes());
        framed.extend(self.code().to_be_bytes());
        framed.extend(body);
        framed
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A `TPM2B`: its length in 16 bits, then the bytes.
pub(super) fn sized(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).expect("what this client sends is short");
    [&length.to_be_bytes(), bytes].concat()
}

/// A `TPML_PCR_SELECTION` of one bank, PCR 0 in the lowest bit of the mask.
pub(super) fn selection(algorithm: u16, mask: u32) -> Vec<u8> {
    let [low, middle, high, _] = mask.to_le_bytes();
    let mut list = 1_u32.to_be_bytes().to_vec();
    list.extend(algorithm.to_be_bytes());
    list.extend([3, low, middle, high]);
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_has_its_size_and_the_empty_password_where_needed() {
        let read = Command::PcrRead.frame(&[], &selection(0x0B, 1 << 15));
        assert_eq!(
            hex::encode(read),
            "8001000000140000017e00000001000b03008000"
        );
        let write = Command::NvWrite.frame(&[1, 2], &sized(b"ab"));
        assert_eq!(
            hex::encode(write),
            "800200000023000001370000000100000002000000094000000900000000000002\
             6162"
        );
    }
}
