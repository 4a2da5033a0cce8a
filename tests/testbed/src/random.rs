//! Randomness for names, ports and fake credentials: from the seeds of the standard library's hash maps, which is
//! enough where nothing but uniqueness hangs on it.

use std::hash::{BuildHasher, Hasher, RandomState};

/// A number that differs with each call and each process.
pub(crate) fn number() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Eight hexadecimal digits.
pub(crate) fn suffix() -> String {
    format!("{:08x}", number() & 0xffff_ffff)
}
