//! Do pods have the next token in time?
//!
//! The file-based original stops using a token 300 s before it expires. A pod's file follows its Secret when the kubelet next
//! looks at the pod, by default within a minute or a little more.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use testbed::{eventually, say};
use verteil_token_operator::token::{Record, RecordSeal, renewal_point};

use crate::consumer::{By, Sight, token_in};
use crate::stage::{PATIENCE, Stage};

/// So long before its expiry the original stops using a token.
const ORIGINALS_MARGIN: i64 = 300_000;
/// The kubelet's own choice of how often it looks at a pod; a cluster that is not of this process has its own.
const KUBELETS_DEFAULT: &str = "1m";
/// Lifetime of this vendor's tokens, in seconds.
const LIFETIME: i64 = 43_199;
/// The default of `renewBefore`.
const RENEW_BEFORE: SignedDuration = SignedDuration::from_mins(10);
/// Two volumes.
const VOLUMES: [By; 2] = [By::Volume, By::Projected];

#[expect(clippy::disallowed_methods, reason = "the machine's own clock, as pods have it")]
fn now() -> Timestamp {
    Timestamp::now()
}

/// A token file as the original keeps it, of a token whose renewal comes `soon`, and with the least time to its expiry that
/// the jitter of renewals leaves.
fn file(soon: SignedDuration) -> Value {
    let record = |number: usize, expiry: i64| {
        let issued = Timestamp::from_second(expiry - LIFETIME).unwrap();
        Record::new(format!("fake-token-{number}").into(), "Bearer".into(), LIFETIME, issued, issued).unwrap()
    };
    let lead = |record: &Record| {
        let renewal = renewal_point(record.validity(), RENEW_BEFORE, &RecordSeal::of(record), false);
        record.token_expiry() - renewal.as_second()
    };
    let expiry = now().as_second() + soon.as_secs() + 540;
    let number = (0..20_000).find(|number| lead(&record(*number, expiry)) == 540).expect("one in 61");
    let token = format!("fake-token-{number}");
    json!({
        "access_token": token,
        "token_data": {"access_token": token, "token_type": "Bearer", "expires_in": LIFETIME},
        "token_expiry": expiry,
        "saved_at": expiry - LIFETIME,
    })
}

/// Waits until a pod's file has had `count` contents, and returns them.
async fn sights(stage: &Stage, by: By, count: usize) -> Vec<Sight> {
    eventually(&format!("{count} tokens in {}", by.app()), PATIENCE, async || {
        let pods = stage.pods(by.app()).await;
        let seen = stage.seen(pods.first().ok_or("no pod")?).await?;
        if seen.len() >= count { Ok(seen) } else { Err(format!("{} so far", seen.len())) }
    })
    .await
}

#[tokio::test]
async fn pods_have_the_next_token_before_the_original_would_stop_using_the_old_one() {
    let Some(stage) = Stage::alone("in-time").await else { return };
    if let Some(node) = stage.cluster.node() {
        node.restart_kubelet(KUBELETS_DEFAULT).await.unwrap();
    }
    let file = file(SignedDuration::from_secs(25));
    let (old, expiry) = (file["access_token"].as_str().unwrap(), file["token_expiry"].as_i64().unwrap());
    stage
        .apply(&[
            json!({"apiVersion": "v1", "kind": "Secret", "stringData": {"verteil_token.json": file.to_string()},
                "metadata": {"name": "flight", "annotations": {"verteil.dev/adopt": "flight"}}}),
            stage.token("flight", json!({})),
            VOLUMES[0].deployment("flight", 1),
            VOLUMES[1].deployment("flight", 1),
        ])
        .await;
    let status = stage.ready("flight").await;
    assert_eq!(
        status.renewal_time.unwrap().0.as_second(),
        expiry - 540,
        "the latest renewal with the default renewBefore"
    );
    for by in VOLUMES {
        stage.rolled_out(by).await;
    }
    assert_eq!(stage.issuer.count(), 0, "the token that was handed over is used");
    stage.issuer.wait_for_count(1, PATIENCE).await;
    for by in VOLUMES {
        let seen = sights(&stage, by, 2).await;
        let new = stage.issuer.last_token("flight").unwrap();
        assert_eq!(seen.iter().map(|sight| token_in(&sight.content)).collect::<Vec<_>>(), [old, &new]);
        let (at, left) = (seen[1].at, expiry * 1000 - seen[1].at);
        let issued = stage.issuer.issued()[0].at.as_millisecond();
        say(&format!(
            "{}: a new token in the pod {:.1} s after its issue, {:.1} s before the old one's expiry",
            by.app(),
            seconds(at - issued),
            seconds(left)
        ));
        assert!(left > ORIGINALS_MARGIN, "{left} ms before expiry");
    }
    stage.stays_at(1).await;
    if let Some(node) = stage.cluster.node() {
        node.restart_kubelet_and_containerd().await.unwrap();
    }
    stage.close().await;
}

