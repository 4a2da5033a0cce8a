//! What of an answer is fit to be shown: the `error` of RFC 6749 section 5.2, its description, and where a redirect leads.
//! Nothing of a body else, and not even those if they show the credentials.

use base64::prelude::{BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD, Engine};
use serde_json::Value;

use crate::token::Inputs;

/// Longest `error_description` or target that is quoted.
const LONGEST_QUOTE: usize = 200;

/// The RFC 6749 section 5.2 error in `body`, fit to be shown. A server of another kind may write any word into `error`.
pub(super) fn oauth_error(body: &[u8], inputs: &Inputs) -> Option<String> {
    let Ok(Value::Object(fields)) = serde_json::from_slice(body) else { return None };
    let token = fields.get("access_token").and_then(Value::as_str).filter(|token| !token.is_empty());
    let text = |field: &str, longest: usize| {
        let text = fields.get(field)?.as_str()?;
        let printable = !text.is_empty() && text.len() <= longest && text.chars().all(is_printable);
        let secret = token.is_some_and(|token| text.contains(token)) || shows_credentials(text, inputs);
        (printable && !secret).then(|| text.to_owned())
    };
    if !fields.get("error")?.is_string() {
        return None;
    }
    let error = text("error", 64).unwrap_or_else(|| "an error that cannot be shown".into());
    Some(match text("error_description", LONGEST_QUOTE) {
        Some(description) => format!("{error} ({description})"),
        None => error,
    })
}

/// Whether `text` shows user name or password: as they are, percent-encoded, or in base64 as in an Authorization header.
fn shows_credentials(text: &str, inputs: &Inputs) -> bool {
    let (username, password) = (inputs.username(), inputs.password());
    let decoded =
        form_urlencoded::parse(text.replace(['=', '&'], "%20").as_bytes()).map(|(name, _)| folded(&name)).collect();
    let texts: [String; 2] = [folded(text), decoded];
    let shown = |secret: &str| !secret.is_empty() && texts.iter().any(|text| text.contains(&folded(secret)));
    let in_base64 = |secret: &str| {
        let padded = shown(&BASE64_STANDARD_NO_PAD.encode(secret));
        !secret.is_empty() && (padded || shown(&BASE64_URL_SAFE_NO_PAD.encode(secret)))
    };
    let pair = format!("{username}:{password}");
    [username, username.trim(), password, password.trim()].into_iter().any(|s| shown(s) || in_base64(s))
        || in_base64(&pair)
}

/// Without regard to case. Lower case alone is not enough: that of the Greek sigma depends on what follows it.
fn folded(text: &str) -> String {
    text.to_uppercase().chars().flat_map(char::to_lowercase).collect()
}

/// A redirect's target without its query, which could carry anything; none if it shows a user, ours or another.
pub(super) fn quotable_location(location: &str, inputs: &Inputs) -> Option<String> {
    let target = location.split(['?', '#']).next()?;
    let target: String = target.chars().filter(|c| is_printable(*c)).collect();
    let quotable = !target.is_empty() && !target.contains('@') && !shows_credentials(&target, inputs);
    quotable.then(|| target.chars().take(LONGEST_QUOTE).collect())
}

/// No control character, and none that is not seen but changes how the others are: what Rust writes as an escape.
fn is_printable(c: char) -> bool {
    matches!(c, '"' | '\'' | '\\') || c.escape_debug().len() == 1
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
            shows_credentials(text, &Inputs::new("u".into(), username, password, vec![], [].into()))
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
        let said = |body: String| oauth_error(body.as_bytes(), &inputs());
        let described = |length: usize| format!(r#"{{"error":"x","error_description":"{}"}}"#, "d".repeat(length));
        assert_eq!(said(described(LONGEST_QUOTE)), Some(format!("x ({})", "d".repeat(LONGEST_QUOTE))));
        assert_eq!(said(described(LONGEST_QUOTE + 1)).as_deref(), Some("x"));
        let long = format!(r#"{{"error":"{}"}}"#, "e".repeat(65));
        assert_eq!(said(long).as_deref(), Some("an error that cannot be shown"));
        assert_eq!([said(r#"{"error":500}"#.into()), said("{}".into()), said("<html>".into())], [None, None, None]);
        assert_eq!(said(r#"{"access_token":"","error":"a"}"#.into()).as_deref(), Some("a"));
        assert_eq!(
            said(r#"{"access_token":"t-1","error":"x","error_description":"of t-1"}"#.into()).as_deref(),
            Some("x")
        );
    }

    #[test]
    fn a_redirect_is_quoted_without_its_query_and_without_users() {
        let to = |location: &str| quotable_location(location, &inputs());
        for rest in ["?canary=1#x", "#canary?x"] {
            assert_eq!(to(&format!("https://a.example/é{rest}")).as_deref(), Some("https://a.example/é"));
        }
        for location in ["", "?x", "https://u:p@a.example/", "https://a.example/Canary-User/x"] {
            assert_eq!(to(location), None, "{location}");
        }
        assert_eq!(to("https://a.example/\u{1}\u{202e}b").as_deref(), Some("https://a.example/b"));
        assert_eq!(to(&"é".repeat(300)), Some("é".repeat(LONGEST_QUOTE)));
    }

    #[test]
    fn credentials_are_found_in_other_cases_and_hidden_letters_are_not_shown() {
        let greek = Inputs::new("u".into(), "x".to_owned().into(), "ΚΩΔΙΚΟΣ".to_owned().into(), vec![], [].into());
        assert!(["ΚΩΔΙΚΟΣΑ", "κωδικος", "ΚωδικοσΑ"].iter().all(|text| shows_credentials(text, &greek)));
        assert!(!shows_credentials("ΚΩΔΙΚΟ", &greek));
        assert!("Ungültig: „scope“ \"a\\b\"".chars().all(is_printable));
        assert!(!"\u{202e}\u{2028}\u{200b}\n".chars().any(is_printable));
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
            let quote = oauth_error(body.as_bytes(), &inputs()).unwrap();
            let shown = ["canary", "y2fu", "%63", "\n"].into_iter().find(|part| quote.to_lowercase().contains(part));
            assert_eq!(shown, None, "{quote}");
        }
    }
}
