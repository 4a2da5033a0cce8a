//! Fingerprint of a token's value: whether a token is another one than before, without keeping either.

use super::seal::{self, Message};
use super::{AccessToken, Verdict};

const VERSION: &str = "t1";

/// Fingerprint of an [`AccessToken`]: `t1.` and a base64url HMAC-SHA-256 of a fixed text, keyed with the token itself.
///
/// It speaks of the value alone: a record that was repaired, extended or sealed anew has the same one. It is compared, and shown
/// to who may read workloads; nobody can compute a token from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenFingerprint(String);

// === impl TokenFingerprint ===

impl TokenFingerprint {
    /// The fingerprint of `token`.
    #[must_use]
    pub fn of(token: &AccessToken) -> Self {
        Self(seal::seal(VERSION, token, &Self::message()))
    }

    /// What the written fingerprint `text` says about `token`.
    #[must_use]
    pub fn check(text: &str, token: &AccessToken) -> Verdict {
        seal::check(VERSION, text, token, &Self::message())
    }

    /// The written form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn message() -> Message {
        Message::new("verteil.dev/token-fingerprint")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token(text: &str) -> AccessToken {
        AccessToken::from(text.to_owned())
    }

    /// Computed by another implementation of HMAC-SHA-256. A change of it would restart every listed workload at an upgrade: make a new
    /// version instead.
    #[test]
    fn version_one_stays_what_it_is() {
        assert_eq!(
            TokenFingerprint::of(&token("fake-token")).as_str(),
            "t1.sn7Q3i6oRR2i4ln1r-hDr97t_G3n_jjX9bDoX5BReU4"
        );
    }

    #[test]
    fn a_newer_version_is_unknown_and_rubbish_is_not() {
        assert_eq!(TokenFingerprint::check("t2.whatever-comes", &token("a")), Verdict::Unknown);
        for rubbish in ["", "t1", "t1.", "t1.!!", "r2.abc", "x"] {
            assert_eq!(TokenFingerprint::check(rubbish, &token("a")), Verdict::Broken, "{rubbish}");
        }
    }

    proptest! {
        #[test]
        fn it_tells_tokens_apart_and_shows_none(a in "[ -~]{8,64}", b in "[ -~]{8,64}") {
            let written = TokenFingerprint::of(&token(&a));
            prop_assert_eq!(TokenFingerprint::check(written.as_str(), &token(&a)), Verdict::Holds);
            prop_assert_eq!(TokenFingerprint::check(written.as_str(), &token(&b)) == Verdict::Holds, a == b);
            prop_assert!(!written.as_str().contains(&a));
        }
    }
}
