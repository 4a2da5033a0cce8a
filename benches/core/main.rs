//! `cargo bench --bench core`: what the pure core takes, and how often it allocates.
//!
//! A pass over a settled resource calls none of the first part but the renewal point; an issue calls each about twice. The second
//! part, `resource`, is what a restart does for each resource.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stderr, reason = "a benchmark is a program of its own")]

mod resource;

use std::alloc::System;
use std::collections::BTreeMap;
use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use jiff::{SignedDuration, Timestamp};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use verteil_token_operator::decide::{ClaimView, Held, Pace, Stored, Wanted, decide};
use verteil_token_operator::token::{InputSeal, Inputs, Record, RecordSeal, renewal_point};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const NOW: i64 = 1_800_000_000;
/// As many characters as a token has.
const TOKEN_LENGTH: usize = 900;
const RENEW_BEFORE: SignedDuration = SignedDuration::from_mins(10);

/// Measures `work`, and prints what it allocates and what of it its result keeps.
fn measure<T>(c: &mut Criterion, name: &str, mut work: impl FnMut() -> T) {
    black_box(work());
    let region = Region::new(ALLOCATOR);
    let result = black_box(work());
    let change = region.change();
    let kept = change.bytes_allocated.saturating_sub(change.bytes_deallocated);
    eprintln!("{name}: {} allocations, {} bytes, {kept} kept", change.allocations, change.bytes_allocated);
    drop(result);
    c.bench_function(name, |b| b.iter(&mut work));
}

fn core(c: &mut Criterion) {
    let at = |second| Timestamp::from_second(second).unwrap();
    let token = || "x".repeat(TOKEN_LENGTH).into();
    let record = Record::new(token(), "Bearer".into(), 43199, at(NOW), at(NOW)).unwrap();
    let inputs = Inputs::new(
        "https://issuer.example/oauth2/token".into(),
        "fake-user".to_owned().into(),
        "fake-password".to_owned().into(),
        vec!["api".into()],
        BTreeMap::new(),
    );
    let seal = RecordSeal::of(&record);
    let input_seal = InputSeal::of(&inputs, record.access_token());
    let json = record.to_json();
    let wanted = Wanted {
        deleting: false,
        suspended: false,
        renew_before: RENEW_BEFORE,
        issuer_repeats: false,
        renew_pending: false,
        obstacle: None,
    };
    let held = Held { validity: record.validity(), seal: seal.clone(), current: true, tidy: true };
    let stored = Stored::Held(held);
    let pace = Pace {
        leading: true,
        not_before: None,
        own_not_before: None,
        write_not_before: None,
        last_request: Some(at(NOW)),
        last_issue: Some(at(NOW)),
        unscheduled: 0,
        claim: ClaimView::Free,
    };

    measure(c, "decide: settled", || decide(black_box(at(NOW + 60)), &wanted, &stored, None, &pace));
    measure(c, "decide: renewal due", || decide(black_box(at(NOW + 43_000)), &wanted, &stored, None, &pace));
    measure(c, "renewal point", || renewal_point(record.validity(), RENEW_BEFORE, black_box(&seal), false));
    measure(c, "record seal: make", || RecordSeal::of(black_box(&record)));
    measure(c, "record seal: check", || RecordSeal::check(black_box(seal.as_str()), &record));
    measure(c, "input seal: make", || InputSeal::of(black_box(&inputs), record.access_token()));
    measure(c, "input seal: check", || {
        InputSeal::check(input_seal.as_str(), black_box(&inputs), record.access_token())
    });
    measure(c, "record: parse", || Record::parse(black_box(&json)).unwrap());
    measure(c, "record: print", || black_box(&record).to_json());
}

criterion_group!(benches, core, resource::resource);
criterion_main!(benches);
