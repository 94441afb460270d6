//! Indices of a TPM's non-volatile memory, under the owner's empty password.

use std::io::{Read, Write};

use super::{
    client::Tpm,
    command::{Command, SHA_256, sized},
    error::TpmError,
    exchange::ask,
    response::Parameters,
};

/// `TPM_RH_OWNER`.
const OWNER: u32 = 0x4000_0001;
/// Largest part of an index read at once; TPMs of PCs take it.
const CHUNK_LEN: u16 = 512;
/// `TPMA_NV`: written and read under the owner's password.
const ATTRIBUTES: u32 = 1 << 1 | 1 << 17;
/// `TPM_RC_HANDLE` for the first handle: the index is not defined.
const NO_SUCH_HANDLE: u32 = 0x18B;
/// Bytes of the one kind of index that this client writes.
const WRITTEN_LEN: u16 = 64;

impl<T: Read + Write> Tpm<T> {
    /// The content of an NV index, or nothing if there is no such index.
    ///
    /// # Errors
    ///
    /// [`TpmError`] names the command that failed.
    pub fn nv_read(&self, index: u32) -> Result<Option<Vec<u8>>, TpmError> {
        let mut channel = self.lock();
        let Some(size) = size_of(&mut *channel, index)? else {
            return Ok(None);
        };
        let mut content = Vec::with_capacity(usize::from(size));
        let mut offset = 0;
        while offset < size {
            let length = CHUNK_LEN.min(size - offset);
            let parameters = [length.to_be_bytes(), offset.to_be_bytes()].concat();
            let answer = ask(&mut *channel, Command::NvRead, &[OWNER, index], &parameters)?;
            content.extend(answer.read(|parameters| parameters.nv_bytes(length))?);
            offset += length;
        }
        Ok(Some(content))
    }

    /// Writes a whole NV index of 64 bytes, and makes it if there is none.
    ///
    /// # Errors
    ///
    /// [`TpmError`], also if the index has another size.
    pub fn nv_write(&self, index: u32, content: &[u8; 64]) -> Result<(), TpmError> {
        let mut channel = self.lock();
        match size_of(&mut *channel, index)? {
            Some(WRITTEN_LEN) => {}
            Some(size) => return Err(TpmError::IndexSize { index, size }),
            None => define(&mut *channel, index)?,
        }
        let parameters = [sized(content), vec![0, 0]].concat();
        let handles = [OWNER, index];
        ask(&mut *channel, Command::NvWrite, &handles, &parameters)?.read(Parameters::nothing)
    }
}

fn size_of<T: Read + Write>(channel: &mut T, index: u32) -> Result<Option<u16>, TpmError> {
    match ask(channel, Command::NvReadPublic, &[index], &[]) {
        Err(TpmError::Refused { code, .. }) if code == NO_SUCH_HANDLE => Ok(None),
        answer => answer?
            .read(|parameters| parameters.nv_size(index))
            .map(Some),
    }
}

fn define<T: Read + Write>(channel: &mut T, index: u32) -> Result<(), TpmError> {
    let public = [
        &index.to_be_bytes()[..],
        &SHA_256.to_be_bytes(),
        &ATTRIBUTES.to_be_bytes(),
        &[0, 0],
        &WRITTEN_LEN.to_be_bytes(),
    ];
    let parameters = [sized(&[]), sized(&public.concat())].concat();
    ask(channel, Command::NvDefineSpace, &[OWNER], &parameters)?.read(Parameters::nothing)
}
