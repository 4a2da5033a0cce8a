//! What the targets assert: the same that `tests/parsers/` asserts in `cargo test`.

#[path = "../../tests/parsers/invariants/mod.rs"]
pub mod invariants;
