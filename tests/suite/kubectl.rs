//! What does a person see who works with kubectl?

use serde_json::json;
use testbed::world::{PASSWORD, PATIENCE, USERNAME};
use testbed::{Answer, World};

use crate::OPERATOR;
use crate::events::{event, events};

/// The cells of a table of kubectl: the header, then the line of `name`.
fn row(table: &str, name: &str) -> Vec<(String, String)> {
    let cells = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let line = table.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap_or_else(|| panic!("{table}"));
    let (header, line) = (cells(table.lines().next().unwrap()), cells(line));
    assert_eq!(header.len(), line.len(), "{table}");
    header.into_iter().zip(line).collect()
}

#[tokio::test]
async fn a_ready_token_shows_its_times_and_its_secret() {
    let world = World::new().await;
    let _operator = world.operator(OPERATOR, &[]).await;
    world.create_token("flight", json!({"secret": {"name": "flight-token"}})).await;
    let waited =
        world.kubectl(&["wait", "--for=condition=Ready", "vt/flight", "--timeout=60s"], None).await.succeeded();
    assert_eq!(waited.trim(), "verteiltoken.verteil.dev/flight condition met");
    let status = world.ready("flight").await;

    let shown = row(&world.kubectl(&["get", "vt"], None).await.succeeded(), "flight");
    let names: Vec<&str> = shown.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["NAME", "READY", "REASON", "EXPIRES", "RENEWS", "SECRET", "AGE"]);
    let values: Vec<&str> = shown.iter().map(|(_, value)| value.as_str()).collect();
    let (expires, renews) = (status.expires_at.unwrap().0.to_string(), status.renewal_time.unwrap().0.to_string());
    assert_eq!(values[..6], ["flight", "True", "TokenValid", &expires, &renews, "flight-token"]);

    let wide = row(&world.kubectl(&["get", "verteiltokens", "-o", "wide"], None).await.succeeded(), "flight");
    let names: Vec<&str> = wide.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["NAME", "READY", "REASON", "EXPIRES", "RENEWS", "ISSUED", "SECRET", "AGE"]);
    assert_eq!(wide[5].1, "1");
    world.stays_at(1).await;
}

#[tokio::test]
async fn a_resource_in_trouble_shows_why() {
    let world = World::new().await;
    let _operator = world.operator(OPERATOR, &[]).await;
    world.create_token("flight", json!({"credentialsSecretRef": {"name": "nobody"}})).await;
    world.condition("flight", "Ready", "False", "CredentialsMissing").await;
    let table = world.kubectl(&["get", "vt"], None).await.succeeded();
    let line = table.lines().nth(1).unwrap();
    // Columns without a value are blank.
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(words[..4], ["flight", "False", "CredentialsMissing", "flight"], "{table}");
    let described = world.kubectl(&["describe", "vt", "flight"], None).await.succeeded();
    assert!(described.contains("Secret nobody does not exist: kubectl create secret generic nobody"), "{described}");
    world.stays_at(0).await;
}

#[tokio::test]
async fn describe_shows_the_events() {
    let world = World::new().await;
    let _operator = world.operator(OPERATOR, &[]).await;
    world.create_token("flight", json!({})).await;
    world.ready("flight").await;
    let (kind, note) = event(&world, "flight", "TokenIssued").await;
    assert_eq!(kind, "Normal");
    assert!(note.starts_with("Initial: new token in Secret flight, valid until "), "{note}");
    let described = world.kubectl(&["describe", "vt", "flight"], None).await.succeeded();
    let line = described.lines().find(|line| line.contains("TokenIssued")).unwrap_or_else(|| panic!("{described}"));
    assert!(line.contains("Normal") && line.contains("verteil-token-operator") && line.contains(&note), "{line}");
    assert!(!line.contains("<unknown>") && !line.contains("<invalid>"), "{line}");
    let listed = world.kubectl(&["events", "--for", "vt/flight"], None).await.succeeded();
    assert!(listed.contains("TokenIssued"), "{listed}");
}

