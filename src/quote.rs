//! What others say may quote a secret: an issuer's error, an admission policy's refusal. Pure.

use std::collections::HashSet;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD_NO_PAD;

/// So many bytes in a row of a secret, or of one of its encodings, are a quote of it. What is shorter counts as a whole.
const PIECE: usize = 12;
/// The shortest secret that is looked for in hexadecimal, in bytes: two digits are in many a number.
const LEAST_HEX: usize = 3;
/// The shortest text in base64 that is looked for.
const LEAST_BASE64: usize = 4;
/// What is shown instead of a word that quotes a secret.
const HIDDEN: &str = "[hidden]";

/// A text as it is compared: without regard to case, in the alphabet of plain base64.
struct Folded {
    bytes: Vec<u8>,
    /// Where in the text each of them comes from.
    from: Vec<usize>,
}

/// Whether `text` quotes one of `secrets`, or a piece of one: as it is, in base64, percent-encoded, escaped as in JSON, or in
/// hexadecimal. Case does not matter.
#[must_use]
pub fn quotes<'a>(text: &str, secrets: impl IntoIterator<Item = &'a [u8]>) -> bool {
    quotes_form(text, &all_forms(secrets))
}

/// `text` with `[hidden]` for each word that quotes one of `secrets`; or instead of all of it, where the words alone do not tell.
#[must_use]
pub fn hide<'a>(text: &str, secrets: impl IntoIterator<Item = &'a [u8]>) -> String {
    let forms = all_forms(secrets);
    let hidden = hide_words(text, &Folded::of(text).covered(&forms));
    if quotes_form(&hidden, &forms) { HIDDEN.to_owned() } else { hidden }
}

/// No control character, and none that is not seen but changes how the others are: what Rust writes as an escape.
#[must_use]
pub fn is_printable(c: char) -> bool {
    matches!(c, '"' | '\'' | '\\') || c.escape_debug().len() == 1
}

fn quotes_form(text: &str, forms: &[Vec<u8>]) -> bool {
    // Any letter may be percent-encoded. `=` and `&` would end a name.
    let one_name = text.replace(['=', '&'], "%20");
    let decoded: String = form_urlencoded::parse(one_name.as_bytes()).map(|(name, _)| name).collect();
    [text, &decoded].into_iter().any(|text| !Folded::of(text).covered(forms).is_empty())
}

fn hide_words(text: &str, covered: &HashSet<usize>) -> String {
    let mut shown: Vec<&str> = Vec::new();
    let mut at = 0;
    for word in text.split(' ') {
        let end = at + word.len();
        let word = if (at..end).any(|byte| covered.contains(&byte)) { HIDDEN } else { word };
        if word != HIDDEN || shown.last() != Some(&HIDDEN) {
            shown.push(word);
        }
        at = end + 1;
    }
    shown.join(" ")
}

/// `secrets` as they may stand in a text, folded.
fn all_forms<'a>(secrets: impl IntoIterator<Item = &'a [u8]>) -> Vec<Vec<u8>> {
    secrets.into_iter().flat_map(forms).filter(|form| !form.is_empty()).collect()
}

fn forms(secret: &[u8]) -> Vec<Vec<u8>> {
    let text = String::from_utf8_lossy(secret);
    let text = text.trim();
    let secret = secret.trim_ascii();
    let percent: String = form_urlencoded::byte_serialize(secret).collect();
    let digits = secret.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    let hex: String = digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect();
    let hex = if secret.len() < LEAST_HEX { String::new() } else { hex };
    let json = serde_json::to_string(text).unwrap_or_default();
    let escaped = json.get(1..json.len().saturating_sub(1)).unwrap_or_default().to_owned();
    let mut forms = vec![text.to_owned(), percent.replace('+', "%20"), percent, hex, escaped];
    forms.extend((0..3).filter_map(|before| in_base64(secret, before)));
    forms.iter().map(|form| Folded::of(form).bytes).collect()
}

/// What base64 makes of `secret` wherever it stands: after `before` other bytes (of three), without the characters that these
/// and what follows have a part in.
fn in_base64(secret: &[u8], before: usize) -> Option<String> {
    let all = [vec![0; before], secret.to_vec()].concat();
    // Six bits a character.
    let (from, to) = ((before * 8).div_ceil(6), all.len() * 8 / 6);
    let text = BASE64_STANDARD_NO_PAD.encode(&all);
    text.get(from..to).filter(|own| own.len() >= LEAST_BASE64).map(str::to_owned)
}

// === impl Folded ===

impl Folded {
    fn of(text: &str) -> Self {
        let (mut bytes, mut from) = (Vec::with_capacity(text.len()), Vec::with_capacity(text.len()));
        for (at, c) in text.char_indices() {
            // Lower case alone is not enough: that of the Greek sigma depends on what follows it.
            for c in c.to_uppercase().flat_map(char::to_lowercase) {
                let c = match c {
                    '-' => '+',
                    '_' => '/',
                    other => other,
                };
                bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                from.resize(bytes.len(), at);
            }
        }
        Self { bytes, from }
    }

