//! A scratch disk for the guest: empty block storage that the host lends becomes an ext4
//! file system under dm-crypt and dm-integrity, with keys that never leave this kernel.
//!
//! It distrusts the host, which makes the disk and sees every block: nothing is read from
//! it but what this guest wrote there last. It knows nothing of images, volumes or
//! containers; who keeps what on the disk is decided by those who use it.
//!
//! * [`Scratch`] makes the disk ready beside the rest of the boot and says where things go;
//! * [`Volume`] is a directory on it, with a limit if one is wanted.

mod device_mapper;
mod disk;
mod ext4;
mod kernel;
mod mapping;
mod random;
mod scratch;
mod volume;

pub use disk::DiskError;
pub use mapping::MappingError;
pub use scratch::{Place, ROOT, Scratch, ScratchError, modules};
pub use volume::Volume;
