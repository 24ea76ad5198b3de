//! Ten minutes without any upstream, many names long: every query is answered, and each name is asked for seldom.
//!
//! `DNSLET_OUTAGE_NAMES=10000` makes it two thousand queries a second.

use std::collections::HashMap;
use std::time::Duration;

use super::play::Player;
use super::script::{Entry, Script, Step};
use crate::support::wire::{A, NOERROR};
use crate::support::{Message, Query};

/// Each name is asked for every five seconds.
const ROUND: Duration = Duration::from_secs(5);
const OUTAGE: Duration = Duration::from_secs(600);
/// The pause after a failed refresh (RFC 8767 section 5).
const PAUSE: Duration = Duration::from_secs(30);

/// How many names are asked for.
fn names() -> usize {
    std::env::var("DNSLET_OUTAGE_NAMES").map_or(1_000, |names| names.parse().expect("a number of names"))
}

fn name(number: usize) -> String {
    format!("n{number}.outage.test.")
}

#[test]
fn ten_minutes_without_upstreams_are_not_seen_by_clients() {
    outage("verify");
}

#[test]
fn nor_are_they_where_expired_answers_are_used_first() {
    outage("immediate");
}

fn outage(mode: &str) {
    let cache = format!("cache {{\n success 20000 60\n serve_stale 24h {mode}\n}}");
    let mut world = Player::new(&format!("{cache}\nforward . 192.0.2.53"));
    answering(&mut world, 1);
    let fresh = round(&mut world, |reply| assert_eq!((reply.errors(), reply.ttls()), (vec![], vec![60])));
    assert_eq!(fresh.values().sum::<usize>(), names());
    world.play(Step::TimePasses(Duration::from_secs(60))).expect("time passes");

    for number in 0..names() {
        world.play(Step::Upstream { name: name(number), kind: A, entry: Entry::Timeout }).expect("an entry");
    }
    let mut asked: HashMap<String, usize> = HashMap::new();
    for _ in 0..OUTAGE.as_secs() / ROUND.as_secs() {
        for (name, count) in round(&mut world, |reply| assert_eq!((reply.errors(), reply.ttls()), (vec![3], vec![30])))
        {
            *asked.entry(name).or_default() += count;
        }
    }
    let most = asked.values().max().expect("refreshes were tried");
    let allowed = (OUTAGE.as_secs() / PAUSE.as_secs()) as usize + 1;
    println!("{} upstream queries, at most {most} for one name", asked.values().sum::<usize>());
    assert_eq!(asked.len(), names(), "every name was tried again");
    assert!(*most <= allowed, "one name was asked for {most} times, {allowed} are allowed");

    answering(&mut world, 2);
    let mut rounds = 0;
    while round(&mut world, |_| ()).values().sum::<usize>() > 0 {
        rounds += 1;
        assert!(ROUND * rounds <= PAUSE + ROUND * 2, "all names are fresh after {rounds} rounds");
    }
    round(&mut world, |reply| {
        assert_eq!((reply.errors(), &reply.answers[0].data[..]), (vec![], &[192, 0, 2, 2][..]));
    });
}

/// From now on the upstream answers every name with this address.
fn answering(world: &mut Player, octet: u8) {
    let mut script = "CONFIG\nCONFIG_END\n".to_owned();
    for number in 0..names() {
        let name = name(number);
        script += &format!("STEP {} UPSTREAM {name} A\nNOERROR RA\nANSWER {name} 600 A 192.0.2.{octet}\n", number + 1);
    }
    for (_, step) in Script::parse(&script).steps {
        world.play(step).expect("an entry");
    }
}

/// Asks for every name once, spread over the length of a round, and refreshes what wants to be. Every reply must have an
/// answer and pass `check`. Returns how often the upstream was asked for what.
#[track_caller]
fn round(world: &mut Player, check: impl Fn(&Message)) -> HashMap<String, usize> {
    for number in 0..names() {
        let query = Query::new(&name(number), A).edns(1232);
        world.play(Step::Query { query, tcp: false }).expect("an upstream for every name");
        let reply = world.reply().expect("every query is answered");
        assert_eq!((reply.rcode, reply.answers.len()), (NOERROR, 1));
        check(&reply);
        world.refresh().expect("an upstream for every name");
        world.play(Step::TimePasses(ROUND / names() as u32)).expect("time passes");
    }
    let mut counts = HashMap::new();
    for query in world.take_asked() {
        *counts.entry(query.split(' ').next().expect("a name").to_owned()).or_default() += 1;
    }
    counts
}
