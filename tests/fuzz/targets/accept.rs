//! Feeds `checks/accept.rs`.
#![no_main]

#[path = "../checks/accept.rs"]
mod accept;

libfuzzer_sys::fuzz_target!(|input: &[u8]| accept::check(input));
