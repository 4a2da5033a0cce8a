//! Waits end when they can and explain themselves when they cannot.

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use testbed::{ControlPlane, Issuer, Options, eventually, never, until};

const SHORT: Duration = Duration::from_secs(1);

/// What a future panics with.
async fn panic_of(future: impl Future<Output = ()>) -> String {
    let error = AssertUnwindSafe(future).catch_unwind().await.expect_err("it should panic");
    *error.downcast::<String>().expect("a message")
}

#[tokio::test]
async fn a_timeout_says_what_was_awaited_and_what_was_seen_last() {
    let mut looks = 0;
    let message = panic_of(eventually("the moon", SHORT, async move || {
        looks += 1;
        Err(format!("only cloud {looks}"))
    }))
    .await;
    assert!(message.contains("1s in vain for the moon") && message.contains("only cloud "), "{message}");
    assert!(message.contains("tests/suite/wait.rs"), "{message}");
    assert!(!message.ends_with("only cloud 1"), "{message}");
}

#[tokio::test]
async fn a_check_that_hangs_is_cut_off() {
    let message = panic_of(eventually("an answer", SHORT, async || std::future::pending().await)).await;
    assert!(message.contains("the last check did not return"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn paused_time_does_not_shorten_a_wait() {
    let start = Instant::now();
    eventually("real time to pass", Duration::from_secs(30), async || {
        if start.elapsed() > SHORT { Ok(()) } else { Err("too early".to_owned()) }
    })
    .await;
}

#[tokio::test]
async fn never_holds_for_the_whole_time_and_looks_once_more_at_its_end() {
    let start = Instant::now();
    never("rain", SHORT, async || Ok(())).await;
    assert!(start.elapsed() >= SHORT);
    let message = panic_of(never("rain", SHORT, async move || {
        if start.elapsed() > SHORT + SHORT / 2 { Err("wet".to_owned()) } else { Ok(()) }
    }))
    .await;
    assert!(message.starts_with("rain must not happen, but after") && message.ends_with("wet"), "{message}");
}

/// It compiles: that is the test.
#[tokio::test]
async fn what_takes_no_async_check_can_be_awaited_in_a_spawned_task() {
    fn is_send<T: Send>(future: T) -> T {
        future
    }
    drop(is_send(ControlPlane::start(Options::default())));
    drop(is_send(ControlPlane::shared()));
    let of_a_plane = |plane: &ControlPlane| {
        drop(is_send((plane.restart_apiserver(), plane.forget_history(), plane.restart_controller_manager())));
        drop(is_send((plane.kubectl(&[], None), plane.start_apiserver(), plane.compact_etcd())));
    };
    let no_plane: Option<&ControlPlane> = None;
    if let Some(plane) = no_plane {
        of_a_plane(plane);
    }
    let issuer = Issuer::start().expect("an issuer");
    is_send(issuer.wait_for_count(0, SHORT)).await;
    is_send(issuer.wait_until_held(0, SHORT)).await;
    let text = String::from("x");
    assert_eq!(is_send(until("a letter", SHORT, || Ok(text.len()))).await, 1);
}