#[tokio::test]
async fn describe_tells_the_story() {
    let world = World::new().await;
    let _operator = world.operator(OPERATOR, &[]).await;
    world.create_token("flight", json!({"credentialsSecretRef": {"name": "later"}})).await;
    world.condition("flight", "Ready", "False", "CredentialsMissing").await;
    world.set_credentials("later", USERNAME, PASSWORD).await;
    let waited = world.kubectl(&["wait", "--for=condition=Ready", "vt/flight", "--timeout=60s"], None).await;
    waited.succeeded();
    // Long enough to be seen by who looks.
    world.issuer.enqueue_for("flight", Answer::status(503).header("retry-after", "30"));
    world.change("flight", json!({"metadata": {"annotations": {"verteil.dev/renew": "now"}}})).await;
    world.condition("flight", "RenewalFailing", "True", "IssuerUnavailable").await;
    let failing = world.kubectl(&["describe", "vt", "flight"], None).await.succeeded();
    for words in [
        "the issuer answered 503, a failure on its side: it is asked again by itself; renewal fails since 2",
        ", the stored token holds until 2",
        "token in Secret flight is valid until 2",
        "Next Attempt Time:",
    ] {
        assert!(failing.contains(words), "{words:?} is not in {failing}");
    }
    world.status("flight", "the second token", |status| status.tokens_issued == Some(2)).await;
    event(&world, "flight", "Recovered").await;
    testbed::eventually("the event of the second token", PATIENCE, async || {
        let notes: Vec<_> = events(&world).await.into_iter().filter_map(|event| event.note).collect();
        if notes.iter().any(|note| note.starts_with("Manual: ")) { Ok(()) } else { Err(format!("{notes:?}")) }
    })
    .await;
    let told = world.kubectl(&["events", "--for", "verteiltoken.verteil.dev/flight"], None).await.succeeded();
    let described = world.kubectl(&["describe", "vt", "flight"], None).await.succeeded();
    for (kind, reason, note, times) in [
        ("Warning", "CredentialsMissing", "Secret later does not exist: kubectl create secret generic later", 1),
        ("Normal", "TokenIssued", "Initial: new token in Secret flight, valid until", 1),
        ("Warning", "IssuerUnavailable", "the issuer answered 503", 1),
        ("Normal", "TokenIssued", "Manual: new token in Secret flight, valid until", 1),
        ("Normal", "Recovered", "the token is valid and renewal works again", 1),
    ] {
        for text in [&told, &described] {
            let is_it = |line: &&str| [kind, reason, note].iter().all(|words| line.contains(words));
            assert_eq!(text.lines().filter(is_it).count(), times, "{reason} in {text}");
        }
    }
    world.stays_at(3).await;
}

#[tokio::test]
async fn explain_describes_every_field() {
    let world = World::new().await;
    let explain = async |path: &str| {
        // The apiserver publishes the schema a moment after the CRD is established.
        testbed::eventually(&format!("an explanation of {path}"), PATIENCE, async || {
            let output = world.kubectl(&["explain", path], None).await;
            if output.status.success() { Ok(output.stdout) } else { Err(output.stderr) }
        })
        .await
    };
    let text = explain("verteiltoken.spec.tokenURL").await;
    assert!(text.contains("https://api.stage.verteil.com/oauth2/token"), "{text}");
    for (path, words) in [
        ("vt", "keeps one OAuth2 access token"),
        ("vt.spec", "tokenURL\t<string> -required-"),
        ("vt.spec.timeout", "from 1s to 15s"),
        ("vt.spec.caBundleRef", "Only the certificates there are"),
        ("vt.spec.caBundleRef.kind", "ENUM:\n    ConfigMap\n    Secret"),
        ("vt.spec.renewBefore", "0s renews strictly after expiry"),
        ("vt.spec.secret.deletionPolicy", "ENUM:\n    Delete\n    Retain"),
        ("vt.status.expiresAt", "When the stored token expires"),
    ] {
        let text = explain(path).await;
        assert!(text.contains(words), "{path}: {text}");
    }
    let text = world.kubectl(&["explain", "vt", "--recursive", "-o", "plaintext-openapiv2"], None).await.succeeded();
    assert!(text.contains("credentialsSecretRef"), "{text}");
}

#[tokio::test]
async fn a_resource_that_no_operator_has_seen_says_so() {
    let world = World::new().await;
    world.kubectl_apply(&world.token("flight", json!({})).to_string()).await;
    let path = "-o=jsonpath={.metadata.generation} {.status.observedGeneration}";
    assert_eq!(world.kubectl(&["get", "vt", "flight", path], None).await.succeeded(), "1 -1");
    let output = world.kubectl(&["wait", "--for=condition=Ready", "vt/flight", "--timeout=5s"], None).await;
    assert!(output.stderr.contains("timed out waiting for the condition"), "{}", output.stderr);
}
