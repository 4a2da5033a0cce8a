//! Properties of what reads the texts of others: answers, records, resources, certificates. The fuzz targets in `fuzz/` look for
//! inputs that break them; here every input that was kept is replayed, and some edits of each are tried.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

mod invariants;
mod seeds;

use std::collections::BTreeSet;

use proptest::prelude::*;

use invariants::TARGETS;
use seeds::{folder, near, seeds, words};

#[test]
fn every_seed_holds() {
    let mut broken = Vec::new();
    for (target, holds) in TARGETS {
        let seeds = seeds(target);
        assert!(seeds.len() >= 5, "{target} has {} seeds", seeds.len());
        for (name, bytes) in seeds {
            if std::panic::catch_unwind(|| holds(&bytes)).is_err() {
                broken.push(format!("fuzz/seeds/{target}/{name}"));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn every_target_has_a_program_seeds_and_words() {
    let targets: BTreeSet<String> = TARGETS.map(|(target, _)| target.to_owned()).into();
    let stems = |name: &str| -> BTreeSet<String> {
        let paths = std::fs::read_dir(folder(name)).unwrap().map(|entry| entry.unwrap().path());
        paths.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
    };
    for name in ["fuzz_targets", "seeds", "dictionaries"] {
        assert_eq!(stems(name), targets, "fuzz/{name}");
    }
    let manifest = std::fs::read_to_string(folder("Cargo.toml")).unwrap();
    for (target, _) in TARGETS {
        assert!(manifest.contains(&format!("[[bin]]\nname = \"{target}\"\npath = \"fuzz_targets/{target}.rs\"\n")));
        let program = std::fs::read_to_string(folder(&format!("fuzz_targets/{target}.rs"))).unwrap();
        assert!(program.contains(&format!("invariants::{target}(data)")), "{target} runs another");
        assert!(words(target).len() >= 5);
    }
}

/// The seeds of one target with some edits, as a fuzzer makes them, but in a second.
macro_rules! twin {
    ($name:ident, $target:literal, $holds:path) => {
        proptest! {
            // Whatever fails is kept as a seed.
            #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
            #[test]
            fn $name(input in near($target)) {
                $holds(&input.0);
            }
        }
    };
}

twin!(any_answer_is_understood_or_refused_without_showing_a_secret, "answer", invariants::answer);
twin!(any_bundle_can_be_used_or_is_refused, "ca", invariants::ca);
twin!(any_duration_is_read_as_the_definition_reads_it, "duration", invariants::duration);
twin!(any_list_of_hosts_allows_what_it_names, "hosts", invariants::hosts);
twin!(any_lease_is_read_and_keeps_what_others_wrote, "lease", invariants::lease);
twin!(any_record_is_written_as_it_was_read, "record", invariants::record);
twin!(any_template_is_rendered_within_bounds_or_refused, "template", invariants::template);
