//! How long an issued token lives, from what the issuer says of it.

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use jiff::Timestamp;
use serde::Deserialize;

/// Lifetime in seconds of a token whose issuer says nothing of it.
const DEFAULT_LIFETIME: i64 = 3600;
/// Longest lifetime that is believed: ten years of 365 days.
const LONGEST_LIFETIME: i64 = 10 * 365 * 24 * 3600;
/// Longest token that is looked into for claims.
const LONGEST_JWT: usize = 64 * 1024;

/// A lifetime in seconds, at most ten years; zero or less for a token that is at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// Seconds from the request.
    pub seconds: i64,
    /// Who said so.
    pub source: LifetimeSource,
}

/// Where a lifetime comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LifetimeSource {
    /// `expires_in` (RFC 6749 section 5.1).
    ExpiresIn,
    /// The JWT's claims (RFC 7519 section 4.1).
    Jwt,
    /// Nobody: an hour is assumed.
    Assumed,
}

/// The times that a JWT carries, in unix seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JwtTimes {
    /// `iat`: when it was issued, by the issuer's clock.
    pub issued_at: Option<i64>,
    /// `exp`: when it expires, by the issuer's clock.
    pub expires_at: Option<i64>,
}

#[derive(Deserialize)]
struct Claims {
    iat: Option<f64>,
    exp: Option<f64>,
}

// === impl JwtTimes ===

impl JwtTimes {
    /// The times in `token`, if it is a JWT (RFC 7519 section 3). Its signature is not looked at: it is the issuer's word
    /// on its own token, received from the issuer.
    #[must_use]
    pub fn of(token: &str) -> Self {
        Self::parse(token).unwrap_or_default()
    }

    fn parse(token: &str) -> Option<Self> {
        if token.len() > LONGEST_JWT {
            return None;
        }
        let mut parts = token.split('.');
        let (_header, payload, _signature) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        let claims: Claims = serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
        #[expect(clippy::cast_possible_truncation, reason = "held within the range in which an f64 is exact")]
        let whole = |seconds: f64| (seconds.abs() < 9e15).then_some(seconds.floor() as i64);
        Some(Self { issued_at: claims.iat.and_then(whole), expires_at: claims.exp.and_then(whole) })
    }
}

// === impl Lifetime ===

impl Lifetime {
    /// The lifetime of a token asked for at `requested_at`.
    ///
    /// With `expires_in` and a JWT that has both times, the shorter of `expires_in` and `exp − iat` counts: neither depends
    /// on our clock, so that a wrong clock cannot make a fresh token look expired.
    #[must_use]
    pub fn of(expires_in: Option<i64>, jwt: JwtTimes, requested_at: Timestamp) -> Self {
        let span = match (jwt.issued_at, jwt.expires_at) {
            (Some(iat), Some(exp)) => Some(exp.saturating_sub(iat)).filter(|span| *span > 0),
            (None, _) | (_, None) => None,
        };
        let remaining = jwt.expires_at.map(|exp| exp.saturating_sub(requested_at.as_second())).filter(|left| *left > 0);
        let (seconds, source) = match (expires_in, span, remaining) {
            (Some(said), Some(span), _) => (said.min(span), LifetimeSource::ExpiresIn),
            (Some(said), None, _) => (said, LifetimeSource::ExpiresIn),
            // A repeated token has less left than its whole span; a clock that is ahead sees nothing left at all.
            (None, Some(span), Some(left)) => (span.min(left), LifetimeSource::Jwt),
            (None, Some(known), None) | (None, None, Some(known)) => (known, LifetimeSource::Jwt),
            (None, None, None) => (DEFAULT_LIFETIME, LifetimeSource::Assumed),
        };
        Self { seconds: seconds.clamp(-LONGEST_LIFETIME, LONGEST_LIFETIME), source }
    }

