//! Every bound on what crosses between host and guest, in one place.

/// The vsock port on which the agent serves ttrpc.
pub const AGENT_PORT: u32 = 1024;

/// The longest ttrpc message, in bytes; both sides refuse more (ttrpc protocol).
pub const MESSAGE_BYTES_MAX: usize = 4 << 20;

/// The longest container, exec or sandbox id, in bytes.
///
/// containerd's own limit is 76; other clients use up to a 128-byte name.
pub const ID_BYTES_MAX: usize = 128;

/// The longest guest path, in bytes, the terminating zero of `PATH_MAX` left out.
pub const PATH_BYTES_MAX: usize = 4095;

/// The most bytes one read or write of a stream moves.
pub const STREAM_CHUNK_BYTES_MAX: usize = 1 << 20;

/// The most bytes of one file that one `CopyFile` message carries.
pub const COPY_FILE_CHUNK_BYTES_MAX: usize = 1 << 20;

/// The serial number by which the guest knows the disk for images and volumes.
pub const SCRATCH_DISK_SERIAL: &str = "kata-cc-scratch";
