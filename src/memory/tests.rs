use super::*;
use crate::token::Record;

/// Each resource has one, so that ten thousand take 2.5 MiB. The allocator's next larger piece is of 320 bytes.
#[test]
fn an_entry_fits_into_256_bytes() {
    assert!(size_of::<Entry>() <= 256, "{}", size_of::<Entry>());
}

fn key(name: &str) -> Key {
    Key::new("a", name)
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap_or_default()
}

/// A token that lives until second 3600.
fn issued() -> Option<Arc<Issued>> {
    let record = Record::new("fake-token".to_owned().into(), "Bearer".into(), 3600, at(0), at(0)).ok()?;
    let record_seal = RecordSeal::of(&record).as_str().to_owned();
    let content = Content { record_seal, input_seal: None, renewed: None, record };
    let (reason, requested_at) = (IssueReason::Initial, at(0));
    let (repeated, counted) = (false, false);
    Some(Arc::new(Issued {
        content,
        reason,
        repeated,
        trouble: None,
        requested_at,
        replaces: None,
        counted,
        claim: None,
        owner: None,
    }))
}

#[test]
fn the_count_of_unsaved_tokens_is_that_of_the_list() {
    let memory = Memory::default();
    let agree = |count: usize| {
        assert_eq!((memory.count_unsaved(), memory.unsaved().len()), (count, count));
    };
    for name in ["one", "two", "two", "three"] {
        memory.with(&key(name), |entry| entry.issued = issued());
    }
    memory.with(&key("none"), |entry| entry.failures = 1);
    agree(3);
    assert!(memory.is_unsaved(&key("one")) && !memory.is_unsaved(&key("none")) && !memory.is_unsaved(&key("new")));
    memory.with(&key("one"), |entry| entry.issued = None);
    memory.with(&key("one"), |entry| entry.issued = None);
    agree(2);
    memory.forget(&key("none"), at(0));
    memory.forget(&key("three"), at(3600));
    agree(1);
}

#[test]
fn an_unsaved_token_outlives_its_resource_until_it_expires_and_is_not_counted() {
    let memory = Memory::default();
    for name in ["one", "two"] {
        memory.with(&key(name), |entry| entry.issued = issued());
        memory.forget(&key(name), at(10));
    }
    memory.expire(at(3599));
    assert_eq!((memory.count_unsaved(), memory.unsaved().len()), (0, 2));
    // Made again, it takes its token up.
    assert!(memory.found(&key("two")));
    assert!(!memory.found(&key("two")) && !memory.found(&key("new")));
    assert_eq!((memory.count_unsaved(), memory.unsaved().len()), (1, 2));
    memory.with(&key("two"), |entry| entry.failures = 1);
    memory.expire(at(3600));
    assert_eq!((memory.count_unsaved(), memory.unsaved()), (1, vec![key("two")]));
    memory.forget(&key("two"), at(3600));
    assert_eq!((memory.count_unsaved(), memory.unsaved().len()), (0, 0));
    assert!(memory.peek(&key("two"), |_| ()).is_none());
}

#[test]
fn an_entry_is_small_since_every_resource_may_have_one() {
    let size = size_of::<Entry>();
    println!("{size} bytes, beside {} in the table", size_of::<(Key, Box<Entry>)>());
    assert!(size <= 360, "{size}");
}

#[test]
fn what_this_process_wrote_is_no_news_unless_a_pass_waits_for_it() {
    let memory = Memory::default();
    assert!(!memory.is_echo(&key("one"), Some(7)) && !memory.is_stale(&key("one"), Some(7)), "it wrote nothing");
    memory.with(&key("one"), |entry| entry.written = Some(7));
    for (told, echo) in [(Some(6), true), (Some(7), true), (Some(8), false), (None, false)] {
        assert_eq!(memory.is_echo(&key("one"), told), echo, "{told:?}");
    }
    assert!(!memory.is_stale(&key("one"), Some(7)) && !memory.is_stale(&key("one"), None));
    // It is told to the pass that waits, once.
    assert!(memory.is_stale(&key("one"), Some(6)));
    assert!(memory.is_echo(&key("one"), Some(6)), "it is stale as well");
    assert!(!memory.is_echo(&key("one"), Some(7)));
    assert!(memory.is_echo(&key("one"), Some(7)));
    memory.forget(&key("one"), at(0));
    assert!(!memory.is_echo(&key("one"), Some(7)), "it is another resource now");
}

#[test]
fn what_the_watch_tells_during_a_write_is_news_unless_the_answer_says_that_it_was_the_write() {
    let memory = Memory::default();
    let meanwhile = |told: u64, written: Option<u64>| {
        memory.begin_write(&key("one"));
        assert!(memory.is_echo(&key("one"), Some(told)), "it rings for nobody yet");
        memory.end_write(&key("one"), written);
        memory.take_news(&key("one"))
    };
    assert!(!meanwhile(7, Some(7)));
    assert!(meanwhile(9, Some(8)), "somebody was faster with the next change");
    assert!(meanwhile(10, None), "nobody knows whose it is");
    assert!(!memory.take_news(&key("one")), "it is told once");
    assert!(!memory.is_echo(&key("one"), Some(11)), "nothing is being written");
    // A pass that panicked in a write leaves nothing that would silence the watch.
    memory.begin_write(&key("one"));
    assert!(memory.is_stale(&key("one"), Some(7)));
    assert!(!memory.is_echo(&key("one"), Some(12)));
}
