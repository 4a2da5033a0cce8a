//! What of an answer is fit to be shown: the `error` of RFC 6749 section 5.2, its description, and where a redirect leads.
//! Nothing of a body else, and not even those if they show the credentials or what may be a token.

use serde_json::{Map, Value};

use crate::quote::{is_printable, quotes};
use crate::token::Inputs;

/// Longest `error_description` or target that is quoted.
const LONGEST_QUOTE: usize = 200;
/// Longest word of a description. UUIDs are shorter, and hashes by which a vendor finds a request; tokens are mostly longer.
const LONGEST_WORD: usize = 64;
/// Longest part of a redirect's path: a tenant's UUID is shorter.
const LONGEST_PART: usize = 40;

/// The errors of RFC 6749 section 5.2, and of section 4.1.2.1 the one that servers of this grant give as well.
const REGISTERED: [&str; 7] = [
    "invalid_request",
    "invalid_client",
    "invalid_grant",
    "unauthorized_client",
    "unsupported_grant_type",
    "invalid_scope",
    "access_denied",
];

/// An `error` of a body.
pub(super) struct OauthError {
    /// It and its description, fit to be shown.
    pub(super) quote: String,
    /// It is a word of RFC 6749: servers of other kinds write any into `error`.
    pub(super) registered: bool,
}

/// The error in `body` (RFC 6749 section 5.2). An empty one is none.
pub(super) fn oauth_error(body: &[u8], inputs: &Inputs) -> Option<OauthError> {
    let fields = fields(body)?;
    let token = token(&fields);
    let text = |field: &str, longest: usize| {
        let text = fields.get(field)?.as_str()?;
        let printable = !text.is_empty() && text.len() <= longest && text.chars().all(is_printable);
        let long = text.split_whitespace().any(|word| word.len() > LONGEST_WORD);
        (printable && !long && !shows_secrets(text, inputs, token)).then(|| text.to_owned())
    };
    let word = fields.get("error")?.as_str().filter(|word| !word.is_empty())?;
    let error = text("error", 64).unwrap_or_else(|| "an error that cannot be shown".into());
    let quote = match text("error_description", LONGEST_QUOTE) {
        Some(description) => format!("{error} ({description})"),
        None => error,
    };
    Some(OauthError { quote, registered: REGISTERED.contains(&word) })
}

/// A redirect's target without its query, which could carry anything; none if it shows a user, ours or another, the token that
/// is in `body`, or what may be one.
pub(super) fn quotable_location(location: &str, body: Option<&[u8]>, inputs: &Inputs) -> Option<String> {
    let target = location.split(['?', '#']).next()?;
    let target: String = target.chars().filter(|c| is_printable(*c)).collect();
    let fields = body.and_then(fields).unwrap_or_default();
    let long = target.split('/').any(|part| part.len() > LONGEST_PART);
    let secret = target.contains('@') || shows_secrets(&target, inputs, token(&fields));
    let quotable = !target.is_empty() && !long && !secret;
    quotable.then(|| target.chars().take(LONGEST_QUOTE).collect())
}

/// Whether any form of the credentials or of `token` is in `text`.
fn shows_secrets(text: &str, inputs: &Inputs, token: Option<&str>) -> bool {
    let secrets = [Some(inputs.username()), Some(inputs.password()), token];
    quotes(text, secrets.into_iter().flatten().map(str::as_bytes))
}

fn fields(body: &[u8]) -> Option<Map<String, Value>> {
    serde_json::from_slice(body).ok()
}

