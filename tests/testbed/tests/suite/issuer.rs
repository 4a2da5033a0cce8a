//! The issuer keeps every request and answers as scripted.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::json;
use testbed::issuer::{MAIN, Refusal};
use testbed::plain_http::{Answered, get, post};
use testbed::{Answer, Issuer};

const SOON: Duration = Duration::from_secs(60);
const GRANT: &str = "grant_type=client_credentials";

fn basic(user: &str, password: &str) -> String {
    format!("Authorization: Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")))
}

/// A proper request.
async fn ask(url: &str) -> anyhow::Result<Answered> {
    post(url, &[&basic("anna", "s:ecret")], GRANT).await
}

/// Token and lifetime of a good answer.
fn token(answered: &Answered) -> (String, i64) {
    assert_eq!(answered.status, 200, "{answered:?}");
    let body = answered.json().unwrap();
    (body["access_token"].as_str().unwrap().to_owned(), body["expires_in"].as_i64().unwrap())
}

#[tokio::test]
async fn gives_a_fresh_token_to_each_request_and_keeps_the_request() {
    let issuer = Issuer::start().unwrap();
    let first = ask(&issuer.url()).await.unwrap();
    assert_eq!(first.header("content-type"), Some("application/json;charset=UTF-8"));
    let body = first.json().unwrap();
    assert_eq!((&body["token_type"], &body["scope"]), (&json!("Bearer"), &json!("api")));
    issuer.set_lifetime(Duration::from_secs(60));
    let second = ask(&format!("{}?scope=api%20more", issuer.url_for("b"))).await.unwrap();

    let (first, second) = (token(&first), token(&second));
    assert_eq!((first.1, second.1), (43199, 60));
    assert!(first.0.starts_with("fake-token-main-1-") && second.0.starts_with("fake-token-b-2-"));
    assert_eq!(issuer.issued().iter().map(|issued| issued.token.clone()).collect::<Vec<_>>(), [first.0, second.0]);
    assert_eq!(issuer.last_token("b"), Some(issuer.issued()[1].token.clone()));
    assert_eq!((issuer.count(), issuer.count_for(MAIN), issuer.count_for("b")), (2, 1, 1));

    let request = &issuer.requests_for("b")[0];
    assert_eq!((request.number, request.method.as_str(), request.path.as_str()), (2, "POST", "/t/b/oauth2/token"));
    assert_eq!((request.user.as_deref(), request.password.as_deref()), (Some("anna"), Some("s:ecret")));
    assert_eq!((request.query.as_deref(), request.body.as_str()), (Some("scope=api%20more"), GRANT));
    assert_eq!(request.query_parameters(), [("scope".to_owned(), "api more".to_owned())]);
    assert_eq!(request.parameter("grant_type").as_deref(), Some("client_credentials"));
    assert!(request.header("authorization").is_some());
    assert!(issuer.log().contains("#2 ") && issuer.log().contains("POST /t/b/oauth2/token by anna"));
    assert!(!issuer.log().contains("ecret"));
}

#[tokio::test]
async fn queue_comes_before_rules_before_the_default() {
    let issuer = Issuer::start().unwrap();
    issuer.rule(|request| (request.tag == "ruled").then(|| Answer::status(503).header("retry-after", "7")));
    issuer.enqueue(Answer::token("one").field("expires_in", "43199").without("scope"));
    issuer.enqueue_for("b", Answer::oauth_error(400, "invalid_scope"));

    let first = ask(&issuer.url_for("ruled")).await.unwrap().json().unwrap();
    assert_eq!(first, json!({"access_token": "one", "token_type": "Bearer", "expires_in": "43199"}));
    let ruled = ask(&issuer.url_for("ruled")).await.unwrap();
    assert_eq!((ruled.status, ruled.header("Retry-After")), (503, Some("7")));
    assert_eq!(token(&ask(&issuer.url()).await.unwrap()).1, 43199);
    let refused = ask(&issuer.url_for("b")).await.unwrap();
    assert_eq!((refused.status, &refused.json().unwrap()["error"]), (400, &json!("invalid_scope")));

    issuer.clear_script();
    assert_eq!(ask(&issuer.url_for("ruled")).await.unwrap().status, 200);
}

