//! Searching a text for canaries.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD_NO_PAD;

/// What every canary has in it: also a piece of one is found.
const MARKS: [&str; 2] = ["canary", "fake-token-"];
/// A piece of an encoded secret that stands for all of it, in bytes.
const PIECE: usize = 9;

/// What is searched for, in lower case.
pub struct Needles(Vec<String>);

// === impl Needles ===

impl Default for Needles {
    fn default() -> Self {
        let mut needles = Self(Vec::new());
        for mark in MARKS {
            needles.add_encoded(mark);
        }
        needles
    }
}

impl Needles {
    /// Another secret: as it is, its end, and its encodings.
    pub fn add(&mut self, secret: &str) -> &mut Self {
        let ends: Vec<char> = secret.chars().rev().take(PIECE).collect();
        self.add_encoded(secret).add_encoded(&ends.iter().rev().collect::<String>())
    }

    fn add_encoded(&mut self, secret: &str) -> &mut Self {
        let percent: String = form_urlencoded::byte_serialize(secret.as_bytes()).collect();
        let every = secret.bytes().fold(String::new(), |text, byte| text + &format!("%{byte:02x}"));
        let spaced = percent.replace('+', "%20");
        let hex = every.replace('%', "");
        let json = serde_json::to_string(secret).unwrap().trim_matches('"').to_owned();
        let unicode = secret.encode_utf16().fold(String::new(), |text, unit| text + &format!("\\u{unit:04x}"));
        // As Rust prints bytes and odd text.
        let bytes = format!("{:?}", secret.as_bytes()).trim_matches(['[', ']']).to_owned();
        let debug = secret.escape_debug().to_string();
        self.0.extend([secret.to_owned(), percent, spaced, every, hex, json, unicode, bytes, debug]);
        for before in 0..3 {
            let text = BASE64_STANDARD_NO_PAD.encode([vec![0; before], secret.as_bytes().to_vec()].concat());
            // Only the characters that depend on nothing else: six bits each.
            let own = &text[(before * 8).div_ceil(6)..(before + secret.len()) * 8 / 6];
            self.0.extend([own.to_owned(), own.replace('+', "-").replace('/', "_")]);
        }
        self.0.iter_mut().for_each(|needle| needle.make_ascii_lowercase());
        self
    }

    /// The first line with one of them.
    pub fn found_in<'a>(&self, text: &'a str) -> Option<&'a str> {
        text.lines().find(|line| {
            let line = line.to_ascii_lowercase();
            self.0.iter().any(|needle| line.contains(needle))
        })
    }
}

#[test]
fn a_canary_is_found_in_each_disguise() {
    use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE};

    let mut needles = Needles::default();
    needles.add("s3cr3t p@ssw0rd");
    for text in [
        "CANARY-password".to_owned(),
        "ends in p@ssw0rd".to_owned(),
        "s3cr3t+p%40ssw0rd".to_owned(),
        "%73%33%63%72%33%74%20%70%40%73%73%77%30%72%64".to_owned(),
        "S3CR3T P@SSW0RD".to_owned(),
        "733363723374207040737377307264".to_uppercase(),
        serde_json::json!({"a": "a \"canary\""}).to_string(),
        "\\u0063\\u0061\\u006e\\u0061\\u0072\\u0079".to_owned(),
        format!("{:?}", k8s_openapi::ByteString("s3cr3t p@ssw0rd".into())),
        BASE64_STANDARD.encode("user:s3cr3t p@ssw0rd"),
        BASE64_STANDARD.encode("?s3cr3t p@ssw0rd!"),
        BASE64_URL_SAFE.encode("??a canary in the middle"),
    ] {
        assert!(needles.found_in(&text).is_some(), "{text}");
    }
    // What encodings change.
    needles.add("q\"uo\\te \tü");
    for text in
        [r#"{"a":"q\"uo\\te \tü"}"#.to_owned(), format!("{:?}", "q\"uo\\te \tü"), "q%22uo%5cte%20%09%c3%bc".into()]
    {
        assert!(needles.found_in(&text).is_some(), "{text}");
    }
    for text in ["", "a bird", "c2VjcmV0", "password", "fake token"] {
        assert_eq!(needles.found_in(text), None);
    }
}