#[tokio::test]
async fn an_issuer_that_repeats_its_token_leaves_a_gap_of_seconds_after_expiry() {
    let Some(stage) = Stage::beside_others("repeats").await else { return };
    if stage.cluster.node().is_none() {
        // A kubelet with its own defaults looks at a pod once a minute: what is measured here would be that.
        say("the gap after expiry is not measured in a cluster of somebody else's");
        return stage.close().await;
    }
    stage.issuer.repeats_tokens(Duration::from_secs(40));
    stage.apply(&VOLUMES.map(|by| by.deployment("flight", 1))).await;
    stage.create(&stage.token("flight", json!({}))).await;
    stage.ready("flight").await;
    let old = stage.stored("flight").await;
    for by in VOLUMES {
        let seen = sights(&stage, by, 1).await;
        assert_eq!(token_in(&seen[0].content), old);
    }
    // Asked before its expiry, the issuer gives the same token again: the next request follows two seconds after it.
    stage.issuer.wait_for_count(3, PATIENCE).await;
    let new = stage.issuer.last_token("flight").unwrap();
    assert_ne!(new, old);
    for by in VOLUMES {
        let (mut expiry, mut at) = (0, 0);
        eventually(&format!("the new token in {}", by.app()), PATIENCE, async || {
            let pods = stage.pods(by.app()).await;
            let seen = stage.seen(&pods[0]).await?;
            let (last, before): (Vec<&Sight>, Vec<&Sight>) = seen.iter().partition(|s| token_in(&s.content) == new);
            let (Some(first), Some(before)) = (last.first(), before.last()) else { return Err("the old one".into()) };
            let record: Value = serde_json::from_str(&before.content).unwrap();
            (expiry, at) = (record["token_expiry"].as_i64().unwrap() * 1000, first.at);
            Ok(())
        })
        .await;
        say(&format!(
            "{}: no valid token in the pod for {:.1} s, with an issuer that repeats it",
            by.app(),
            seconds(at - expiry)
        ));
        assert!(at - expiry >= 2000, "before the issuer has a new one: {} ms", at - expiry);
        assert!(at - expiry < 20_000, "{} ms", at - expiry);
    }
    stage.close().await;
}

#[tokio::test]
async fn pods_that_read_a_variable_are_restarted_for_the_next_token() {
    let Some(stage) = Stage::beside_others("variable").await else { return };
    stage.issuer.set_lifetime(Duration::from_secs(60));
    stage.deploy("flight", 2).await;
    let workload = json!({"kind": "Deployment", "name": By::Variable.app()});
    stage.create(&stage.token("flight", json!({"rolloutRestart": [workload]}))).await;
    stage.ready("flight").await;
    stage.all_use(&stage.issuer.last_token("flight").unwrap(), 2).await;
    let names = async |by: By| {
        let mut names: Vec<_> = stage.pods(by.app()).await.into_iter().map(|pod| pod.metadata.name.unwrap()).collect();
        names.sort();
        names
    };
    let before = [names(By::Volume).await, names(By::Variable).await];
    stage.issuer.set_lifetime(Duration::from_secs(LIFETIME.unsigned_abs()));
    stage.issuer.wait_for_count(2, PATIENCE).await;
    let new = stage.issuer.last_token("flight").unwrap();
    stage.all_use(&new, 2).await;
    let after = [names(By::Volume).await, names(By::Variable).await];
    assert_eq!(before[0], after[0], "who is not listed is left alone");
    assert!(before[1].iter().all(|name| !after[1].contains(name)), "{before:?} {after:?}");
    stage.stays_at(2).await;
    stage.close().await;
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn seconds(milliseconds: i64) -> f64 {
    milliseconds as f64 / 1000.0
}
