//! What leaves the guest, decided in one place: errors become texts for the host here.
//!
//! The host reads every answer and the console. So an error is told by a fixed text for
//! its kind, with named values ([`Field`]) from a closed list; the text of a library, of a
//! file or of an environment never is one of them. The functions of this module take the
//! typed errors of all that acts, whatever their own texts say: those are for the ring of
//! causes in the guest's memory ([`crate::log`]).
//!
//! Each service has one function that makes its answers of these: `rpc::status` for the
//! host's calls, `rest` for the workloads'.

mod containers;
mod disk;
mod field;
mod guest;
mod hardware;
mod images;
mod initdata;
mod keys;
mod measured;
mod requests;
mod text;

pub(crate) use containers::{container, copy_file, create, exec, lookup, remove, stream};
pub(crate) use field::{Field, OfGuestImage};
pub(crate) use guest::{boot, network, run, sandbox};
pub(crate) use hardware::tee;
pub(crate) use initdata::{bound, scan, take};
pub(crate) use measured::note;
pub(crate) use requests::{denial, document, kata_policy, request};
pub(crate) use text::Told;
