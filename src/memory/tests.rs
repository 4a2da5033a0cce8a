use super::*;
use crate::token::Record;

fn key(name: &str) -> Key {
    Key { namespace: "a".into(), name: name.into() }
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
