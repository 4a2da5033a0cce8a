#![allow(clippy::unwrap_used, reason = "a failed test")]

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::*;
use crate::token::ProcessKey;

const HOUR: Duration = Duration::from_secs(3600);
const NOW: Option<Duration> = Some(Duration::ZERO);

fn key(name: &str) -> Key {
    Key::new("n", name)
}

fn limited(until: Duration, failures: u32) -> Hold {
    Hold { class: FailureClass::RateLimited, until, failures, restored: false }
}

fn rung(rings: &mut UnboundedReceiver<Key>) -> Vec<String> {
    let mut names: Vec<String> = std::iter::from_fn(|| rings.try_recv().ok()).map(|key| key.name.to_string()).collect();
    names.sort();
    names
}

#[test]
fn a_limit_holds_the_account_and_no_other() {
    let (bell, mut rings) = unbounded_channel();
    let (limits, process) = (Limits::new(bell), ProcessKey::generate().unwrap());
    let (ours, others) = (process.account("h:443", "u"), process.account("h:443", "v"));
    assert!(ours != process.account("g:443", "u") && ours == process.account("h:443", "u"));
    let first = limits.turn(ours, &key("a"), NOW).unwrap();
    // Nothing is known yet: the others wait for what the first is told.
    assert!(limits.turn(ours, &key("b"), NOW).is_none());
    assert!(limits.turn(others, &key("c"), NOW).is_some());
    first.held(limited(HOUR, 1));
    assert_eq!(rung(&mut rings), ["b"]);
    assert_eq!(limits.hold(ours, &key("b"), Duration::ZERO), Some(limited(HOUR, 1)));
    assert!(limits.turn(ours, &key("b"), NOW).is_none());
    assert_eq!(limits.hold(others, &key("c"), Duration::ZERO), None);
    // After its end one asks, and opens it for all.
    assert_eq!(limits.hold(ours, &key("b"), HOUR), None);
    let probe = limits.turn(ours, &key("a"), Some(HOUR)).unwrap();
    assert_eq!(probe.failures(), 1);
    assert!(limits.turn(ours, &key("d"), NOW).is_none());
    probe.opened();
    assert_eq!(rung(&mut rings), ["b", "d"]);
    // Both in flight: what one is told stands, whatever the other hears of its earlier request.
    let (one, two) = (limits.turn(ours, &key("b"), NOW).unwrap(), limits.turn(ours, &key("d"), NOW).unwrap());
    assert_eq!((one.failures(), two.failures()), (0, 0));
    one.held(limited(3 * HOUR, 1));
    two.opened();
    assert_eq!(limits.hold(ours, &key("d"), 2 * HOUR), Some(limited(3 * HOUR, 1)));
}

#[test]
fn a_turn_that_comes_to_nothing_goes_to_one_of_those_who_wait() {
    let (bell, mut rings) = unbounded_channel();
    let (limits, account) = (Limits::new(bell), ProcessKey::generate().unwrap().account("h", "u"));
    let first = limits.turn(account, &key("a"), NOW);
    for name in ["b", "c"] {
        assert!(limits.turn(account, &key(name), NOW).is_none());
    }
    limits.forget(&key("c"));
    drop(first);
    assert_eq!(rung(&mut rings), ["b"]);
    assert!(limits.turn(account, &key("b"), NOW).is_some());
}

#[test]
fn who_waits_for_another_account_waits_for_the_first_no_more() {
    let (bell, mut rings) = unbounded_channel();
    let (limits, process) = (Limits::new(bell), ProcessKey::generate().unwrap());
    let (before, after) = (process.account("h", "u"), process.account("h", "v"));
    let (one, two) = (limits.turn(before, &key("a"), NOW).unwrap(), limits.turn(after, &key("b"), NOW).unwrap());
    for account in [before, after] {
        assert!(limits.turn(account, &key("c"), NOW).is_none());
    }
    one.opened();
    assert!(rung(&mut rings).is_empty());
    two.opened();
    assert_eq!(rung(&mut rings), ["c"]);
    assert!(limits.lock().waits.is_empty());
}

#[test]
fn accounts_without_number_are_forgotten_but_for_their_waits() {
    let (bell, mut rings) = unbounded_channel();
    let (limits, process) = (Limits::new(bell), ProcessKey::generate().unwrap());
    let told = process.account("h", "told");
    limits.turn(told, &key("told"), NOW).unwrap().held(limited(HOUR, 3));
    let asked = process.account("h", "asked");
    let first = limits.turn(asked, &key("first"), NOW).unwrap();
    assert!(limits.turn(asked, &key("second"), NOW).is_none());
    for number in 0..3 * ROOM {
        limits.turn(process.account("h", &number.to_string()), &key("other"), NOW).unwrap().opened();
    }
    assert!(limits.lock().of.len() <= ROOM + 1);
    assert_eq!(limits.hold(told, &key("told"), Duration::ZERO), Some(limited(HOUR, 3)));
    drop(first);
    assert_eq!(rung(&mut rings), ["second"]);
}

#[test]
fn silence_is_no_news_of_a_limit() {
    let (bell, mut rings) = unbounded_channel();
    let (limits, account) = (Limits::new(bell), ProcessKey::generate().unwrap().account("h", "u"));
    limits.turn(account, &key("a"), NOW).unwrap().held(limited(HOUR, 3));
    let probe = limits.turn(account, &key("a"), Some(HOUR)).unwrap();
    assert!(limits.turn(account, &key("b"), Some(HOUR)).is_none());
    probe.unheard();
    // One alone asks again, and the waits go on where they were.
    assert_eq!(rung(&mut rings), ["b"]);
    let next = limits.turn(account, &key("b"), Some(HOUR)).unwrap();
    assert_eq!(next.failures(), 3);
    assert!(limits.turn(account, &key("a"), Some(HOUR)).is_none());
    // Where nothing was told, nobody has to wait for the first.
    let other = ProcessKey::generate().unwrap().account("g", "u");
    let first = limits.turn(other, &key("a"), NOW).unwrap();
    assert!(limits.turn(other, &key("b"), NOW).is_none());
    first.unheard();
    let (one, two) = (limits.turn(other, &key("a"), NOW), limits.turn(other, &key("b"), NOW));
    assert!(one.is_some() && two.is_some());
}

#[test]
fn what_a_status_tells_counts_until_the_issuer_has_spoken() {
    let (bell, _rings) = unbounded_channel();
    let (limits, account) = (Limits::new(bell), ProcessKey::generate().unwrap().account("h", "u"));
    let told = |until, failures| Hold { restored: true, ..limited(until, failures) };
    for hold in [told(HOUR / 2, 9), told(HOUR, 3), told(HOUR / 2, 9)] {
        limits.restore(account, hold);
    }
    assert_eq!(limits.hold(account, &key("a"), Duration::ZERO), Some(told(HOUR, 3)));
    // Asked out of turn, because something has changed.
    limits.turn(account, &key("a"), None).unwrap().held(limited(2 * HOUR, 4));
    limits.restore(account, told(3 * HOUR, 3));
    assert_eq!(limits.hold(account, &key("a"), Duration::ZERO), Some(limited(2 * HOUR, 4)));
    limits.turn(account, &key("a"), None).unwrap().opened();
    limits.restore(account, told(HOUR, 3));
    assert_eq!(limits.hold(account, &key("a"), Duration::ZERO), None);
}
