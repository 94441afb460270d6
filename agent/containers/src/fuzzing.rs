//! Doors to what is private, for `tests/fuzz`.

use crate::user;

/// Looks a user up in an image's files; groups are told once, the first one first.
///
/// # Panics
///
/// When they are not.
pub fn image_user(bytes: &[u8]) {
    user::fuzz(bytes);
}
