#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| verteil_token_operator_fuzz::invariants::record(data));
