//! Writing a file for a guest image; the module above says what it holds and why.
//!
//! The same contents always give the same bytes: version 1 of the format, one platform, pages
//! in the order in which QEMU adds them without a file, each distinct page of data once.

use std::collections::HashMap;

use super::{
    frame::{CHECKSUM_AT, FIXED_BYTES, MAGIC, PREFIX_BYTES, crc32},
    id,
    structure::{
        DATA_CPUID, DATA_NORMAL, DATA_SECRETS, GUEST_POLICY, PAGE_DATA, PLATFORM_SEV_SNP,
        PLATFORM_VERSION, SNP_ID_BLOCK, SUPPORTED_PLATFORM, VP_CONTEXT,
    },
};
use crate::{
    bytes::{put, u32_at},
    firmware::{Firmware, FirmwareError, TOP},
    id_block::{IdAuthentication, IdBlock},
    kernel_hashes::KernelHashes,
    launch::{Content, Launch, MeasureError, VMSA_GPA, VcpuCount},
    page::{PAGE_BYTES, Page},
    vcpu::VcpuSignature,
    vmsa::{BOOT_EIP, SevFeatures, Vmm, vmsa_page},
};

/// The only platform's bit.
const MASK: u32 = 1;
const FORMAT_VERSION: u32 = 1;
/// A page of zeros that the loader makes itself.
const NO_DATA: u32 = 0;

/// What a file is composed of.
#[derive(Clone, Copy, Debug)]
pub struct Contents<'a> {
    /// The firmware image, a build for direct boot such as `OVMF.amdsev.fd`.
    pub firmware: &'a [u8],
    /// What the firmware checks kernel, initrd and command line against.
    pub kernel: &'a KernelHashes,
    /// The type of the virtual processors.
    pub signature: VcpuSignature,
    /// SEV features that the VM is started with.
    pub features: SevFeatures,
    /// How many processors; a VM with another number has another digest.
    pub vcpus: VcpuCount,
    /// The guest policy.
    pub policy: u64,
}

