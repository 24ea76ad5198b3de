//! Feeds `checks/question.rs`.
#![no_main]

#[path = "../checks/question.rs"]
mod question;

libfuzzer_sys::fuzz_target!(|input: &[u8]| question::check(input));
