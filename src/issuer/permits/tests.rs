use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::*;

fn key(name: &str) -> Key {
    Key::new("n", name)
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap_or_default()
}

const fn renewal() -> Priority {
    Priority::Renewal(Timestamp::MAX)
}

fn rung(rings: &mut UnboundedReceiver<Key>) -> Option<String> {
    rings.try_recv().ok().map(|key| key.name.to_string())
}

/// One permit, which is in use; then all who stand in line, in the order in which they are rung for.
fn order(line: &[(&str, Priority)]) -> Vec<String> {
    let (bell, mut rings) = unbounded_channel();
    let permits = Permits::new(1, bell);
    let held = permits.obtain("h", &key("held"), renewal());
    for (name, priority) in line {
        assert!(!permits.reserve("h", &key(name), *priority));
    }
    drop(held);
    std::iter::from_fn(|| {
        let next = rung(&mut rings)?;
        assert!(rung(&mut rings).is_none(), "one permit rings for one");
        drop(permits.obtain("h", &key(&next), renewal()));
        Some(next)
    })
    .collect()
}

#[test]
fn who_is_about_to_be_without_a_token_goes_first_then_who_has_none_then_renewals() {
    let line = [
        ("renewal-late", Priority::Renewal(at(900))),
        ("new-1", Priority::Unserved),
        ("expiring-late", Priority::Expiring(at(100))),
        ("renewal-soon", Priority::Renewal(at(500))),
        ("new-2", Priority::Unserved),
        ("expiring-soon", Priority::Expiring(at(50))),
        ("renewal-late-too", Priority::Renewal(at(900))),
    ];
    let expected =
        ["expiring-soon", "expiring-late", "new-1", "new-2", "renewal-soon", "renewal-late", "renewal-late-too"];
    assert_eq!(order(&line), expected);
}

#[test]
fn who_stands_in_line_moves_forward_and_never_back() {
    let line = [
        ("a", Priority::Renewal(at(300))),
        ("b", Priority::Unserved),
        ("c", Priority::Renewal(at(200))),
        // Its end has come near.
        ("a", Priority::Expiring(at(300))),
        ("d", Priority::Unserved),
        // It has expired since, or is looked at again.
        ("a", Priority::Unserved),
        ("b", Priority::Unserved),
    ];
    assert_eq!(order(&line), ["a", "b", "d", "c"]);
}

#[test]
fn the_permits_of_one_host_are_nothing_to_another() {
    let (bell, mut rings) = unbounded_channel();
    let permits = Permits::new(1, bell);
    let held = permits.obtain("h", &key("a"), renewal());
    assert!(held.is_some() && permits.obtain("h", &key("b"), renewal()).is_none());
    assert!(permits.obtain("other", &key("c"), renewal()).is_some());
    drop(held);
    assert_eq!(rung(&mut rings).as_deref(), Some("b"));
}

#[test]
fn who_is_rung_for_and_does_not_come_passes_the_permit_on() {
    let (bell, mut rings) = unbounded_channel();
    let permits = Permits::new(1, bell);
    let held = permits.obtain("h", &key("a"), renewal());
    for name in ["b", "c"] {
        assert!(permits.obtain("h", &key(name), renewal()).is_none());
    }
    drop(held);
    // The permit is kept for b: nobody else takes it.
    assert_eq!(rung(&mut rings).as_deref(), Some("b"));
    assert!(permits.obtain("h", &key("d"), Priority::Unserved).is_none());
    permits.withdraw(&key("b"));
    assert_eq!(rung(&mut rings).as_deref(), Some("d"));
    permits.withdraw(&key("c"));
    drop(permits.obtain("h", &key("d"), Priority::Unserved));
    assert!(rings.try_recv().is_err());
    let lines = permits.lock();
    assert!(lines.hosts.is_empty() && lines.stands.is_empty());
}

#[test]
fn who_turns_to_another_host_leaves_its_place_or_its_permit_at_the_first() {
    let (bell, mut rings) = unbounded_channel();
    let permits = Permits::new(1, bell);
    assert!(permits.reserve("h", &key("a"), Priority::Unserved));
    for name in ["b", "c"] {
        assert!(!permits.reserve("h", &key(name), Priority::Unserved));
    }
    // b's token URL is changed while it waits, and a's while a permit is kept for it.
    assert!(permits.reserve("other", &key("b"), Priority::Unserved));
    assert!(!permits.reserve("other", &key("a"), Priority::Unserved));
    assert_eq!(rung(&mut rings).as_deref(), Some("c"));
    drop(permits.obtain("h", &key("c"), Priority::Unserved));
    assert!(rings.try_recv().is_err());
    permits.withdraw(&key("b"));
    assert_eq!(rung(&mut rings).as_deref(), Some("a"));
    drop(permits.obtain("other", &key("a"), Priority::Unserved));
    let lines = permits.lock();
    assert!(lines.hosts.is_empty() && lines.stands.is_empty());
}

#[test]
fn a_host_that_was_never_asked_gets_one_request_at_first() {
    let (bell, mut rings) = unbounded_channel();
    let permits = Permits::new(3, bell);
    assert!(permits.reserve("h", &key("a"), Priority::Unserved) && permits.reserve("h", &key("a"), Priority::Unserved));
    let first = permits.obtain("h", &key("a"), Priority::Unserved);
    for name in ["b", "c", "d", "e"] {
        assert!(!permits.reserve("h", &key(name), Priority::Unserved));
    }
    assert!(first.is_some() && rings.try_recv().is_err());
    drop(first);
    // From then on as many as may be.
    for name in ["b", "c", "d"] {
        assert_eq!(rung(&mut rings).as_deref(), Some(name));
        assert!(permits.reserve("h", &key(name), Priority::Unserved));
    }
    assert!(rings.try_recv().is_err());
    // One that needs none after all leaves it to the next.
    permits.withdraw(&key("c"));
    assert_eq!(rung(&mut rings).as_deref(), Some("e"));
}

#[test]
fn hosts_without_number_are_not_remembered() {
    let permits = Permits::new(1, unbounded_channel().0);
    for number in 0..3 * MOST_KNOWN {
        drop(permits.obtain(&number.to_string(), &key("a"), Priority::Unserved));
    }
    let lines = permits.lock();
    assert!(lines.known.len() <= MOST_KNOWN && lines.hosts.is_empty() && lines.stands.is_empty());
}