    /// The same for a token that was given before, and of which it is known that it lasts until `known`.
    ///
    /// What is said of a JWT counts no further than its own end: without `expires_in`, or from a cache between, it would
    /// begin a whole new life with each answer. Its `exp` is by the issuer's clock and `known` by ours: the later one counts,
    /// so that a wrong clock cannot end a token that holds.
    #[must_use]
    pub fn of_repeated(self, known: Timestamp, jwt: JwtTimes, requested_at: Timestamp) -> Self {
        let left = |end: i64| end.saturating_sub(requested_at.as_second());
        let most = jwt.expires_at.map_or(self.seconds, |exp| left(exp).max(left(known.as_second())));
        Self { seconds: self.seconds.min(most).max(-LONGEST_LIFETIME), source: self.source }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test")]

    use proptest::prelude::*;

    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn jwt(payload: &str) -> String {
        format!("{}.{}.c2ln", BASE64_URL_SAFE_NO_PAD.encode("{}"), BASE64_URL_SAFE_NO_PAD.encode(payload))
    }

    fn lifetime(expires_in: Option<i64>, token: &str) -> (i64, LifetimeSource) {
        let lifetime = Lifetime::of(expires_in, JwtTimes::of(token), Timestamp::from_second(NOW).unwrap());
        (lifetime.seconds, lifetime.source)
    }

    #[test]
    fn takes_the_shorter_of_expires_in_and_the_jwts_span() {
        let token = jwt(&format!(r#"{{"iat":{},"exp":{}}}"#, NOW + 9000, NOW + 9600));
        assert_eq!(lifetime(Some(43199), &token), (600, LifetimeSource::ExpiresIn));
        assert_eq!(lifetime(Some(10), &token), (10, LifetimeSource::ExpiresIn));
    }

    #[test]
    fn takes_the_jwts_claims_when_expires_in_is_absent() {
        assert_eq!(lifetime(None, &jwt(&format!(r#"{{"exp":{}}}"#, NOW + 60))), (60, LifetimeSource::Jwt));
        let behind = jwt(&format!(r#"{{"iat":{},"exp":{}.5}}"#, NOW - 9000, NOW - 8400));
        assert_eq!(lifetime(None, &behind), (600, LifetimeSource::Jwt));
        let used = jwt(&format!(r#"{{"iat":{},"exp":{}}}"#, NOW - 500, NOW + 100));
        assert_eq!(lifetime(None, &used), (100, LifetimeSource::Jwt));
    }

    #[test]
    fn assumes_an_hour_when_nobody_says() {
        for token in ["opaque", "a.b.c", "a.b", "", &jwt("{}"), &jwt(r#"{"exp":"soon"}"#), &jwt("[]")] {
            assert_eq!(lifetime(None, token), (3600, LifetimeSource::Assumed), "{token}");
        }
    }

    #[test]
    fn a_repeated_jwt_lives_no_longer_than_it_says() {
        let again = |expires_in: Option<i64>, token: &str, known: i64| {
            let (now, jwt) = (Timestamp::from_second(NOW).unwrap(), JwtTimes::of(token));
            let known = Timestamp::from_second(NOW + known).unwrap();
            Lifetime::of(expires_in, jwt, now).of_repeated(known, jwt, now).seconds
        };
        let of = |issued: i64, expires: i64| jwt(&format!(r#"{{"iat":{},"exp":{}}}"#, NOW + issued, NOW + expires));
        // Past its end nothing is left, whether nobody says how long it lives or a cache says what was true once.
        for expires_in in [None, Some(43_199)] {
            assert_eq!(again(expires_in, &of(-43_201, -2), -2), -2);
        }
        assert_eq!(again(None, &jwt(&format!(r#"{{"exp":{}}}"#, NOW - 2)), -2), -2);
        // Before its end, what is left.
        assert_eq!(again(None, &of(-42_600, 600), 600), 600);
        assert_eq!(again(Some(600), &of(-42_600, 600), 599), 600);
        // The issuer's clock is an hour behind, or ours was a year behind when the token came.
        assert_eq!(again(Some(600), &of(-46_200, -3000), 600), 600);
        assert_eq!(again(Some(600), &of(-42_600, 600), -31_536_000), 600);
        // Of another kind of token only the issuer knows.
        assert_eq!(again(Some(600), "opaque", -2), 600);
        assert_eq!(again(None, "opaque", -2), 3600);
    }

    proptest! {
        #[test]
        fn any_repeated_jwt_ends_once(
            expires_in: Option<i64>, issued_at: Option<i64>, ahead in -100_000i64..100_000, known in -100_000i64..100_000,
        ) {
            let jwt = JwtTimes { issued_at, expires_at: Some(NOW + ahead) };
            let at = |second| Timestamp::from_second(second).unwrap();
            let said = Lifetime::of(expires_in, jwt, at(NOW));
            let left = said.of_repeated(at(NOW + known), jwt, at(NOW)).seconds;
            prop_assert!(left <= said.seconds && left <= ahead.max(known));
            prop_assert!(left == said.seconds || left == ahead.max(known));
        }

        #[test]
        fn any_claims_give_a_bounded_lifetime(expires_in: Option<i64>, issued_at: Option<i64>, expires_at: Option<i64>) {
            let now = Timestamp::from_second(NOW).unwrap();
            let lifetime = Lifetime::of(expires_in, JwtTimes { issued_at, expires_at }, now);
            prop_assert!(lifetime.seconds.abs() <= LONGEST_LIFETIME);
        }

        #[test]
        fn any_token_is_looked_at_without_panic(token in "[A-Za-z0-9_.-]{0,80}") {
            prop_assert!(JwtTimes::of(&token).expires_at.is_none_or(|e| e.abs() < 9_000_000_000_000_001));
        }
    }
}
