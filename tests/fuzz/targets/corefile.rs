//! Feeds `checks/corefile.rs`.
#![no_main]

#[path = "../checks/corefile.rs"]
mod corefile;

libfuzzer_sys::fuzz_target!(|input: &str| corefile::check(input));
