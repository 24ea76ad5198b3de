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

fn deny(cache: &Cache, name: &str, quota: &Arc<Quota>, now: Instant) {
    let response = response(name, &[(Count::Authority, Type::SOA, 60, &soa(60))], Rcode::NXDOMAIN);
    let lifetime = Lifetime { class: Class::Denial, duration: Duration::from_secs(60), whole_name: true };
    let entry = Arc::new(Entry::new(response, &lifetime, now, quota));
    cache.store(cache.key(7, name.as_bytes()).to_key(), entry);
}

/// The quotas of a route with room for many entries of each kind.
fn roomy(cache: &Cache, route: u64) -> [Arc<Quota>; 2] {
    let mut settings = Settings::new();
    (settings.success.capacity, settings.denial.capacity) = (1_000_000, 1_000_000);
    cache.quotas(route, Some(&settings))
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
    assert_eq!(seconds(&response("a.test", &[], Rcode::SERVFAIL), &settings), None);
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
fn negative_entries_leave_positive_ones_in_place() {
    let now = clock::now();
    for (full, asked_for) in [(false, false), (true, true)] {
        let cache = Cache::new(8 << 20);
        let [success, denial] = roomy(&cache, 1);
        let (_, budget) = cache.octets();
        for index in 0.. {
            let name = format!("host{index}.test");
            store(&cache, &name, &success, now);
            assert!(!asked_for || asked(&cache, &name));
            if success.evictions() > 0 || !full && success.octets() > budget * 7 / 10 {
                break;
            }
        }
        let before = success.entries();
        for index in 0..50_000 {
            deny(&cache, &format!("random{index}.test"), &denial, now);
        }
        let (used, most) = (denial.octets(), budget / 4);
        assert!(used <= most && (full || used > most * 9 / 10), "{used} of {most} octets");
        assert!(success.entries() * 100 >= before * 98, "full: {full}: {} of {before}", success.entries());
    }
}

#[test]
fn a_flood_of_negative_names_takes_its_own_oldest() {
    let now = clock::now();
    let cache = Cache::new(4 << 20);
    let ([success, quiet], [_, flooded]) = (roomy(&cache, 1), roomy(&cache, 2));
    for index in 0..200 {
        store(&cache, &format!("host{index}.test"), &success, now);
        deny(&cache, &format!("quiet{index}.test"), &quiet, now);
        deny(&cache, &format!("used{index}.test"), &flooded, now);
        asked(&cache, &format!("used{index}.test"));
    }
    for index in 0..20_000 {
        deny(&cache, &format!("random{index}.test"), &flooded, now);
        if index % 100 == 0 {
            assert!((0..200).all(|used| asked(&cache, &format!("used{used}.test"))));
        }
    }
    assert!(quiet.octets() + flooded.octets() <= cache.octets().1 / 4);
    assert!((0..200).all(|index| asked(&cache, &format!("host{index}.test"))), "positive entries stay");
    assert!((0..200).all(|index| asked(&cache, &format!("quiet{index}.test"))), "and those of another route");
    assert!((0..200).all(|index| asked(&cache, &format!("used{index}.test"))), "and what is asked for");
    assert!(asked(&cache, "random19999.test") && !asked(&cache, "random0.test"), "the oldest unused ones go");
}

#[test]
fn a_route_that_comes_later_gets_its_part_of_the_negative_share() {
    let now = clock::now();
    let cache = Cache::new(4 << 20);
    let ([_, first], [_, second]) = (roomy(&cache, 1), roomy(&cache, 2));
    for index in 0..20_000 {
        deny(&cache, &format!("first{index}.test"), &first, now);
    }
    for index in 0..20_000 {
        deny(&cache, &format!("second{index}.test"), &second, now);
    }
    let (one, other) = (first.octets(), second.octets());
    assert!(one.abs_diff(other) < (one + other) / 20, "{one} and {other}");
    cache.remove(&cache.key(7, b"second19999.test"));
    assert!(second.octets() < other, "what goes gives its octets back");
}

#[test]
fn a_denial_that_finds_no_room_is_counted_and_pushes_nothing_out() {
    let now = clock::now();
    // A quarter of this holds no entry at all.
    let cache = Cache::new(1 << 10);
    let [_, denial] = roomy(&cache, 1);
    deny(&cache, "random.test", &denial, now);
    assert_eq!((cache.len(), cache.denials_refused(), denial.evictions()), (0, 1, 0));
    let cache = Cache::new(1 << 20);
    let [_, denial] = roomy(&cache, 1);
    deny(&cache, "random.test", &denial, now);
    assert_eq!((cache.len(), cache.denials_refused()), (1, 0));
}

#[test]
fn keys_of_entries_that_are_gone_do_not_pile_up() {
    let now = clock::now();
    let cache = Cache::new(1 << 20);
    let [success, _] = roomy(&cache, 1);
    for index in 0..50_000 {
        store(&cache, &format!("name{index}"), &success, now);
    }
    assert!(success.queued() < 2 * success.entries(), "{} keys, {} entries", success.queued(), success.entries());
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
    assert!(entry.try_refresh(at(54), 0));
    assert!(!entry.try_refresh(at(55), 0), "one refresh at a time");
    entry.refresh_ended(at(55), Some(Duration::from_secs(3)), 0);
    assert!(!entry.try_refresh(at(56), 0), "a failed refresh is not repeated at once");
    assert!(entry.try_refresh(at(58), 0));
}