/// Why no file can be composed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ComposeError {
    /// The firmware is none.
    #[error("the firmware cannot be measured")]
    Firmware(#[from] FirmwareError),
    /// The firmware cannot start this.
    #[error("the firmware cannot start this guest")]
    Launch(#[from] MeasureError),
}

/// A file from which QEMU starts what it starts without one from the same firmware, kernel,
/// initrd and command line, with the same launch digest.
///
/// `identity` is an ID block for that digest; its policy must be that of the contents, or no
/// loader gets it past the secure processor.
///
/// # Errors
///
/// When the firmware is none, or cannot start this kernel or so many processors.
pub fn compose(
    contents: &Contents<'_>,
    identity: Option<(&IdBlock, &IdAuthentication)>,
) -> Result<Vec<u8>, ComposeError> {
    let firmware = Firmware::parse(contents.firmware)?;
    let launch = Launch {
        firmware: &firmware,
        kernel: Some(contents.kernel),
        signature: contents.signature,
        features: contents.features,
        vmm: Vmm::Qemu,
    };
    let mut writer = Writer::default();
    writer.platform();
    writer.guest_policy(contents.policy);
    writer.image(contents.firmware);
    for placed in launch.placed()? {
        writer.placed(placed.gpa, &placed.content);
    }
    let boot = vmsa_page(Vmm::Qemu, BOOT_EIP, contents.signature, contents.features);
    writer.context(0, &boot);
    for index in 1..contents.vcpus.number() {
        let further = launch.further_vmsa();
        writer.context(index, &further.ok_or(MeasureError::NoResetVector)?);
    }
    if let Some((block, authentication)) = identity {
        let directive = id::directive(MASK, block, authentication);
        writer.header(SNP_ID_BLOCK, &directive);
    }
    Ok(writer.finish())
}

/// Headers and data in the making. Where the data begins is known at the end only, so
/// offsets count from there until then.
#[derive(Default)]
struct Writer {
    headers: Vec<u8>,
    /// Where in `headers` an offset of data is.
    offsets: Vec<usize>,
    data: Vec<u8>,
    /// Offset of each page of data.
    written: HashMap<Page, u32>,
}

impl Writer {
    fn header(&mut self, kind: u32, value: &[u8]) {
        let length = number(value.len());
        self.headers.extend(kind.to_le_bytes());
        self.headers.extend(length.to_le_bytes());
        self.headers.extend(value);
        let padded = self.headers.len().next_multiple_of(8);
        self.headers.resize(padded, 0);
    }

    /// A header that names a page of data at one of its places.
    fn header_with_data(&mut self, kind: u32, value: &mut [u8], at: usize, page: &Page) {
        let offset = self.offset(page);
        put(value, at, &offset.to_le_bytes());
        self.offsets.push(self.headers.len() + PREFIX_BYTES + at);
        self.header(kind, value);
    }

    fn offset(&mut self, page: &Page) -> u32 {
        let next = number(self.data.len());
        let offset = *self.written.entry(*page).or_insert(next);
        if offset == next {
            self.data.extend(page);
        }
        offset
    }

    fn platform(&mut self) {
        let mut value = [0; 16];
        put(&mut value, 0, &MASK.to_le_bytes());
        put(&mut value, 5, &[PLATFORM_SEV_SNP]);
        put(&mut value, 6, &PLATFORM_VERSION.to_le_bytes());
        self.header(SUPPORTED_PLATFORM, &value);
    }

    fn guest_policy(&mut self, policy: u64) {
        let mut value = [0; 16];
        put(&mut value, 0, &policy.to_le_bytes());
        put(&mut value, 8, &MASK.to_le_bytes());
        self.header(GUEST_POLICY, &value);
    }

    /// The firmware's own pages, which end where 32-bit addresses end. Those of zeros are
    /// written too: without data they would be measured as another type of page.
    fn image(&mut self, image: &[u8]) {
        let (pages, _) = image.as_chunks::<PAGE_BYTES>();
        let first = TOP - image.len() as u64;
        for (gpa, page) in (first..).step_by(PAGE_BYTES).zip(pages) {
            let mut value = page_data(gpa, DATA_NORMAL);
            self.header_with_data(PAGE_DATA, &mut value, 12, page);
        }
    }

    fn placed(&mut self, gpa: u64, content: &Content) {
        let (kind, count) = match content {
            Content::Table(page) => {
                let mut value = page_data(gpa, DATA_NORMAL);
                return self.header_with_data(PAGE_DATA, &mut value, 12, page);
            }
            Content::Zero(count) => (DATA_NORMAL, *count),
            Content::Secrets(count) => (DATA_SECRETS, *count),
            Content::Cpuid(count) => (DATA_CPUID, *count),
        };
        for gpa in (gpa..).step_by(PAGE_BYTES).take(count as usize) {
            self.header(PAGE_DATA, &page_data(gpa, kind));
        }
    }

    fn context(&mut self, index: u16, state: &Page) {
        let mut value = [0; 20];
        put(&mut value, 0, &VMSA_GPA.to_le_bytes());
        put(&mut value, 8, &MASK.to_le_bytes());
        put(&mut value, 16, &index.to_le_bytes());
        self.header_with_data(VP_CONTEXT, &mut value, 12, state);
    }

    fn finish(mut self) -> Vec<u8> {
        let data_at = FIXED_BYTES + self.headers.len();
        for at in self.offsets {
            let offset = u32_at(&self.headers, at).expect("offsets were written");
            let absolute = number(data_at) + offset;
            put(&mut self.headers, at, &absolute.to_le_bytes());
        }
        let mut file = vec![0; FIXED_BYTES];
        let total = data_at + self.data.len();
        put(&mut file, 0, &MAGIC);
        put(&mut file, 4, &FORMAT_VERSION.to_le_bytes());
        put(&mut file, 8, &number(FIXED_BYTES).to_le_bytes());
        put(&mut file, 12, &number(self.headers.len()).to_le_bytes());
        put(&mut file, 16, &number(total).to_le_bytes());
        let checksum = crc32(&[&file, &self.headers]);
        put(&mut file, CHECKSUM_AT, &checksum.to_le_bytes());
        file.append(&mut self.headers);
        file.append(&mut self.data);
        file
    }
}

fn page_data(gpa: u64, kind: u16) -> [u8; 24] {
    let mut value = [0; 24];
    put(&mut value, 0, &gpa.to_le_bytes());
    put(&mut value, 8, &MASK.to_le_bytes());
    put(&mut value, 12, &NO_DATA.to_le_bytes());
    put(&mut value, 20, &kind.to_le_bytes());
    value
}

/// Sizes here are those of a firmware image and of at most 4096 processors.
fn number(size: usize) -> u32 {
    u32::try_from(size).expect("firmware has at most 8 MiB, its sections 64 MiB")
}
