//! The unprivileged users that a pod's processes on the host run as.
//!
//! Each pod borrows two numbers of the configured range. Who has a number stands on disk: a link
//! of the number's name that says which sandbox, in a directory beside the sandboxes' own. A
//! lock keeps shims from choosing at once; it goes with the process that holds it. A number is
//! free when its sandbox has no state directory any more and no process runs as it.

use std::{
    collections::HashSet,
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    num::NonZeroU32,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, symlink},
    path::{Path, PathBuf},
};

use agent_protocol::id::SandboxId;
use nix::fcntl::{Flock, FlockArg};
use shim_configuration::Qemu;
use shim_hypervisor::{User, Users};
use thiserror::Error;

use crate::record::StateDir;

/// No sandbox's id begins with a dot.
const DIRECTORY: &str = ".users";
const LOCK: &str = "lock";
/// The highest number that means a user: the next one means none (credentials(7)).
const HIGHEST: u32 = u32::MAX - 1;

/// Why a pod has no users.
#[derive(Debug, Error)]
pub(crate) enum UsersError {
    /// The configured numbers are none that users can have.
    #[error(
        "rootless_first_user = {first} and rootless_user_count = {count} of [hypervisor.qemu] are no range of users: begin at 1 or above, with at least 2, and end at {HIGHEST} or below"
    )]
    Range {
        /// The first number.
        first: u32,
        /// How many.
        count: u32,
    },
    /// All of them are taken.
    #[error(
        "each of the {count} users from {first} on has a pod: raise rootless_user_count in [hypervisor.qemu]"
    )]
    Exhausted {
        /// The first number.
        first: u32,
        /// How many.
        count: u32,
    },
    /// The record of who has which cannot be kept.
    #[error("cannot keep {path}, where users of pods are noted")]
    Note {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// Borrows users for a sandbox whose state directory exists; `None` if its processes are to
/// run as root.
///
/// # Errors
///
/// [`UsersError`] when there are none left, or the note of them cannot be made.
pub(crate) fn lend(
    qemu: &Qemu,
    sandbox: &SandboxId,
    state: &StateDir,
) -> Result<Option<Users>, UsersError> {
    if !qemu.rootless {
        return Ok(None);
    }
    let range = Range::of(qemu)?;
    let notes = Notes::open(state)?;
    notes.forget(sandbox)?;
    let busy = users_of_processes();
    let mut free = range
        .from(sandbox)
        .filter(|user| !busy.contains(&user.get()))
        .filter_map(|user| notes.take(user, sandbox).transpose());
    let mut next = || {
        free.next().unwrap_or(Err(UsersError::Exhausted {
            first: qemu.rootless_first_user,
            count: qemu.rootless_user_count,
        }))
    };
    let users = Users {
        hypervisor: next()?,
        vsock_device: next()?,
    };
    Ok(Some(users))
}

/// Gives back what a sandbox borrowed, whose processes are gone.
///
/// # Errors
///
/// [`UsersError::Note`].
pub(crate) fn give_back(sandbox: &SandboxId, state: &StateDir) -> Result<(), UsersError> {
    if !directory(state).exists() {
        return Ok(());
    }
    Notes::open(state)?.forget(sandbox)
}

fn directory(state: &StateDir) -> PathBuf {
    state.path().with_file_name(DIRECTORY)
}

/// Who runs something on this node.
fn users_of_processes() -> HashSet<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let processes = entries.filter(|entry| {
        let name = entry.file_name();
        name.to_str()
            .is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
    });
    processes
        .filter_map(|entry| Some(entry.metadata().ok()?.uid()))
        .collect()
}

/// Numbers that users of pods may have.
#[derive(Debug, Clone, Copy)]
struct Range {
    first: NonZeroU32,
    count: u32,
}

