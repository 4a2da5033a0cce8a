//! The token that a caller shows, as far as it can be judged without asking anybody. Its signature is the apiserver's matter.

use axum::http::{HeaderMap, header};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

use super::problem::Problem;
use crate::token::JwtTimes;

/// A ServiceAccount's token has about 1 KiB.
const LONGEST: usize = 8 * 1024;
/// Whose end is longer ago has expired by any clock, in seconds. What is nearer the apiserver decides.
const SKEW: i64 = 300;

/// What a caller shows. No `Debug`.
pub(super) struct Bearer(SecretString);

#[derive(Deserialize)]
struct Claims {
    #[serde(default)]
    aud: Audiences,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audiences {
    One(String),
    Many(Vec<String>),
}

// === impl Bearer ===

impl Bearer {
    /// The token in `headers`, unless it is plain that nobody will accept it.
    pub(super) fn of(headers: &HeaderMap, audience: &str, now: Timestamp) -> Result<Self, Problem> {
        let Some(value) = headers.get(header::AUTHORIZATION) else {
            return Err(unauthorized("no token: send a ServiceAccount token as Authorization: Bearer"));
        };
        let token = value.to_str().ok().and_then(|text| text.split_once(' '));
        let Some((_, token)) = token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("Bearer")) else {
            return Err(unauthorized("the header Authorization is to be: Bearer, a blank, and a ServiceAccount token"));
        };
        let token = token.trim();
        let claims = claims(token).filter(|_| token.len() <= LONGEST);
        let Some(claims) = claims else { return Err(Problem::invalid_token("this is no ServiceAccount token")) };
        let end = JwtTimes::of(token).expires_at;
        if end.is_none_or(|end| end.saturating_add(SKEW) < now.as_second()) {
            return Err(Problem::invalid_token("the token has expired: read it anew from its file before each call"));
        }
        if !claims.aud.name(audience) {
            return Err(Problem::invalid_token(format!(
                "the token is for other audiences: project one with the audience {audience}"
            )));
        }
        Ok(Self(token.to_owned().into()))
    }

    /// The token.
    pub(super) fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

// === impl Audiences ===

impl Audiences {
    fn name(&self, audience: &str) -> bool {
        match self {
            Self::One(one) => one == audience,
            Self::Many(many) => many.iter().any(|one| one == audience),
        }
    }
}

impl Default for Audiences {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

fn unauthorized(detail: &str) -> Problem {
    Problem::new(axum::http::StatusCode::UNAUTHORIZED, detail)
}

fn claims(token: &str) -> Option<Claims> {
    let mut parts = token.split('.');
    let (_header, payload, _signature, None) = (parts.next()?, parts.next()?, parts.next()?, parts.next()) else {
        return None;
    };
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test")]

    use axum::http::StatusCode;
    use axum::response::IntoResponse as _;
    use serde_json::json;

    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn jwt(claims: &serde_json::Value) -> String {
        format!("e30.{}.c2ln", BASE64_URL_SAFE_NO_PAD.encode(claims.to_string()))
    }

    fn problem(header: &str) -> Option<Problem> {
        let headers = [(header::AUTHORIZATION, header.parse().unwrap())].into_iter().collect();
        Bearer::of(&headers, "ours", Timestamp::from_second(NOW).unwrap()).err()
    }

    #[test]
    fn what_nobody_would_accept_is_refused_without_asking() {
        let good = jwt(&json!({"aud": ["x", "ours"], "exp": NOW + 60}));
        assert_eq!(problem(&format!("bearer {good}")), None);
        assert_eq!(problem(&format!("Bearer {}", jwt(&json!({"aud": "ours", "exp": NOW - SKEW + 1})))), None);
        let long = jwt(&json!({"aud": "ours", "exp": NOW + 60, "x": "y".repeat(LONGEST)}));
        for (wrong, word) in [
            (format!("Basic {good}"), "Authorization"),
            (good.clone(), "Authorization"),
            ("Bearer ".into(), "no ServiceAccount token"),
            ("Bearer opaque".into(), "no ServiceAccount token"),
            (format!("Bearer {good}.more"), "no ServiceAccount token"),
            (format!("Bearer {long}"), "no ServiceAccount token"),
            (format!("Bearer {}", jwt(&json!({"aud": "ours", "exp": NOW - SKEW - 1}))), "expired"),
            (format!("Bearer {}", jwt(&json!({"aud": "ours"}))), "expired"),
            (format!("Bearer {}", jwt(&json!({"aud": ["theirs"], "exp": NOW + 60}))), "audience ours"),
            (format!("Bearer {}", jwt(&json!({"exp": NOW + 60}))), "audience ours"),
        ] {
            let problem = problem(&wrong).unwrap();
            assert!(problem.detail.contains(word), "{wrong}: {}", problem.detail);
            assert_eq!(problem.status, StatusCode::UNAUTHORIZED);
            assert!(problem.into_response().headers().contains_key(header::WWW_AUTHENTICATE));
        }
        assert!(Bearer::of(&HeaderMap::new(), "ours", Timestamp::UNIX_EPOCH).is_err());
    }
}
