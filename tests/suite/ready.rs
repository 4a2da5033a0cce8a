//! Does `ready`, which helm test runs, tell an operator that is ready from one that is not, and from none?

use std::process::Output;

use testbed::World;
use testbed::ports::free_port;

use crate::OPERATOR;

async fn ready(http: &str, timeout: &str) -> Output {
    let url = format!("--url=http://{http}/readyz");
    tokio::process::Command::new(OPERATOR)
        .args(["ready", &url, "--timeout", timeout])
        // Nothing listens there: a proxy of the environment is for token requests.
        .env("HTTP_PROXY", "http://127.0.0.1:9")
        .env_remove("RUST_BACKTRACE")
        .output()
        .await
        .unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn it_waits_for_an_operator_and_ends_well_when_it_is_ready() {
    let world = World::new().await;
    let proxy = world.proxy();
    proxy.cut();
    let operator = world.operator_behind(&proxy, OPERATOR, &[]);
    let not_yet = async {
        let output = ready(operator.http(), "15s").await;
        assert_eq!(output.status.code(), Some(1));
        assert!(said(&output).contains("is not ready after 15s: it answers 503"), "{}", said(&output));
        proxy.mend();
    };
    let (output, ()) = tokio::join!(ready(operator.http(), "120s"), not_yet);
    assert_eq!((output.status.code(), said(&output)), (Some(0), String::new()));
}

#[tokio::test]
async fn it_says_what_is_in_the_way() {
    let http = format!("127.0.0.1:{}", free_port().unwrap());
    let output = ready(&http, "2s").await;
    assert_eq!(output.status.code(), Some(1));
    let words = said(&output);
    assert!(words.contains(&http) && words.contains("Connection refused"), "{words}");
}
