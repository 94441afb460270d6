//! Tells lack of room from other failures.

use std::{error::Error as StdError, io};

use agent_image_unpacking::TreeError;
use rustix::io::Errno;

/// Whether the cause of an error is that a file system has no room.
pub(crate) fn is_full(error: &(dyn StdError + 'static)) -> bool {
    const FULL: [Errno; 2] = [Errno::NOSPC, Errno::DQUOT];
    let full = |error: &(dyn StdError + 'static)| {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            let errno = error.raw_os_error().map(Errno::from_raw_os_error);
            return errno.is_some_and(|errno| FULL.contains(&errno))
                || error.get_ref().is_some_and(|inner| is_full(inner));
        }
        error
            .downcast_ref()
            .is_some_and(|errno| FULL.contains(errno))
            || matches!(error.downcast_ref(), Some(TreeError::Full { .. }))
    };
    let mut cause = Some(error);
    while let Some(error) = cause {
        if full(error) {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use agent_scratch_disk::ScratchError;

    use super::*;

    fn failed(step: &'static str) -> impl FnOnce(io::Error) -> ScratchError {
        move |source| ScratchError::System { step, source }
    }

    #[test]
    fn lack_of_room_is_told_from_other_errors_however_deep_it_is() {
        let no_room = || io::Error::from_raw_os_error(28);
        let wrapped = failed("write")(io::Error::other(no_room()));
        assert!(is_full(&no_room()) && is_full(&wrapped) && is_full(&Errno::DQUOT));
        assert!(!is_full(&failed("write")(io::ErrorKind::NotFound.into())));
        assert!(!is_full(&Errno::IO));
    }
}
