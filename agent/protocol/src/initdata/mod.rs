//! Initdata: the configuration that a pod's owner writes, the host delivers and
//! the launch binds by its digest.
//!
//! The host carries it and may change it, so nothing in it is used before its
//! digest was compared with what the hardware says; until then it is parsed with
//! bounds and otherwise believed nothing. Three layers, one module each:
//!
//! - [`Initdata`]: the TOML document and its digest ([`document`](self));
//! - [`packed`]: gzip, and base64 of it, as the pod's annotation carries it;
//! - [`disk`]: the frame in which the guest finds it on a block device.
//!
//! [`PolicyText`] is the older way of AKS: a policy alone, bound by its SHA-256.
//!
//! Format: Confidential Containers, `kbs/docs/initdata.md` of the trustee project,
//! version 0.1.0; disk and annotation as Kata Containers 4.1 writes them. The
//! limits are our own: upstream has none.

pub mod disk;
pub mod packed;

mod document;
mod policy;
mod write;

pub use document::{Algorithm, Digest, DocumentError, Initdata};
pub use policy::{POLICY_ANNOTATION, PolicyError, PolicyText};
pub use write::{WriteError, write};

/// The pod annotation that carries packed initdata.
pub const ANNOTATION: &str = "io.katacontainers.config.hypervisor.cc_init_data";

/// Where the guest lays the files out.
pub const DIRECTORY: &str = "/run/confidential-containers/initdata";

/// The file that holds the whole document, beside its entries.
pub const DOCUMENT_FILE: &str = "initdata.toml";

/// The entry that holds the policy for the guest's agent.
pub const POLICY_ENTRY: &str = "policy.rego";

/// The entry that holds a policy document. Not `policy.json`, which is what signature policies are
/// called.
pub const DOCUMENT_ENTRY: &str = "pod-policy.json";

/// Size of the field that binds initdata to a SEV-SNP launch, in bytes.
pub const HOST_DATA_BYTES: usize = 32;

/// The most bytes of a document.
pub const DOCUMENT_BYTES_MAX: usize = 4 << 20;

/// The most bytes of the disk, header and padding included.
pub const DISK_BYTES_MAX: usize = 1 << 20;

/// The most bytes of the packed document: what fits on the disk.
pub const PACKED_BYTES_MAX: usize = DISK_BYTES_MAX - disk::HEADER_BYTES;

/// The most entries of a document.
pub const ENTRIES_MAX: usize = 64;

/// The most bytes of an entry's name.
pub const NAME_BYTES_MAX: usize = 128;
