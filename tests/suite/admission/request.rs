//! What is sent, and where to.

use serde_json::{Value, json};
use testbed::World;
use testbed::world::merge;

use super::{admits, rejects, url};

#[tokio::test]
async fn the_token_url_is_an_absolute_http_or_https_url() {
    let world = World::new().await;
    for good in [
        "https://api.stage.verteil.com/oauth2/token",
        "https://api.verteil.com:8443/oauth2/token?tenant=a%20b",
        "https://api.verteil.com",
        "https://[::1]:8443/token",
        "https://api.verteil.com/t/a@b",
        "http://127.0.0.1:8080/token",
    ] {
        admits(&world, url(good)).await;
    }
    for bad in [
        "",
        "not a url",
        "api.verteil.com/oauth2/token",
        "//api.verteil.com/oauth2/token",
        "/oauth2/token",
        "ftp://api.verteil.com/oauth2/token",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "https:/api.verteil.com",
        "https://",
        "https:///oauth2/token",
        "https://:8443/oauth2/token",
        "https://?tenant=a",
        "https://api .verteil.com/",
        "https://api.verteil.com\\@other.example/",
        " https://api.verteil.com/",
        "https://api.verteil.com/\n",
        "https://api.verteil.com/%zz",
        "https://[::1/token",
    ] {
        rejects(&world, url(bad), "write an absolute URL that starts with https://, such as https://api.stage").await;
    }
    rejects(&world, json!({"tokenURL": null}), "spec.tokenURL: Required value").await;
    rejects(&world, json!({"tokenURL": 7}), "spec.tokenURL: Invalid value: \"integer\"").await;
}

#[tokio::test]
async fn the_token_url_carries_no_password_no_fragment_and_no_novel() {
    let world = World::new().await;
    let host = "api.verteil.com/oauth2/token";
    for userinfo in ["user@", "user:password@", ":password@", "@"] {
        let message =
            "no user name or password belongs into the URL: put them into the Secret that credentialsSecretRef";
        rejects(&world, url(format!("https://{userinfo}{host}")), message).await;
    }
    for fragment in ["#", "#top", "?a=b#c"] {
        rejects(&world, url(format!("https://{host}{fragment}")), "leave out the part from # on").await;
    }
    let base = format!("https://{host}?");
    let longest = format!("{base}{}", "x".repeat(2048 - base.len()));
    admits(&world, url(longest.clone())).await;
    rejects(&world, url(longest + "x"), "may not be more than 2048 bytes").await;
}

#[tokio::test]
async fn a_scope_is_one_word() {
    let world = World::new().await;
    for good in [json!([]), json!(["api"]), json!(["https://a.example/b.c", "x:y", "!#$[]^~", "a"])] {
        admits(&world, json!({"scopes": good})).await;
    }
    for bad in ["", "two words", " api", "api\n", "a\tb", "\"api\"", "a\\b", "é"] {
        let message =
            "a scope is one word of printable ASCII without blanks, quotes or backslashes: write one list item";
        rejects(&world, json!({"scopes": ["api", bad]}), message).await;
    }
    rejects(&world, json!({"scopes": [""]}), "should be at least 1 chars long").await;
    admits(&world, json!({"scopes": vec!["s".repeat(128); 32]})).await;
    rejects(&world, json!({"scopes": ["s".repeat(129)]}), "may not be more than 128 bytes").await;
    rejects(&world, json!({"scopes": vec!["s"; 33]}), "must have at most 32 items").await;
    rejects(&world, json!({"scopes": "api"}), "spec.scopes: Invalid value: \"string\"").await;
    rejects(&world, json!({"scopes": [null]}), "spec.scopes[0]: Invalid value: \"null\"").await;
}

#[tokio::test]
async fn parameters_are_few_short_and_not_the_operators_own() {
    let world = World::new().await;
    admits(&world, json!({"parameters": {"audience": "x", "resource": "", "ü ": "any ünicode\n"}})).await;
    for own in ["grant_type", "scope", "client_id", "client_secret"] {
        let message =
            "sent by the operator itself: use spec.scopes, spec.credentialsSecretRef and spec.clientAuthentication";
        rejects(&world, json!({"parameters": {own: "x"}}), message).await;
    }
    let many = |count| (0..count).map(|n| (format!("p{n}"), json!("v"))).collect::<serde_json::Map<_, _>>();
    admits(&world, json!({"parameters": many(16)})).await;
    rejects(&world, json!({"parameters": many(17)}), "must have at most 16 items").await;
    admits(&world, json!({"parameters": {"k".repeat(128): "v".repeat(1024)}})).await;
    rejects(&world, json!({"parameters": {"k": "v".repeat(1025)}}), "may not be more than 1024 bytes").await;
    for name in [String::new(), "k".repeat(129)] {
        rejects(&world, json!({"parameters": {name: "v"}}), "a parameter's name has 1 to 128 characters").await;
    }
    rejects(&world, json!({"parameters": {"max_age": 7}}), "must be of type string: \"integer\"").await;
}

#[tokio::test]
async fn choices_are_spelled_as_listed() {
    let world = World::new().await;
    for (pointer, words) in [
        ("parametersIn", ["Body", "Query"]),
        ("clientAuthentication", ["Basic", "Body"]),
        ("deletionPolicy", ["Delete", "Retain"]),
    ] {
        let spec = |word: Value| match pointer {
            "deletionPolicy" => json!({"secret": {pointer: word}}),
            _ => json!({pointer: word}),
        };
        for word in words {
            admits(&world, spec(json!(word))).await;
        }
        let supported = format!("supported values: \"{}\", \"{}\"", words[0], words[1]);
        for word in [words[0].to_lowercase(), "Header".into(), String::new(), format!(" {}", words[1])] {
            rejects(&world, spec(json!(word)), &supported).await;
        }
        rejects(&world, spec(json!(true)), "must be of type string: \"boolean\"").await;
    }
}

#[tokio::test]
async fn the_password_never_goes_into_the_url() {
    let world = World::new().await;
    let sent = |authentication: Option<&str>, parameters: Option<&str>| {
        let mut spec = json!({});
        for (field, value) in [("clientAuthentication", authentication), ("parametersIn", parameters)] {
            if let Some(value) = value {
                merge(&mut spec, json!({field: value}));
            }
        }
        spec
    };
    let message = "would put the password into the URL: write parametersIn: Body or clientAuthentication: Basic";
    rejects(&world, sent(Some("Body"), Some("Query")), message).await;
    // What is left out is Basic and Body, with which neither other half is a danger.
    for (authentication, parameters) in
        [(Some("Body"), None), (Some("Body"), Some("Body")), (None, Some("Query")), (Some("Basic"), Some("Query"))]
    {
        admits(&world, sent(authentication, parameters)).await;
    }
    // A change cannot bring about what creation may not.
    world.create_token("careful", sent(Some("Body"), None)).await;
    let patch = kube::api::Patch::Merge(json!({"spec": {"parametersIn": "Query"}}));
    let error = world.tokens().patch("careful", &kube::api::PatchParams::default(), &patch).await.unwrap_err();
    assert!(error.to_string().contains(message), "{error}");
}