#[tokio::test]
async fn refuses_what_a_real_one_would_refuse() {
    let issuer = Issuer::start().unwrap();
    issuer.require("anna", "s:ecret");
    ask(&issuer.url()).await.map(|answered| token(&answered)).unwrap();
    let wrong = post(&issuer.url(), &[&basic("anna", "guess")], GRANT).await.unwrap();
    assert_eq!(wrong.status, 401);
    let body = wrong.json().unwrap();
    assert_eq!((&body["status"], &body["error"]), (&json!(401), &json!("Unauthorized")));
    assert_eq!(body["path"], "/oauth2/token");
    assert!(body["timestamp"].as_str().unwrap().ends_with("+00:00"));

    issuer.require_or("anna", "s:ecret", Refusal::Rfc6749);
    let nobody = post(&issuer.url(), &[], GRANT).await.unwrap();
    assert_eq!((nobody.status, &nobody.json().unwrap()["error"]), (401, &json!("invalid_client")));
    let in_body = post(&issuer.url(), &[], &format!("{GRANT}&client_id=anna&client_secret=s%3Aecret")).await;
    assert_eq!(in_body.unwrap().status, 200);
    let in_query = post(&format!("{}?{GRANT}", issuer.url()), &[&basic("anna", "s:ecret")], "").await;
    assert_eq!(in_query.unwrap().status, 200);
    let no_grant = post(&issuer.url(), &[&basic("anna", "s:ecret")], "").await.unwrap();
    assert_eq!(no_grant.json().unwrap()["error"], "unsupported_grant_type");
    assert_eq!(get(&issuer.url()).await.unwrap().status, 405);
    assert_eq!(ask(&format!("{}/other", issuer.base_url())).await.unwrap().status, 404);
    assert_eq!(issuer.issued().len(), 3);
}

#[tokio::test]
async fn repeats_a_token_with_what_is_left_of_it() {
    let issuer = Issuer::start().unwrap();
    issuer.repeats_tokens(Duration::from_secs(43200));
    issuer.stop_clock();
    let first = token(&ask(&issuer.url()).await.unwrap());
    assert_eq!(first.1, 43199);
    let other = post(&issuer.url(), &[&basic("bert", "x")], GRANT).await.unwrap();
    assert_ne!(token(&other).0, first.0);

    issuer.advance(Duration::from_millis(100_001));
    let later = token(&ask(&issuer.url()).await.unwrap());
    assert_eq!((later.0, later.1), (first.0.clone(), 43099));
    issuer.advance(Duration::from_secs(43099));
    let last = token(&ask(&issuer.url()).await.unwrap());
    assert_eq!((last.0, last.1), (first.0.clone(), 0));
    assert_eq!(issuer.issued().len(), 2);
    issuer.advance(Duration::from_secs(1));
    let next = token(&ask(&issuer.url()).await.unwrap());
    assert_ne!(next.0, first.0);
    assert_eq!((next.1, issuer.issued().len()), (43199, 3));
}

#[tokio::test]
async fn breaks_an_answer_in_every_scripted_way() {
    let issuer = Issuer::start().unwrap();
    let url = issuer.url();
    for answer in [Answer::close(), Answer::close_unread()] {
        issuer.enqueue(answer);
        assert!(ask(&url).await.is_err());
    }
    issuer.enqueue(Answer::hang());
    let hanging = tokio::spawn({
        let url = url.clone();
        async move { ask(&url).await }
    });
    issuer.wait_for_count(3, SOON).await;
    assert!(tokio::time::timeout(Duration::from_millis(200), hanging).await.is_err());
    assert_eq!(issuer.requests().iter().map(|request| request.body.as_str()).collect::<Vec<_>>(), [GRANT, "", GRANT]);

    issuer.enqueue(Answer::token("cut").truncated_after(20));
    let cut = ask(&url).await.unwrap();
    assert_eq!((cut.status, cut.body.len()), (200, 20));
    assert!(cut.header("content-length").unwrap().parse::<usize>().unwrap() > 20);

    issuer.enqueue(Answer::endless(1 << 20));
    let endless = ask(&url).await.unwrap();
    assert!(endless.body.len() > 1 << 20 && endless.header("content-length").is_none());
    assert!(endless.json().is_err());

    issuer.enqueue(Answer::status(502).header("content-type", "text/html").text("<html>bad gateway</html>"));
    let page = ask(&url).await.unwrap();
    assert_eq!((page.status, page.header("content-type")), (502, Some("text/html")));
    assert_eq!(page.body, "<html>bad gateway</html>");
}

