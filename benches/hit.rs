//! What a reply from the cache costs in user space: nanoseconds per call of `Resolver::answer`, the best of many short
//! rounds, some of which a busy machine leaves alone.
#![allow(clippy::print_stdout, reason = "printing is what it is for")]

#[path = "../tests/support/warm.rs"]
mod warm;

use std::hint::black_box;

use dnslet::dns::{Protocol, Type};
use dnslet::sys::clock;
use warm::{Warm, query};

const COREFILE: &str = "cluster.local:53 {\n    bind 127.0.0.1\n    errors\n    cache\n    forward . {up}\n    \
                        prometheus 127.0.0.1:9253\n}\n\
                        .:53 {\n    bind 127.0.0.1\n    errors\n    cache\n    forward . {up}\n    \
                        prometheus 127.0.0.1:9253\n}\n";
const AUTOPATH: &str = "cache\n    autopath @query {\n        search .\n    }\n";
const NAMES: usize = 1000;
const CALLS: usize = 10_000;
const ROUNDS: usize = 300;

fn main() {
    let name = |first: &str, i: usize| format!("{first}-{i}.site-{}.example.com", i % 97);
    let service = |i: usize| format!("svc-{i}.team-{}.svc.cluster.local", i % 4);
    let walked = |i: usize| format!("missing-{i}.example.com.team-{}.svc.cluster.local", i % 4);
    let first = |i: usize| format!("www-{i}.site-{}.example.com.team-{}.svc.cluster.local", i % 97, i % 4);
    let cases: [(&str, Vec<Vec<u8>>); 6] = [
        ("external A", (0..NAMES).map(|i| query(&name("www", i), Type::A, None)).collect()),
        ("external A, EDNS", (0..NAMES).map(|i| query(&name("www", i), Type::A, Some((1232, false)))).collect()),
        ("external A behind an alias", (0..NAMES).map(|i| query(&name("alias", i), Type::A, None)).collect()),
        ("service A", (0..NAMES).map(|i| query(&service(i), Type::A, None)).collect()),
        ("service AAAA (NODATA)", (0..NAMES).map(|i| query(&service(i), Type::AAAA, None)).collect()),
        ("search path (NXDOMAIN)", (0..NAMES).map(|i| query(&walked(i), Type::A, None)).collect()),
    ];
    let walks = [
        ("service A, autopath", cases[3].1.clone()),
        ("service AAAA, autopath", cases[4].1.clone()),
        ("first name of a search list", (0..NAMES).map(|i| query(&first(i), Type::A, None)).collect()),
    ];
    time(COREFILE, &cases);
    time(&COREFILE.replacen("cache\n", AUTOPATH, 1), &walks);
}

/// Prints what each case costs with these server blocks.
fn time(corefile: &str, cases: &[(&str, Vec<Vec<u8>>)]) {
    let everything: Vec<_> = cases.iter().flat_map(|(_, queries)| queries.iter().cloned()).collect();
    let warm = Warm::new(corefile, &everything);
    let mut out = [0; 4096];
    for (what, queries) in cases {
        let best = (0..ROUNDS).map(|_| round(&warm, queries, &mut out)).min().unwrap_or_default();
        println!("{what:<28} {:>7.1} ns", best as f64 / CALLS as f64);
    }
}

/// Nanoseconds that all calls of one round take.
fn round(warm: &Warm, queries: &[Vec<u8>], out: &mut [u8]) -> u128 {
    let start = clock::now();
    for i in 0..CALLS {
        // A stride that visits all names in no simple order.
        let query = &queries[i * 389 % queries.len()];
        black_box(warm.answer(Protocol::Udp, start, black_box(query), out));
    }
    (clock::now() - start).as_nanos()
}
