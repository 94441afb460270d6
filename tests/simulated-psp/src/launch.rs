//! QEMU's command line as a launch: what is measured, and what is left to be run.
//!
//! The shim writes the command line of a genuine SEV-SNP launch. Here it is taken apart:
//! what the secure processor would see becomes a [`Launch`], and the rest is what QEMU can run
//! on a node without one. A line that a genuine QEMU would measure otherwise than we do is
//! refused, not guessed at.

use std::{
    ffi::{OsStr, OsString},
    path::PathBuf,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use guest_image_measurement::{VcpuCount, VcpuModel};
use serde::Deserialize;

/// Everything of a command line that reaches a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Guest kernel.
    pub kernel: PathBuf,
    /// Guest initrd.
    pub initrd: PathBuf,
    /// Kernel command line.
    pub cmdline: String,
    /// Firmware.
    pub firmware: PathBuf,
    /// Number of processors.
    pub vcpus: VcpuCount,
    /// Their type.
    pub model: VcpuModel,
    /// What is given to the secure processor beside memory.
    pub snp: SnpObject,
}

/// `-object sev-snp-guest`, by QEMU's names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnpObject {
    /// Guest policy.
    pub policy: u64,
    /// `HOST_DATA`.
    pub host_data: [u8; 32],
    /// ID block and what authenticates it.
    pub identity: Option<([u8; 96], Vec<u8>)>,
}

