//! Templates: whatever their text, they are rendered within bounds or refused, and no refusal shows a value.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::json;
use verteil_token_operator::api::VerteilToken;
use verteil_token_operator::secret::{check_templates, render_templates};
use verteil_token_operator::token::Record;

use super::{lower, now};

/// Tokens that are none: no part of them is a word that a message could contain.
const TOKENS: [&str; 2] = ["canary.0KqzTx7-PvLw_93GdYhs.Wj5", "{{ canary }}\"'<&>%7Bq8Zt4XnRw2Kd"];
/// The longest part of a token that may stand in a message by chance.
const BY_CHANCE: usize = 6;
const LONGEST_VALUE: usize = 64 * 1024;
const MOST_IN_ALL: usize = 256 * 1024;
const LONGEST_MESSAGE: usize = 1000;

static RESOURCE: LazyLock<VerteilToken> = LazyLock::new(|| {
    serde_json::from_value(json!({
        "apiVersion": "verteil.dev/v1alpha1", "kind": "VerteilToken",
        "metadata": {"name": "flight", "namespace": "search"},
        "spec": {
            "tokenURL": "https://issuer.example/token", "credentialsSecretRef": {"name": "credentials"},
        },
    }))
    .expect("a resource")
});

/// One template, or up to 16 with lines `---` between them.
pub fn template(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut resource = RESOURCE.clone();
    let texts = text.split("\n---\n").take(16).enumerate();
    let templates: BTreeMap<String, String> = texts.map(|(i, text)| (format!("KEY{i:02}"), text.to_owned())).collect();
    resource.spec.secret.template.clone_from(&templates);
    if let Err(error) = check_templates(&resource) {
        holds_for_a_message(&error.to_string());
    }
    for token in TOKENS {
        let record = Record::new(token.to_owned().into(), "Bearer".into(), 43_199, now(), now()).expect("a record");
        let rendered = render_templates(&resource, &record);
        assert!(rendered.keys.keys().all(|key| templates.contains_key(key)));
        assert_eq!(rendered.keys.len() == templates.len(), rendered.failed.is_none());
        assert!(rendered.keys.values().all(|value| value.0.len() <= LONGEST_VALUE));
        assert!(rendered.keys.values().map(|value| value.0.len()).sum::<usize>() <= MOST_IN_ALL);
        if let Some(error) = &rendered.failed {
            let told = error.to_string();
            holds_for_a_message(&told);
            shows_nothing_of(token, &format!("{told} {error:?}"), text);
        }
        assert!(rendered.keys == render_templates(&resource, &record).keys, "rendered again, it is another");
    }
}

fn holds_for_a_message(message: &str) {
    assert!(message.starts_with("spec.secret.template, key KEY"), "{message}");
    assert!(message.chars().count() <= LONGEST_MESSAGE, "{message}");
    assert!(!message.contains("the template engine failed"), "{message}");
}

/// No part of `token`, in upper or lower case, but what stands in the text.
fn shows_nothing_of(token: &str, message: &str, text: &str) {
    let (message, text, token) = (lower(message), lower(text), lower(token));
    for part in token.as_bytes().windows(BY_CHANCE + 1).filter_map(|part| std::str::from_utf8(part).ok()) {
        assert!(!message.contains(part) || text.contains(part), "shows {part}: {message}");
    }
}
