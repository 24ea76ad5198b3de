//! What the cache promises: bounds, scan resistance, lifetimes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::dns::header::Count;
use crate::dns::{Builder, Name, Rcode, Response, Type};
use crate::sys::clock;

use super::settings::Prefetch;
use super::*;

/// A query of ours: header and question.
fn query(name: &str, qtype: Type) -> Vec<u8> {
    let mut wire = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    wire.extend(Name::parse(name).unwrap().as_wire());
    wire.extend(qtype.0.to_be_bytes());
    wire.extend([0, 1]);
    wire
}

fn response(name: &str, records: &[(Count, Type, u32, &[u8])], rcode: Rcode) -> Response {
    let query = query(name, Type::A);
    let mut builder = Builder::new(&query, query.len(), [0x80, 0x80]);
    for (section, rtype, ttl, rdata) in records {
        builder.add(*section, Name::parse(name).unwrap().as_wire(), *rtype, *ttl, rdata).unwrap();
    }
    builder.build(rcode, Vec::new())
}

fn soa(minimum: u32) -> Vec<u8> {
    let mut rdata = vec![0, 0];
    for value in [1, 2, 3, 4, minimum] {
        rdata.extend(u32::to_be_bytes(value));
    }
    rdata
}

fn seconds(response: &Response, settings: &Settings) -> Option<u64> {
    let name = Name::parse("a.test").unwrap();
    lifetime::of(response, name.as_wire(), Type::A, settings).map(|lifetime| lifetime.duration.as_secs())
}

fn entry(name: &str, quota: &Arc<Quota>, now: Instant) -> Arc<Entry> {
    let response = response(name, &[(Count::Answer, Type::A, 60, &[1, 2, 3, 4])], Rcode::NOERROR);
    let lifetime = Lifetime { class: Class::Success, duration: Duration::from_secs(60), whole_name: false };
    Arc::new(Entry::new(response, &lifetime, now, quota))
}

fn store(cache: &Cache, name: &str, quota: &Arc<Quota>, now: Instant) {
    cache.store(cache.key(7, name.as_bytes()).to_key(), entry(name, quota, now));
}

fn asked(cache: &Cache, name: &str) -> bool {
    cache.get(&cache.key(7, name.as_bytes())).is_some()
}

#[test]
fn the_lowest_ttl_counts_within_the_limits() {
    let mut settings = Settings::new();
    settings.success.max_ttl = 30;
    let two = |a, b| {
        let records: [(Count, Type, u32, &[u8]); 2] =
            [(Count::Answer, Type::A, a, &[1, 2, 3, 4]), (Count::Answer, Type::A, b, &[1, 2, 3, 5])];
        response("a.test", &records, Rcode::NOERROR)
    };
    assert_eq!(seconds(&two(100, 20), &settings), Some(20));
    assert_eq!(seconds(&two(300, 300), &settings), Some(30));
    assert_eq!(seconds(&two(3, 3), &settings), Some(5));
    assert_eq!(seconds(&two(0, 300), &settings), None, "TTL 0 is never stored");
    settings.success.max_ttl = u32::MAX;
    assert_eq!(seconds(&two(u32::MAX, u32::MAX), &settings), Some(604_800));
}

#[test]
fn a_denial_lives_as_long_as_its_soa_says() {
    let settings = Settings::new();
    let soa = soa(10);
    let denial = |rcode| response("a.test", &[(Count::Authority, Type::SOA, 60, &soa)], rcode);
    assert_eq!(seconds(&denial(Rcode::NXDOMAIN), &settings), Some(10));
    assert_eq!(seconds(&denial(Rcode::NOERROR), &settings), Some(10));
    assert_eq!(seconds(&response("a.test", &[], Rcode::NXDOMAIN), &settings), None);
    assert_eq!(seconds(&response("a.test", &[], Rcode::NOERROR), &settings), None);
    assert_eq!(seconds(&response("a.test", &[], Rcode::SERVFAIL), &settings), Some(5));
    assert_eq!(seconds(&response("a.test", &[], Rcode::REFUSED), &settings), None);
}

#[test]
fn zones_and_disable_keep_names_out() {
    let answer = response("a.test", &[(Count::Answer, Type::A, 60, &[1, 2, 3, 4])], Rcode::NOERROR);
    let mut settings = Settings::new();
    settings.zones = Some(vec![Name::parse("other").unwrap()]);
    assert_eq!(seconds(&answer, &settings), None);
    settings.zones = None;
    settings.disable_success = vec![Name::parse("test").unwrap()];
    assert_eq!(seconds(&answer, &settings), None);
}

#[test]
fn an_entry_ages_by_whole_seconds_and_ends() {
    let now = clock::now();
    let entry = entry("a.test", &Arc::new(Quota::new(10)), now);
    assert_eq!(entry.remaining(now + Duration::from_millis(1200)), 59);
    assert_eq!(entry.remaining(now + Duration::from_millis(59_999)), 1);
    assert_eq!(entry.remaining(now + Duration::from_secs(60)), 0);
    assert!(!entry.is_fresh(now + Duration::from_secs(60)));
}

#[test]
fn capacity_is_a_count_and_what_is_used_stays() {
    let now = clock::now();
    let cache = Cache::new(64 << 20);
    let quota = Arc::new(Quota::new(2000));
    for hot in 0..300 {
        store(&cache, &format!("hot{hot}"), &quota, now);
        asked(&cache, &format!("hot{hot}"));
    }
    for cold in 0..3000 {
        store(&cache, &format!("cold{cold}"), &quota, now);
    }
    assert_eq!(quota.entries(), 2000);
    assert_eq!(quota.evictions(), 1300);
    assert!((0..300).all(|hot| asked(&cache, &format!("hot{hot}"))));
}

#[test]
fn the_budget_bounds_all_routes_together() {
    let now = clock::now();
    let cache = Cache::new(1 << 20);
    let quotas = [Arc::new(Quota::new(100_000)), Arc::new(Quota::new(100_000))];
    for index in 0..20_000 {
        store(&cache, &format!("name{index}"), &quotas[index % 2], now);
    }
    let (used, budget) = cache.octets();
    assert!(used <= budget, "{used} of {budget} octets");
    assert_eq!(quotas[0].entries() + quotas[1].entries(), cache.len());
    assert_eq!(quotas[0].evictions() + quotas[1].evictions(), 20_000 - cache.len() as u64);
}

#[test]
fn prefetch_wants_popularity_near_the_end() {
    let now = clock::now();
    let entry = entry("a.test", &Arc::new(Quota::new(10)), now);
    let prefetch = Prefetch { amount: 2, duration: Duration::from_secs(60), percentage: 10 };
    let at = |seconds| now + Duration::from_secs(seconds);
    assert!(!entry.wants_prefetch(at(1), &prefetch));
    assert!(!entry.wants_prefetch(at(2), &prefetch), "popular, but not near its end");
    assert!(entry.wants_prefetch(at(54), &prefetch));
    assert!(entry.try_refresh(at(54)));
    assert!(!entry.try_refresh(at(55)), "one refresh at a time");
    entry.refresh_ended(at(55), Some(Duration::from_secs(3)));
    assert!(!entry.try_refresh(at(56)), "a failed refresh is not repeated at once");
    assert!(entry.try_refresh(at(58)));
}
