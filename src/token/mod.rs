//! The token itself: its record, its seals, its life. Pure: no client, no clock, no await.

mod fingerprint;
mod inputs;
mod lifetime;
mod record;
mod renewal;
mod seal;

pub use fingerprint::TokenFingerprint;
pub use inputs::{AccountFingerprint, Inputs, InputsFingerprint, ProcessKey, random_suffix};
pub use lifetime::{JwtTimes, Lifetime, LifetimeSource};
pub use record::{Record, RecordError};
pub use renewal::{REPEATED_TOKEN_DELAY, Validity, renewal_point};
pub use seal::{InputSeal, RecordSeal, Verdict};

use secrecy::{ExposeSecret, SecretString};

/// An access token (RFC 6749 section 1.4). It has no `Debug` and is wiped when dropped.
#[derive(Clone)]
pub struct AccessToken(SecretString);

// === impl AccessToken ===

impl AccessToken {
    /// The token's characters. Every use is a place where it could leak.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// Whether both are the same token.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

impl From<String> for AccessToken {
    fn from(token: String) -> Self {
        Self(token.into())
    }
}
