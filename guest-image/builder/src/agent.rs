//! The agent binary: the first process of the guest.
//!
//! The guest has no C library and no dynamic loader, so an agent that asks for one would end
//! the VM with a kernel panic that names nothing. The check is done here instead.

use object::{
    Endianness,
    elf::{EM_X86_64, PT_INTERP},
    read::elf::{ElfFile64, FileHeader, ProgramHeader},
};

/// A static executable for the guest's processor.
pub struct Agent(Vec<u8>);

/// Why a file cannot be the agent.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum AgentError {
    /// Not a 64-bit ELF file.
    #[error("is not a 64-bit ELF executable")]
    NotElf,
    /// An ELF file for another processor.
    #[error("is built for another processor than x86-64 (ELF machine {0})")]
    Machine(u16),
    /// It names a dynamic loader.
    #[error(
        "is dynamically linked, but the guest has no loader: build it with `-C target-feature=+crt-static`"
    )]
    Dynamic,
}

impl Agent {
    /// Takes the bytes of an executable if the guest can run it.
    ///
    /// # Errors
    ///
    /// When it is not a static x86-64 ELF executable.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, AgentError> {
        let file =
            ElfFile64::<Endianness>::parse(bytes.as_slice()).map_err(|_| AgentError::NotElf)?;
        let endian = file.endian();
        let machine = file.elf_header().e_machine(endian);
        if machine != EM_X86_64 {
            return Err(AgentError::Machine(machine));
        }
        let headers = file.elf_program_headers();
        if headers.iter().any(|h| h.p_type(endian) == PT_INTERP) {
            return Err(AgentError::Dynamic);
        }
        Ok(Self(bytes))
    }

    /// The executable's bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_test_binary_itself_is_static_and_accepted() {
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(Agent::parse(own).is_ok());
    }

    #[test]
    fn a_dynamic_executable_is_refused() {
        let mut own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let table = usize::try_from(u64::from_le_bytes(own[32..40].try_into().unwrap())).unwrap();
        own[table..table + 4].copy_from_slice(&PT_INTERP.to_le_bytes());
        assert_eq!(Agent::parse(own).err(), Some(AgentError::Dynamic));
    }

    #[test]
    fn other_files_and_processors_are_refused() {
        let refused = Agent::parse(b"#!/bin/sh\n".to_vec());
        assert_eq!(refused.err(), Some(AgentError::NotElf));
        let mut own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        own[18] = 183;
        own[19] = 0;
        assert_eq!(Agent::parse(own).err(), Some(AgentError::Machine(183)));
    }
}