#[tokio::test]
async fn answers_late_or_in_drips() {
    let issuer = Issuer::start().unwrap();
    issuer.set_latency(Duration::from_millis(100));
    let start = Instant::now();
    issuer.enqueue(Answer::token("late").after(Duration::from_millis(100)));
    ask(&issuer.url()).await.unwrap();
    assert!(start.elapsed() >= Duration::from_millis(200));

    issuer.set_latency(Duration::ZERO);
    let start = Instant::now();
    issuer.enqueue(Answer::status(200).text("0123456789").dripping(2, Duration::from_millis(30)));
    assert_eq!(ask(&issuer.url()).await.unwrap().body, "0123456789");
    assert!(start.elapsed() >= Duration::from_millis(150));
}

#[tokio::test]
async fn holds_requests_at_its_gate() {
    let issuer = Issuer::start().unwrap();
    issuer.hold();
    let url = issuer.url();
    let leaving = tokio::spawn(async move { ask(&url).await });
    issuer.wait_until_held(1, SOON).await;
    let url = issuer.url();
    let staying = tokio::spawn(async move { ask(&url).await });
    issuer.wait_until_held(2, SOON).await;
    assert_eq!((issuer.count(), issuer.max_in_flight(), issuer.held()), (2, 2, 2));

    leaving.abort();
    testbed::eventually("the leave of one client", SOON, async || match issuer.held() {
        1 => Ok(()),
        other => Err(format!("{other} are held")),
    })
    .await;

    issuer.release();
    assert!(token(&staying.await.unwrap().unwrap()).0.starts_with("fake-token-main-2-"));
    ask(&issuer.url()).await.unwrap();
    issuer.wait_for_count(3, SOON).await;
    issuer.wait_for_count_of(MAIN, 3, SOON).await;
    assert_eq!((issuer.held(), issuer.max_in_flight()), (0, 2));
}

#[tokio::test]
async fn goes_down_and_comes_back_at_the_same_place() {
    let issuer = Issuer::start().unwrap();
    issuer.hold();
    let url = issuer.url();
    let broken = tokio::spawn(async move { ask(&url).await });
    issuer.wait_until_held(1, SOON).await;

    issuer.go_down().unwrap();
    assert!(broken.await.unwrap().is_err());
    let refused = ask(&issuer.url()).await.unwrap_err();
    let refused = refused.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    assert_eq!(refused, Some(std::io::ErrorKind::ConnectionRefused));

    issuer.release();
    issuer.come_back().unwrap();
    assert_eq!(ask(&issuer.url()).await.unwrap().status, 200);
    assert_eq!(issuer.count(), 2);
}

#[test]
fn serves_any_runtime_and_ends_when_dropped() {
    let issuer = Issuer::start().unwrap();
    let url = issuer.url();
    for _ in 0..2 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        assert_eq!(runtime.block_on(ask(&url)).unwrap().status, 200);
    }
    issuer.hold();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let held = runtime.spawn({
        let url = url.clone();
        async move { ask(&url).await }
    });
    runtime.block_on(issuer.wait_until_held(1, SOON));
    drop(issuer);
    assert!(runtime.block_on(held).unwrap().is_err());
    assert!(runtime.block_on(ask(&url)).is_err());
}
