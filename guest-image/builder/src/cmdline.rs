//! The kernel command line, which is measured with the kernel and the initrd.
//!
//! It is fixed when the image is built; whoever starts the VM passes it unchanged.

/// What every guest gets.
///
/// * `console=ttyS0 quiet`: a console without drivers, errors only; each byte costs an exit.
/// * `panic=1 reboot=t`: a dead guest ends the VM (by triple fault) instead of waiting.
/// * `oops=panic lockdown=confidentiality`: a kernel that has found itself broken does not go
///   on and tells the console nothing more; root in the guest neither changes nor reads the
///   running kernel, and only modules with the kernel's own signature load.
/// * `cgroup_no_v1=all`: the agent uses the unified hierarchy only.
/// * `random.trust_cpu=on`: no wait for entropy; the host's generator is not to be trusted.
/// * `random.trust_bootloader=off`: a seed from the host's loader is mixed in, not counted.
/// * `i8042.…`, `8250.nr_uarts=1`, `no_timer_check`: no probing for devices of old machines.
/// * `noreplace-smp`: locks stay as they are when there is one processor; rewriting them costs
///   a tenth of an emulated boot.
/// * `dummy.numdummies=0`: no interface that nobody asked for beside the pod's.
/// * `cryptomgr.notests`: the self tests of algorithms cost boot time; they guard against
///   faulty accelerators, not against the host.
///
/// Nothing that weakens the guest (such as `mitigations=off`) belongs here.
pub const DEFAULT: &str = "console=ttyS0 quiet panic=1 reboot=t oops=panic \
lockdown=confidentiality cgroup_no_v1=all \
random.trust_cpu=on random.trust_bootloader=off no_timer_check i8042.noaux i8042.nomux \
i8042.nopnp i8042.dumbkbd 8250.nr_uarts=1 noreplace-smp dummy.numdummies=0 \
cryptomgr.notests net.ifnames=0";

/// The kernel's `COMMAND_LINE_SIZE` on x86, less the terminating zero.
const MAX_BYTES: usize = 2047;

/// A kernel command line that the kernel takes whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLine(String);

/// Why a command line cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CommandLineError {
    /// A control character or one outside ASCII.
    #[error("kernel parameters {0:?} contain characters other than printable ASCII")]
    Characters(String),
    /// Longer than the kernel keeps.
    #[error("the kernel command line has {0} bytes, the kernel keeps {MAX_BYTES}: append less")]
    TooLong(usize),
}

impl CommandLine {
    /// The default, followed by the owner's own parameters.
    ///
    /// # Errors
    ///
    /// When the parameters are not printable ASCII or the whole is too long.
    pub fn with_appended(extra: &str) -> Result<Self, CommandLineError> {
        let printable = |c: char| c.is_ascii_graphic() || c == ' ';
        if !extra.chars().all(printable) {
            return Err(CommandLineError::Characters(extra.to_owned()));
        }
        let line = match extra.trim() {
            "" => DEFAULT.to_owned(),
            extra => format!("{DEFAULT} {extra}"),
        };
        if line.len() > MAX_BYTES {
            return Err(CommandLineError::TooLong(line.len()));
        }
        Ok(Self(line))
    }

    /// The text, without a terminating zero.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_follow_the_default() {
        let line = CommandLine::with_appended(" agent.log=debug ").unwrap();
        assert_eq!(line.as_str(), format!("{DEFAULT} agent.log=debug"));
        assert_eq!(CommandLine::with_appended("").unwrap().as_str(), DEFAULT);
    }

    #[test]
    fn the_default_keeps_the_mitigations() {
        assert!(!DEFAULT.contains("mitigations"));
        assert!(!DEFAULT.contains("nokaslr"));
    }

    #[test]
    fn the_pool_is_seeded_from_the_processor() {
        let words: Vec<_> = DEFAULT.split(' ').collect();
        assert!(words.contains(&"random.trust_cpu=on"));
        assert!(words.contains(&"random.trust_bootloader=off"));
    }

    #[test]
    fn lines_the_kernel_would_cut_or_misread_are_refused() {
        let long = "x".repeat(MAX_BYTES);
        assert!(matches!(
            CommandLine::with_appended(&long),
            Err(CommandLineError::TooLong(_))
        ));
        for text in ["a\nb", "a\0", "ä"] {
            assert!(matches!(
                CommandLine::with_appended(text),
                Err(CommandLineError::Characters(_))
            ));
        }
    }
}