impl Range {
    fn of(qemu: &Qemu) -> Result<Self, UsersError> {
        let (first, count) = (qemu.rootless_first_user, qemu.rootless_user_count);
        let last = first.checked_add(count.saturating_sub(1));
        NonZeroU32::new(first)
            .filter(|_| count >= 2 && last.is_some_and(|last| last <= HIGHEST))
            .map(|first| Self { first, count })
            .ok_or(UsersError::Range { first, count })
    }

    /// All of them, from a place on that is seldom another sandbox's, so that a number that was
    /// just given back is seldom the next to be taken.
    fn from(self, sandbox: &SandboxId) -> impl Iterator<Item = NonZeroU32> {
        let bytes = sandbox.as_str().bytes();
        let start = bytes.fold(0_u32, |sum, byte| {
            sum.wrapping_mul(31).wrapping_add(byte.into())
        }) % self.count;
        let places = (start..self.count).chain(0..start);
        places.map(move |place| self.first.saturating_add(place))
    }
}

/// The notes of who has which number, under the lock.
struct Notes {
    directory: PathBuf,
    /// Where the sandboxes' state directories are.
    sandboxes: PathBuf,
    _lock: Flock<File>,
}

impl Notes {
    fn open(state: &StateDir) -> Result<Self, UsersError> {
        let directory = directory(state);
        let path = directory.join(LOCK);
        let locked = || {
            let mut builder = DirBuilder::new();
            builder.recursive(true).mode(0o700).create(&directory)?;
            let mut options = OpenOptions::new();
            let file = options.write(true).create(true).truncate(false).mode(0o600);
            let file = file.open(&path)?;
            Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno.into())
        };
        Ok(Self {
            _lock: locked().map_err(note(&path))?,
            sandboxes: directory.with_file_name(""),
            directory,
        })
    }

    /// Notes that a sandbox has a number, unless another one that still exists has.
    fn take(&self, user: NonZeroU32, sandbox: &SandboxId) -> Result<Option<User>, UsersError> {
        let path = self.directory.join(user.to_string());
        if let Ok(owner) = fs::read_link(&path) {
            if self.sandboxes.join(&owner).exists() {
                return Ok(None);
            }
            fs::remove_file(&path).map_err(note(&path))?;
        }
        symlink(sandbox, &path).map_err(note(&path))?;
        Ok(Some(User::new(user)))
    }

    fn forget(&self, sandbox: &SandboxId) -> Result<(), UsersError> {
        let entries = fs::read_dir(&self.directory).map_err(note(&self.directory))?;
        for entry in entries.flatten() {
            let path = entry.path();
            let is_its =
                fs::read_link(&path).is_ok_and(|owner| owner == Path::new(sandbox.as_str()));
            if is_its {
                fs::remove_file(&path).map_err(note(&path))?;
            }
        }
        Ok(())
    }
}