/// A command line is not that of a launch that can be simulated.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum LaunchError {
    /// An option that a measured launch has is not there, or there twice.
    #[error("the command line must have {0} once")]
    Once(&'static str),
    /// An option has a value that cannot be measured.
    #[error("{0} {1:?} cannot be measured")]
    Value(&'static str, String),
    /// The `sev-snp-guest` object cannot be read.
    #[error("the sev-snp-guest object is not one: {0}")]
    Object(String),
    /// The object does not ask for kernel hashes, so the kernel would not be measured.
    #[error("the sev-snp-guest object does not ask for kernel hashes")]
    NoHashes,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Object {
    #[serde(rename = "qom-type")]
    _qom_type: String,
    id: String,
    #[serde(rename = "cbitpos")]
    _cbitpos: u32,
    #[serde(rename = "reduced-phys-bits")]
    _reduced_phys_bits: u32,
    policy: u64,
    kernel_hashes: bool,
    host_data: String,
    id_block: Option<String>,
    id_auth: Option<String>,
    #[serde(default, rename = "author-key-enabled")]
    author_key_enabled: bool,
}

/// A command line, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub struct Taken {
    /// What is measured.
    pub launch: Launch,
    /// What QEMU can run, without `-kernel` and `-initrd`.
    pub remaining: Vec<OsString>,
}

/// Takes the arguments apart.
///
/// # Errors
///
/// [`LaunchError`] names the option that is missing or cannot be measured.
pub fn take_apart(arguments: &[OsString]) -> Result<Taken, LaunchError> {
    let mut options = Options(arguments.to_vec());
    let kernel = options.take("-kernel")?.into();
    let initrd = options.take("-initrd")?.into();
    let firmware = options.take("-bios")?.into();
    let cmdline = text("-append", &options.peek("-append")?)?;
    let cpu = text("-cpu", &options.peek("-cpu")?)?;
    let smp = text("-smp", &options.peek("-smp")?)?;
    let (id, snp) = options.take_snp()?;
    options.edit("-machine", |machine| {
        let guest = format!("confidential-guest-support={id}");
        let kept: Vec<&str> = machine.split(',').filter(|one| *one != guest).collect();
        (kept.join(",") != machine).then(|| kept.join(","))
    })?;
    let bad = |option, value: &str| LaunchError::Value(option, value.to_owned());
    let model = cpu.split(',').next().unwrap_or_default();
    let model = model.parse().map_err(|_| bad("-cpu", &cpu))?;
    let count = smp.split(',').next().unwrap_or_default();
    let vcpus = count.parse().ok().and_then(VcpuCount::new);
    let vcpus = vcpus.ok_or_else(|| bad("-smp", &smp))?;
    Ok(Taken {
        launch: Launch {
            kernel,
            initrd,
            cmdline,
            firmware,
            vcpus,
            model,
            snp,
        },
        remaining: options.0,
    })
}

/// Arguments in which options are looked up.
struct Options(Vec<OsString>);

impl Options {
    /// The place of an option's value; an option's value is never taken for an option.
    fn value_at(&self, name: &'static str) -> Result<usize, LaunchError> {
        let places: Vec<usize> = (0..self.0.len())
            .filter(|at| self.0.get(*at).is_some_and(|option| option == name))
            .filter(|at| *at == 0 || !self.takes_value(at - 1))
            .collect();
        match places.as_slice() {
            [at] if at + 1 < self.0.len() => Ok(at + 1),
            _ => Err(LaunchError::Once(name)),
        }
    }

    /// Whether the argument here is one of the options with free text, whose value may
    /// look like an option.
    fn takes_value(&self, at: usize) -> bool {
        let free = ["-append", "-kernel", "-initrd", "-bios", "-name"];
        self.0
            .get(at)
            .is_some_and(|option| free.iter().any(|free| option == free))
    }

    fn peek(&self, name: &'static str) -> Result<OsString, LaunchError> {
        let at = self.value_at(name)?;
        self.0.get(at).cloned().ok_or(LaunchError::Once(name))
    }

    fn take(&mut self, name: &'static str) -> Result<OsString, LaunchError> {
        let at = self.value_at(name)?;
        let value = self.0.remove(at);
        self.0.remove(at - 1);
        Ok(value)
    }

    fn edit(
        &mut self,
        name: &'static str,
        edit: impl FnOnce(&str) -> Option<String>,
    ) -> Result<(), LaunchError> {
        let at = self.value_at(name)?;
        let old = text(name, &self.peek(name)?)?;
        let new = edit(&old).ok_or(LaunchError::Value(name, old))?;
        if let Some(value) = self.0.get_mut(at) {
            *value = new.into();
        }
        Ok(())
    }

    /// Takes the one SNP object out; other objects stay.
    fn take_snp(&mut self) -> Result<(String, SnpObject), LaunchError> {
        let is_snp = |value: &OsString| value.to_string_lossy().contains("sev-snp-guest");
        let places: Vec<usize> = (1..self.0.len())
            .filter(|at| self.0.get(at - 1).is_some_and(|option| option == "-object"))
            .filter(|at| self.0.get(*at).is_some_and(is_snp))
            .collect();
        let [at] = places.as_slice() else {
            return Err(LaunchError::Once("-object sev-snp-guest"));
        };
        let value = text("-object", &self.0.remove(*at))?;
        self.0.remove(at - 1);
        SnpObject::parse(&value)
    }
}

impl SnpObject {
    /// Reads QEMU's JSON form; gives the object's name beside it.
    fn parse(json: &str) -> Result<(String, Self), LaunchError> {
        let malformed = |what: &str| LaunchError::Object(what.to_owned());
        let object: Object =
            serde_json::from_str(json).map_err(|error| malformed(&error.to_string()))?;
        if !object.kernel_hashes {
            return Err(LaunchError::NoHashes);
        }
        let bytes = |field, text: &str| STANDARD.decode(text).map_err(|_| malformed(field));
        let host_data = bytes("host-data", &object.host_data)?;
        let host_data = host_data.try_into().map_err(|_| malformed("host-data"))?;
        let identity = match (&object.id_block, &object.id_auth) {
            (None, None) if !object.author_key_enabled => None,
            (Some(block), Some(authentication)) => {
                let block = bytes("id-block", block)?;
                let block = block.try_into().map_err(|_| malformed("id-block"))?;
                Some((block, bytes("id-auth", authentication)?))
            }
            _ => return Err(malformed("id-block and id-auth belong together")),
        };
        let snp = Self {
            policy: object.policy,
            host_data,
            identity,
        };
        Ok((object.id, snp))
    }
}

fn text(name: &'static str, value: &OsStr) -> Result<String, LaunchError> {
    let text = value.to_str().map(str::to_owned);
    text.ok_or_else(|| LaunchError::Value(name, value.to_string_lossy().into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OBJECT: &str = r#"{"cbitpos":51,"host-data":"BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=","id":"snp","kernel-hashes":true,"policy":196608,"qom-type":"sev-snp-guest","reduced-phys-bits":1}"#;
    const LINE: &str = "-nodefaults -machine q35,memory-backend=ram,confidential-guest-support=snp \
        -accel tcg -cpu EPYC-v4,pmu=off -smp 2,maxcpus=2 -object memory-backend-memfd,id=ram \
        -object OBJECT -bios /fw -kernel /k -initrd /i -append A=B";

    fn line(from: &str, to: &str) -> Vec<OsString> {
        assert!(LINE.contains(from), "{from}");
        let line = LINE.replace(from, to);
        let words = line.split_ascii_whitespace();
        words
            .map(|word| match word {
                "OBJECT" => OBJECT.into(),
                word => word.into(),
            })
            .collect()
    }

    #[test]
    fn what_is_measured_is_taken_and_the_rest_can_be_run() {
        let taken = take_apart(&line("A=B", "-kernel")).unwrap();
        assert_eq!(
            taken.launch,
            Launch {
                kernel: "/k".into(),
                initrd: "/i".into(),
                cmdline: "-kernel".to_owned(),
                firmware: "/fw".into(),
                vcpus: VcpuCount::new(2).unwrap(),
                model: VcpuModel::Epyc,
                snp: SnpObject {
                    policy: 0x30000,
                    host_data: [7; 32],
                    identity: None,
                },
            }
        );
        let remaining = taken.remaining.join(OsStr::new(" "));
        assert_eq!(
            remaining.to_str().unwrap(),
            "-nodefaults -machine q35,memory-backend=ram -accel tcg -cpu EPYC-v4,pmu=off \
             -smp 2,maxcpus=2 -object memory-backend-memfd,id=ram -append -kernel"
        );
    }

    #[test]
    fn a_line_that_is_measured_otherwise_is_refused() {
        use LaunchError::{Once, Value};
        for (from, to, refused) in [
            ("-bios /fw", "", Once("-bios")),
            ("-bios /fw", "-bios /fw -bios /fw", Once("-bios")),
            ("-kernel /k", "", Once("-kernel")),
            ("-object OBJECT", "", Once("-object sev-snp-guest")),
            ("EPYC-v4", "host", Value("-cpu", "host,pmu=off".to_owned())),
            ("-smp 2", "-smp 0", Value("-smp", "0,maxcpus=2".to_owned())),
            (
                ",confidential-guest-support=snp",
                "",
                Value("-machine", "q35,memory-backend=ram".to_owned()),
            ),
        ] {
            assert_eq!(take_apart(&line(from, to)).unwrap_err(), refused);
        }
    }

    #[test]
    fn an_object_without_hashes_or_with_more_than_is_known_is_refused() {
        let refused =
            |from: &str, to: &str| SnpObject::parse(&OBJECT.replace(from, to)).unwrap_err();
        assert_eq!(
            refused("hashes\":true", "hashes\":false"),
            LaunchError::NoHashes
        );
        for (from, to) in [
            ("\"policy\"", "\"unknown\":1,\"policy\""),
            ("Bwc=", "Bw=="),
            ("\"policy\"", "\"id-block\":\"AAAA\",\"policy\""),
        ] {
            assert!(matches!(refused(from, to), LaunchError::Object(_)), "{to}");
        }
    }
}