fn token(fields: &Map<String, Value>) -> Option<&str> {
    fields.get("access_token").and_then(Value::as_str).filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test")]

    use super::*;

    fn inputs() -> Inputs {
        Inputs::new("u".into(), "canary-user".to_owned().into(), "canary-pass\n".to_owned().into(), vec![], [].into())
    }

    #[test]
    fn credentials_are_found_in_every_encoding() {
        let shows = |username: &str, password: &str, text: &str| {
            let (username, password) = (username.to_owned().into(), password.to_owned().into());
            shows_secrets(text, &Inputs::new("u".into(), username, password, vec![], [].into()), None)
        };
        for (username, password, text) in [
            // As they are, and as they were meant.
            (" canary-one", "0000", "no canary-one here"),
            ("0000", "canary-two\n", "no canary-two here"),
            // In base64, with the blanks and without.
            (" canary-one", "0000", "of IGNhbmFyeS1vbmU="),
            (" canary-one", "0000", "of Y2FuYXJ5LW9uZQ=="),
            ("0000", "\tcanary-one", "of CWNhbmFyeS1vbmU="),
            ("0000", "\tcanary-one", "of Y2FuYXJ5LW9uZQ=="),
            // In both alphabets.
            ("0000", "canary>>>???", "of Y2FuYXJ5Pj4+Pz8/"),
            ("0000", "canary>>>???", "of Y2FuYXJ5Pj4-Pz8_"),
            // Both at once, where neither's own base64 is a part of it.
            ("canary-one", "0000", "Basic Y2FuYXJ5LW9uZTowMDAw"),
        ] {
            assert!(shows(username, password, text), "{text}");
        }
        assert!(!shows("canary-one", " ", "invalid_client"), "of a blank, nothing is left to be found");
    }

    #[test]
    fn an_error_is_quoted_if_it_is_one_and_short() {
        let words = |length: usize| "word ".chars().cycle().take(length).collect::<String>();
        let said = |body: String| oauth_error(body.as_bytes(), &inputs()).map(|error| error.quote);
        let described = |length: usize| format!(r#"{{"error":"x","error_description":"{}"}}"#, words(length));
        assert_eq!(said(described(LONGEST_QUOTE)), Some(format!("x ({})", words(LONGEST_QUOTE))));
        assert_eq!(said(described(LONGEST_QUOTE + 1)).as_deref(), Some("x"));
        let long = format!(r#"{{"error":"{}"}}"#, "e".repeat(65));
        assert_eq!(said(long).as_deref(), Some("an error that cannot be shown"));
        for body in [r#"{"error":500}"#, r#"{"error":""}"#, "{}", "<html>"] {
            assert_eq!(said(body.into()), None, "{body}");
        }
        assert_eq!(said(r#"{"access_token":"","error":"a"}"#.into()).as_deref(), Some("a"));
        assert_eq!(
            said(r#"{"access_token":"t-1","error":"x","error_description":"of t-1"}"#.into()).as_deref(),
            Some("x")
        );
    }

    #[test]
    fn a_redirect_is_quoted_without_its_query_and_without_users() {
        let to = |location: &str| quotable_location(location, Some(br#"{"access_token":"t-1"}"#), &inputs());
        for rest in ["?canary=1#x", "#canary?x"] {
            assert_eq!(to(&format!("https://a.example/é{rest}")).as_deref(), Some("https://a.example/é"));
        }
        for location in ["", "?x", "https://u:p@a.example/", "https://a.example/Canary-User/x", "https://a.example/t-1"]
        {
            assert_eq!(to(location), None, "{location}");
        }
        let token = format!("https://a.example/next/{}", "x".repeat(LONGEST_PART + 1));
        assert_eq!(to(&token), None);
        assert_eq!(to("https://a.example/\u{1}\u{202e}b").as_deref(), Some("https://a.example/b"));
        assert_eq!(to(&"é/".repeat(300)).unwrap().chars().count(), LONGEST_QUOTE);
    }

    #[test]
    fn never_quotes_the_credentials() {
        for body in [
            r#"{"error":"bad canary-user"}"#,
            r#"{"error":"x","error_description":"wrong password CANARY-pass for user"}"#,
            r#"{"error":"x\ny"}"#,
            // base64 of the user name, of the password with its line break, and of both; percent-encoded in three ways.
            r#"{"error":"x","error_description":"Basic Y2FuYXJ5LXVzZXI6Y2FuYXJ5LXBhc3MK is wrong"}"#,
            r#"{"error":"x","error_description":"Y2FuYXJ5LXVzZXI= is unknown"}"#,
            r#"{"error":"x","error_description":"not Y2FuYXJ5LXBhc3MK"}"#,
            r#"{"error":"x","error_description":"client_id=%63anary%2Duser&client_secret=?"}"#,
            r#"{"error":"%63%61%6e%61%72%79%2duser"}"#,
        ] {
            let quote = oauth_error(body.as_bytes(), &inputs()).unwrap().quote;
            let shown = ["canary", "y2fu", "%63", "\n"].into_iter().find(|part| quote.to_lowercase().contains(part));
            assert_eq!(shown, None, "{quote}");
        }
    }
    #[test]
    fn a_token_in_an_error_is_not_shown_nor_what_may_be_one() {
        for text in ["of secret-t".to_owned(), "c2VjcmV0LXQ= is valid".into(), format!("a {}", "x".repeat(65))] {
            let body = serde_json::json!({"access_token": "secret-t", "error": "x", "error_description": text});
            let error = oauth_error(body.to_string().as_bytes(), &inputs());
            assert_eq!(error.map(|error| error.quote).as_deref(), Some("x"), "{text}");
        }
    }
}