fn note(path: &Path) -> impl Fn(io::Error) -> UsersError {
    let path = path.to_owned();
    move |source| UsersError::Note {
        path: path.clone(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Far from any user of a machine that runs tests.
    const FIRST: u32 = 1_999_000_000;

    fn qemu(count: u32) -> Qemu {
        Qemu {
            rootless_first_user: FIRST,
            rootless_user_count: count,
            ..Qemu::default()
        }
    }

    struct Bed(tempfile::TempDir);

    impl Bed {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn state(&self, sandbox: &str) -> StateDir {
            StateDir::at(&self.0.path().join(sandbox))
        }

        fn lend(&self, sandbox: &str, count: u32) -> Result<[u32; 2], UsersError> {
            let state = self.state(sandbox);
            fs::create_dir_all(state.path()).unwrap();
            let id = SandboxId::parse(sandbox).unwrap();
            let users = lend(&qemu(count), &id, &state)?.unwrap();
            Ok([users.hypervisor.id(), users.vsock_device.id()])
        }

        fn give_back(&self, sandbox: &str) {
            let id = SandboxId::parse(sandbox).unwrap();
            give_back(&id, &self.state(sandbox)).unwrap();
            let _ = fs::remove_dir(self.state(sandbox).path());
        }
    }

    #[test]
    fn no_user_is_lent_twice_at_a_time() {
        let bed = Bed::new();
        let mut seen = BTreeSet::new();
        for pod in 0..8 {
            for user in bed.lend(&format!("pod-{pod}"), 16).unwrap() {
                assert!((FIRST..FIRST + 16).contains(&user));
                assert!(seen.insert(user), "{user} has two pods");
            }
        }
        let none_left = bed.lend("one-more", 16);
        assert!(matches!(none_left, Err(UsersError::Exhausted { .. })));
        bed.give_back("pod-3");
        assert!(bed.lend("one-more", 16).is_ok());
    }

    #[test]
    fn shims_that_choose_at_once_choose_differently() {
        let bed = Bed::new();
        let lent: Vec<[u32; 2]> = std::thread::scope(|scope| {
            let pods: Vec<_> = (0..8)
                .map(|pod| {
                    let bed = &bed;
                    scope.spawn(move || bed.lend(&format!("pod-{pod}"), 16).unwrap())
                })
                .collect();
            pods.into_iter().map(|pod| pod.join().unwrap()).collect()
        });
        let distinct: BTreeSet<u32> = lent.into_iter().flatten().collect();
        assert_eq!(distinct.len(), 16);
    }

    #[test]
    fn users_of_a_pod_that_is_gone_are_free_and_a_repeated_pod_takes_no_more() {
        let bed = Bed::new();
        bed.lend("lost", 2).unwrap();
        assert!(bed.lend("next", 2).is_err());
        fs::remove_dir(bed.state("lost").path()).unwrap();
        bed.lend("next", 2).unwrap();
        bed.lend("next", 2).unwrap();
        assert!(bed.lend("lost", 2).is_err());
        bed.give_back("next");
        let left = fs::read_dir(bed.0.path().join(DIRECTORY)).unwrap();
        assert_eq!(left.count(), 1, "the lock stays");
        bed.give_back("never-there");
    }

    #[test]
    fn a_user_that_runs_something_is_not_lent() {
        let own = nix::unistd::geteuid().as_raw();
        assert!(users_of_processes().contains(&own));
        if own == 0 {
            let mut child = std::process::Command::new("sleep");
            let child = std::os::unix::process::CommandExt::uid(child.arg("60"), FIRST + 100);
            let mut child = child.spawn().unwrap();
            let busy = Qemu {
                rootless_first_user: FIRST + 99,
                ..qemu(3)
            };
            let bed = Bed::new();
            let state = bed.state("pod");
            fs::create_dir_all(state.path()).unwrap();
            let users = lend(&busy, &SandboxId::parse("pod").unwrap(), &state);
            child.kill().unwrap();
            child.wait().unwrap();
            let users = users.unwrap().unwrap();
            let lent = BTreeSet::from([users.hypervisor.id(), users.vsock_device.id()]);
            assert_eq!(lent, BTreeSet::from([FIRST + 99, FIRST + 101]));
        }
    }

    #[test]
    fn root_and_numbers_that_mean_nobody_are_in_no_range() {
        for (first, count, is_range) in [
            (1, 2, true),
            (HIGHEST - 1, 2, true),
            (0, 100, false),
            (1000, 1, false),
            (1000, 0, false),
            (HIGHEST, 2, false),
            (u32::MAX, u32::MAX, false),
        ] {
            let qemu = Qemu {
                rootless_first_user: first,
                rootless_user_count: count,
                ..Qemu::default()
            };
            assert_eq!(Range::of(&qemu).is_ok(), is_range, "{first} {count}");
        }
        let as_root = Qemu {
            rootless: false,
            ..qemu(0)
        };
        let bed = Bed::new();
        let id = SandboxId::parse("pod").unwrap();
        assert!(lend(&as_root, &id, &bed.state("pod")).unwrap().is_none());
    }
}
