//! Random lists of steps against a model of the world: ticks, changed specs and credentials, faults, crashes, a second
//! operator, edits by hand. Whatever their order, the invariants shall hold.
//!
//! The real `reconcile` runs in here, in one or two operators with a memory each, against an apiserver of which only the
//! object semantics are modelled and an issuer on loopback. Every call of an operator stops until the schedule lets it go on,
//! breaks it, or crashes the operator before or after it has taken effect. This complements the suite against the real
//! apiserver, which shows what no model can: that the apiserver is as it is modelled here. In return it sees orders of
//! events that nobody would think of, by the ten thousand.
//!
//! Invariants: between two requests that bring a token there is a cause, or a loss that is counted as ambiguous; waits are
//! kept; no two requests are in flight at once, nor within 5 s from one process; nobody else's Secret is written; no pass
//! panics. Once all is mended, everything comes to rest by the operators' own timers: the Secret holds the last token, issued
//! for the present inputs, tidy; the status is clear; another pass, also of a process just started, writes and asks nothing.
//!
//! A second run has tokens in memory only: one operator, whose restart is worth a token.
//!
//! `SEED=… MODEL_LISTS=1 cargo test --test model` repeats the list that a failure names.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::unwrap_in_result,
    clippy::single_match_else,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::let_underscore_must_use,
    reason = "a test that cannot go on fails"
)]

mod answers;
mod apiserver;
mod clock;
mod issuer;
mod ledger;
mod operator;
mod panicking;
mod random;
mod rest;
mod schedule;
mod time;
mod user;

use std::env;

use verteil_token_operator::issuer::Issuer;

use crate::issuer::Endpoint;
use crate::schedule::Run;

/// A minute's work; `MODEL_LISTS` and `SEED` choose more and others.
const LISTS: u64 = 10_000;
const LISTS_IN_MEMORY: u64 = 2_500;
const LONGEST_TRACE: usize = 250;
const THREADS: u64 = 2;
const SEED: u64 = 20_240_601;

#[test]
fn random_lists_of_steps_come_to_rest_and_cost_what_they_should() {
    run_all(false, LISTS);
}

#[test]
fn with_tokens_in_memory_only_they_do_so_too() {
    run_all(true, LISTS_IN_MEMORY);
}

fn run_all(in_memory: bool, lists: u64) {
    let number = |name: &str| env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let (seed, lists) = (number("SEED").unwrap_or(SEED), number("MODEL_LISTS").unwrap_or(lists));
    // Fails only if it was done before.
    rustls::crypto::ring::default_provider().install_default().ok();
    let threads = (0..THREADS).map(|thread| {
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let seeds = (thread..lists).step_by(usize::try_from(THREADS).unwrap()).map(|n| seed.wrapping_add(n));
            runtime.block_on(run_lists(in_memory, seeds))
        })
    });
    let threads: Vec<_> = threads.collect();
    let failures: Vec<String> = threads.into_iter().filter_map(|thread| thread.join().unwrap().err()).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

async fn run_lists(in_memory: bool, seeds: impl Iterator<Item = u64>) -> Result<(), String> {
    let (endpoint, issuer) = (Endpoint::start().await, Issuer::new(8).unwrap());
    for seed in seeds {
        let mut run = Run::new(seed, in_memory, &issuer, &endpoint);
        if let Err(why) = run_list(&mut run).await {
            // A list that finds no rest goes on for long: its beginning tells why.
            run.trace.truncate(LONGEST_TRACE);
            return Err(format!("{}\nSEED={seed} MODEL_LISTS=1: {why}", run.trace.join("\n")));
        }
        endpoint.forget(&run.tag);
    }
    Ok(())
}

async fn run_list(run: &mut Run<'_>) -> Result<(), String> {
    run.unrest().await?;
    run.settle().await?;
    run.quiet().await?;
    run.accounted()
}
