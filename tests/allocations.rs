//! A reply from the cache allocates nothing. A binary of its own, since it replaces the allocator.
#![allow(unsafe_code)]
#![allow(missing_docs, reason = "a test binary has no outside")]

#[path = "support/warm.rs"]
mod warm;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;
use std::time::Duration;

use dnslet::dns::{Protocol, Type};
use dnslet::sys::clock;
use warm::{Warm, query};

/// The system's allocator, counting what the current thread asks of it.
struct Counting;

thread_local! {
    static ASKED: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call goes to `System` with its arguments unchanged. The counter is a plain thread-local number without
// a destructor or lazy initialiser, so touching it allocates nothing and is allowed at any time of a thread's life.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ASKED.set(ASKED.get() + 1);
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise, passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ASKED.set(ASKED.get() + 1);
        // SAFETY: the caller's promise, passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(mut act: impl FnMut()) -> u64 {
    let before = ASKED.get();
    act();
    ASKED.get() - before
}

const COREFILE: &str = "example.org:53 {\n    bind 127.0.0.1\n    errors\n    \
                        aaaa off v4.example.org\n    cache {\n        prefetch 100000\n    }\n    \
                        forward . {up}\n    prometheus 127.0.0.1:9253\n}\n";

/// What is asked, over which transport, and the RCODE and flags (QR TC RD) of the reply.
fn hits() -> Vec<(&'static str, Vec<u8>, Protocol, u8, bool)> {
    let udp = Protocol::Udp;
    vec![
        ("positive", query("www.example.org", Type::A, None), udp, 0, false),
        ("mixed case", query("WwW.eXample.ORG", Type::A, None), udp, 0, false),
        ("EDNS", query("www.example.org", Type::A, Some((1232, false))), udp, 0, false),
        ("DO", query("www.example.org", Type::A, Some((1232, true))), udp, 0, false),
        ("alias", query("alias.example.org", Type::A, None), udp, 0, false),
        ("NODATA", query("www.example.org", Type::AAAA, None), udp, 0, false),
        ("NXDOMAIN", query("missing.example.org", Type::A, None), udp, 3, false),
        ("NXDOMAIN, another type", query("missing.example.org", Type::MX, None), udp, 3, false),
        ("AAAA off", query("www.v4.example.org", Type::AAAA, Some((1232, false))), udp, 0, false),
        ("truncated", query("many.example.org", Type::A, None), udp, 0, true),
        ("large with EDNS", query("many.example.org", Type::A, Some((4096, false))), udp, 0, false),
        ("large over TCP", query("many.example.org", Type::A, None), Protocol::Tcp, 0, false),
    ]
}

#[test]
fn replies_from_the_cache_allocate_nothing() {
    let hits = hits();
    let queries: Vec<_> = hits.iter().map(|(_, query, ..)| query.clone()).collect();
    let warm = Warm::new(COREFILE, &queries);
    let later = clock::now() + Duration::from_secs(7);
    for (what, query, protocol, rcode, cut) in hits {
        let mut out = vec![0; 65_535];
        let mut length = 0;
        let count = allocations(|| {
            for _ in 0..100 {
                length = warm.answer(protocol, later, black_box(&query), &mut out);
            }
        });
        assert_eq!(count, 0, "allocations of 100 replies: {what}");
        assert!(length > query.len() || cut, "{what}: a reply with records");
        assert_eq!((out[3] & 0x0f, out[2] & 0x02 != 0), (rcode, cut), "{what}: RCODE and TC");
        assert_eq!(out[..2], query[..2], "{what}: the ID");
    }
}

/// What is asked in a block with `autopath`, and the RCODE and the number of answers.
fn walked() -> Vec<(&'static str, Vec<u8>, u8, u8)> {
    let below = |base: &str, qtype| query(&format!("{base}.shop.svc.cluster.local"), qtype, None);
    vec![
        // An alias to the name itself, and its two addresses.
        ("found", below("www.example.com", Type::A), 0, 3),
        ("NODATA", below("www.example.com", Type::MX), 0, 0),
        ("missing", below("missing.two", Type::A), 3, 0),
        ("a Service", below("db", Type::A), 0, 2),
        ("a Service without", below("db", Type::MX), 0, 0),
        ("AAAA off", below("www.example.com", Type::AAAA), 0, 0),
        ("continued", query("missing.two.svc.cluster.local", Type::A, None), 3, 0),
        ("excepted", below("www.example.test", Type::A), 0, 2),
    ]
}

#[test]
fn replies_from_earlier_walks_allocate_nothing() {
    let corefile = "cluster.local:53 {\n    bind 127.0.0.1\n    aaaa off\n    cache {\n        denial_cut cluster.local\n    \
                    }\n    autopath @query {\n        search .\n        except example.test\n    }\n    forward . {up}\n}\n\
                    .:53 {\n    bind 127.0.0.1\n    cache\n    forward . {up}\n}\n";
    let queries: Vec<_> = walked().into_iter().map(|(_, query, ..)| query).collect();
    let warm = Warm::new(corefile, &queries);
    let later = clock::now() + Duration::from_secs(7);
    for (what, query, rcode, answers) in walked() {
        let (mut out, mut length) = ([0; 512], 0);
        let count = allocations(|| length = warm.answer(Protocol::Udp, later, black_box(&query), &mut out));
        assert_eq!((out[3] & 0x0f, out[7]), (rcode, answers), "{what}: RCODE, records in the answer");
        let alias = &out[query.len()..length];
        assert_eq!(what == "found", answers == 3 && alias[2..4] == [0, 5], "{what}: a CNAME");
        assert_eq!(count, 0, "allocations: {what}");
    }
}

#[test]
fn shuffled_addresses_allocate_nothing() {
    let query = query("many.example.org", Type::A, Some((4096, false)));
    let corefile = COREFILE.replace("errors", "loadbalance round_robin");
    let warm = Warm::new(&corefile, std::slice::from_ref(&query));
    let mut out = vec![0; 4096];
    let now = clock::now();
    // The random numbers of a thread start with an allocation, once.
    warm.answer(Protocol::Udp, now, &query, &mut out);
    let count = allocations(|| {
        warm.answer(Protocol::Udp, now, black_box(&query), &mut out);
    });
    assert_eq!(count, 0);
}

#[test]
fn refusals_allocate_nothing() {
    let warm = Warm::new(COREFILE, &[]);
    let mut out = vec![0; 512];
    let elsewhere = query("www.example.com", Type::A, None);
    let now = clock::now();
    let count = allocations(|| {
        warm.answer(Protocol::Udp, now, black_box(&elsewhere), &mut out);
    });
    assert_eq!((count, out[3] & 0x0f), (0, 5));
}

#[test]
fn the_count_counts() {
    assert_eq!(allocations(|| drop(black_box(vec![0_u8; 64]))), 1);
}