    /// Where in the text characters begin that belong to a quote.
    fn covered(&self, forms: &[Vec<u8>]) -> HashSet<usize> {
        let pieces: HashSet<&[u8]> = self.bytes.windows(PIECE).collect();
        let mut covered = HashSet::new();
        for form in forms {
            let width = form.len().min(PIECE);
            let found = |piece: &&[u8]| width < PIECE || pieces.contains(piece);
            let quoted: HashSet<&[u8]> = form.windows(width).filter(found).collect();
            if quoted.is_empty() {
                continue;
            }
            for (at, _) in self.bytes.windows(width).enumerate().filter(|(_, piece)| quoted.contains(piece)) {
                covered.extend(self.from.iter().skip(at).take(width));
            }
        }
        covered
    }
}

#[cfg(test)]
mod tests {
    use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE};
    use proptest::prelude::*;

    use super::*;

    fn quoted(text: &str, secret: &str) -> bool {
        quotes(text, [secret.as_bytes()])
    }

    #[test]
    fn a_secret_is_found_in_each_encoding() {
        let secret = "canary p@ss/\"wörd\"";
        let header = format!("Basic {}", BASE64_STANDARD.encode(format!("somebody:{secret}")));
        let hex: String = secret.bytes().fold(String::new(), |hex, byte| hex + &format!("{byte:02X}"));
        for text in [
            secret,
            &secret.to_uppercase(),
            &header,
            "canary%20p%40ss%2F%22w%C3%B6rd%22",
            "canary+p%40ss%2f%22w%c3%b6rd%22",
            r#"{"p":"canary p@ss/\"wörd\""}"#,
            &hex,
            "client_secret=%63anary%20%70@ss/\"wörd\"&x=1",
            "the password canary p@ss/… is too short",
        ] {
            assert!(quoted(text, secret), "{text}");
        }
        for text in ["", "Bad client credentials", "canary", "p@ss", "passwords of canaries"] {
            assert!(!quoted(text, secret), "{text}");
        }
    }

    #[test]
    fn a_short_secret_counts_as_a_whole() {
        assert!(quoted("user api is unknown", "api") && quoted("YXBp", "api"));
        assert!(!quoted("user apps is unknown", "api"));
        assert!(!quoted("anything", "") && !quoted("a b", " \n"));
        assert!(!quoted("code 61", "a") && quoted("error 616263", "abc"));
    }

    #[test]
    fn case_does_not_matter_in_any_script_and_hidden_letters_are_not_shown() {
        assert!(["ΚΩΔΙΚΟΣΑ", "κωδικος", "ΚωδικοσΑ"].iter().all(|text| quoted(text, "ΚΩΔΙΚΟΣ")));
        assert!(!quoted("ΚΩΔΙΚ", "ΚΩΔΙΚΟΣ"));
        assert!("Ungültig: „scope“ \"a\\b\"".chars().all(is_printable));
        assert!(!"\u{202e}\u{2028}\u{200b}\n".chars().any(is_printable));
    }

    #[test]
    fn the_words_that_quote_are_hidden_and_the_others_stay() {
        let token = "fake-token-0123456789";
        let message = format!("denied by policy p: {token} and {} in data", BASE64_STANDARD.encode(token));
        assert_eq!(hide(&message, [token.as_bytes()]), "denied by policy p: [hidden] and [hidden] in data");
        assert_eq!(hide("a passphrase of words is quoted", [&b"passphrase of words"[..]]), "a [hidden] is quoted");
        assert_eq!(hide("x İ %66ake-token-0123456789 y", [token.as_bytes()]), "x İ [hidden] y");
        assert_eq!(hide("f%61ke-t%6fken-0%31234567%38%39 y", [token.as_bytes()]), HIDDEN);
        assert_eq!(hide("quota exceeded: é  secrets=1", [token.as_bytes()]), "quota exceeded: é  secrets=1");
    }

    proptest! {
        #[test]
        fn no_encoding_and_no_place_hides_a_secret(
            secret in proptest::collection::vec(any::<u8>(), 12..40),
            before in proptest::collection::vec(any::<u8>(), 0..8),
            after in proptest::collection::vec(any::<u8>(), 0..8),
        ) {
            prop_assume!(secret == secret.trim_ascii());
            let all = [before, secret.clone(), after].concat();
            for text in [BASE64_STANDARD.encode(&all), BASE64_URL_SAFE.encode(&all)] {
                prop_assert!(quotes(&text, [secret.as_slice()]));
            }
        }

        #[test]
        fn hiding_leaves_no_quote(text in "\\PC{0,60}", secret in "[ -~]{9,30}", place in 0usize..60) {
            let at = text.char_indices().map(|(at, _)| at).nth(place).unwrap_or(text.len());
            let (head, tail) = text.split_at(at);
            let hidden = hide(&format!("{head}{secret}{tail}"), [secret.as_bytes()]);
            prop_assert!(!quotes(&hidden, [secret.as_bytes()]), "{hidden}");
        }
    }
}
