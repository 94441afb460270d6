//! The client: banks, extension of PCRs, quotes.

use std::{
    fmt,
    io::{Read, Write},
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{
    command::{
        CAPABILITY_PCRS, Command, MAX_QUALIFYING_LEN, RSASSA, SHA_256, SHA_384, selection, sized,
    },
    error::TpmError,
    exchange::{ask, malformed},
    response::{Bank, Parameters, ResponseError},
};
use crate::{
    azure::{PCR_COUNT, Quote},
    field::Sha256Digest,
    log::EventDigests,
};

/// PCR of the measurement log: the highest that software of the guest can extend and
/// nobody can reset before the guest ends. CoCo's default, 17, takes extensions from a
/// dynamic root of trust only (TCG PC client platform TPM profile, 4.6).
pub const LOG_PCR: u8 = 15;
/// PCR of the initdata, by CoCo's convention.
pub const INITDATA_PCR: u8 = 8;

const ALL_PCRS: u32 = 0xFF_FFFF;

/// A register outside the log that is extended with each of its entries.
pub trait Register: fmt::Debug + Send + Sync {
    /// Extends it; blocks, for as long as the register's device takes.
    ///
    /// # Errors
    ///
    /// [`TpmError`]: then what the entry describes must not happen.
    fn extend(&self, digests: &EventDigests) -> Result<(), TpmError>;

    /// Extends the register of the initdata, once, by its SHA-256.
    ///
    /// # Errors
    ///
    /// [`TpmError`]: then the initdata must not be used.
    fn extend_initdata(&self, digest: Sha256Digest) -> Result<(), TpmError>;
}

/// A TPM behind a channel, for one command at a time.
pub struct Tpm<T> {
    channel: Mutex<T>,
    sha_256: bool,
    sha_384: bool,
}

impl<T> fmt::Debug for Tpm<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tpm")
            .field("sha_256", &self.sha_256)
            .field("sha_384", &self.sha_384)
            .finish_non_exhaustive()
    }
}

impl<T: Read + Write> Tpm<T> {
    /// Asks the TPM for its banks.
    ///
    /// # Errors
    ///
    /// [`TpmError`], also if it has no bank for the log.
    pub fn start(mut channel: T) -> Result<Self, TpmError> {
        let parameters = [CAPABILITY_PCRS, 0, 1].map(u32::to_be_bytes).concat();
        let banks =
            ask(&mut channel, Command::GetCapability, &[], &parameters)?.read(Parameters::banks)?;
        let has = |algorithm| {
            let needed = 1 << LOG_PCR | 1 << INITDATA_PCR;
            let is_it = |bank: &Bank| bank.algorithm == algorithm && bank.mask & needed == needed;
            banks.iter().any(is_it)
        };
        let (sha_256, sha_384) = (has(SHA_256), has(SHA_384));
        if !sha_256 && !sha_384 {
            return Err(TpmError::NoBank(LOG_PCR));
        }
        Ok(Self {
            channel: Mutex::new(channel),
            sha_256,
            sha_384,
        })
    }

    /// Extends a PCR, in those of the two banks that there are.
    ///
    /// # Errors
    ///
    /// [`TpmError`] names the command that failed.
    pub fn extend(&self, pcr: u8, digests: &EventDigests) -> Result<(), TpmError> {
        let mut values = Vec::new();
        if self.sha_256 {
            values.push([&SHA_256.to_be_bytes(), &digests.sha_256.0[..]].concat());
        }
        if self.sha_384 {
            values.push([&SHA_384.to_be_bytes(), &digests.sha_384.0[..]].concat());
        }
        self.extend_by(pcr, &values)
    }

    fn extend_by(&self, pcr: u8, values: &[Vec<u8>]) -> Result<(), TpmError> {
        let count = u32::try_from(values.len()).expect("two at most");
        let parameters = [&count.to_be_bytes(), values.concat().as_slice()].concat();
        let handles = [u32::from(pcr)];
        let mut channel = self.lock();
        ask(&mut *channel, Command::PcrExtend, &handles, &parameters)?.read(Parameters::nothing)
    }

    /// All PCRs of the SHA-256 bank.
    ///
    /// # Errors
    ///
    /// [`TpmError`] names the command that failed.
    pub fn pcrs(&self) -> Result<[Sha256Digest; PCR_COUNT], TpmError> {
        pcrs(&mut *self.lock())
    }

    /// Has a key sign a nonce and all PCRs of the SHA-256 bank, with RSASSA and SHA-256.
    /// Nothing of ours extends a PCR in between.
    ///
    /// # Errors
    ///
    /// [`TpmError`], also if the PCRs read are not those signed.
    pub fn quote(&self, key: u32, nonce: &[u8]) -> Result<Quote, TpmError> {
        if nonce.len() > MAX_QUALIFYING_LEN {
            return Err(TpmError::Nonce(nonce.len()));
        }
        let parameters = [
            sized(nonce),
            [RSASSA, SHA_256].map(u16::to_be_bytes).concat(),
            selection(SHA_256, ALL_PCRS),
        ]
        .concat();
        let mut channel = self.lock();
        let signed =
            ask(&mut *channel, Command::Quote, &[key], &parameters)?.read(Parameters::quote)?;
        let quote = Quote {
            signature: signed.signature,
            message: signed.message,
            pcrs: pcrs(&mut *channel)?,
        };
        if quote.covers_its_pcrs() {
            Ok(quote)
        } else {
            Err(TpmError::Pcrs)
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, T> {
        // A command that was broken off leaves a channel that refuses the next one.
        self.channel.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Read + Write + Send> Register for Tpm<T> {
    fn extend(&self, digests: &EventDigests) -> Result<(), TpmError> {
        Self::extend(self, LOG_PCR, digests)
    }

    fn extend_initdata(&self, digest: Sha256Digest) -> Result<(), TpmError> {
        if !self.sha_256 {
            return Err(TpmError::NoBank(INITDATA_PCR));
        }
        let value = [&SHA_256.to_be_bytes(), &digest.0[..]].concat();
        self.extend_by(INITDATA_PCR, &[value])
    }
}

fn pcrs<T: Read + Write>(channel: &mut T) -> Result<[Sha256Digest; PCR_COUNT], TpmError> {
    let mut values = [Sha256Digest::ZERO; PCR_COUNT];
    let mut left = ALL_PCRS;
    // A TPM gives some at a time, in ascending order; each time fewer are left.
    while left != 0 {
        let asked = Bank {
            algorithm: SHA_256,
            mask: left,
        };
        let answer = ask(channel, Command::PcrRead, &[], &selection(SHA_256, left))?;
        let some = answer.read(|parameters| parameters.pcrs(asked))?;
        if some.is_empty() {
            let source = ResponseError::Other("number of pcrs");
            return Err(malformed(Command::PcrRead, source));
        }
        for (index, value) in some {
            left &= !(1 << index);
            if let Some(place) = values.get_mut(usize::from(index)) {
                *place = value;
            }
        }
    }
    Ok(values)
}
