//! One upstream that stays in trouble: what it costs, and what clients get meanwhile.

use std::time::Duration;

use super::{BUDGET, MARGIN, Via, ask, over_each};
use crate::support::upstream::Door;
use crate::support::wire::*;

/// Checks would be counted among the attempts.
const UNCHECKED: &str = "max_fails 0";

#[test]
fn connections_that_are_reset_are_dialled_three_times() {
    for via in [Via::Tcp, Via::Tls] {
        let up = via.upstream();
        up.door(Door::Reset);
        let agent = via.agent(&[&up], UNCHECKED);
        let name = "ttl300.reset.test.";
        let (reply, took) = ask(&agent, name);
        assert_eq!((reply.rcode, reply.errors()), (SERVFAIL, vec![23]), "{via:?}");
        assert!(took < Duration::from_secs(1), "{via:?}: {took:?}");
        let dialled = up.connections();
        assert!((1..=3).contains(&dialled), "{via:?}: {dialled} connections");
        assert_eq!(up.connections(), dialled, "{via:?}: repeats cost nothing");
        up.door(Door::Open);
        let (reply, took) = ask(&agent, "ttl300.open.test.");
        assert!(reply.rcode == NOERROR && took < Duration::from_secs(1), "{via:?}: {took:?}");
    }
}

#[test]
fn a_port_that_takes_connections_and_says_nothing_is_given_up_in_time() {
    over_each(|via| {
        let up = via.upstream();
        match via {
            Via::Udp => up.change_all(Some("silent")),
            Via::Tcp | Via::Tls => up.door(Door::Mute),
        }
        let agent = via.agent(&[&up], UNCHECKED);
        let (reply, took) = ask(&agent, "ttl300.mute.test.");
        assert_eq!((reply.rcode, reply.errors()), (SERVFAIL, vec![22]), "{via:?}");
        assert!(took < BUDGET + MARGIN, "{via:?}: {took:?}");
        assert!(up.connections() <= 3, "{via:?}: {} connections", up.connections());
        up.change_all(None);
        up.door(Door::Open);
        let (reply, took) = ask(&agent, "ttl300.heard.test.");
        assert_eq!(reply.rcode, NOERROR, "{via:?}");
        assert!(took < Duration::from_millis(2500), "{via:?}: {took:?}");
    });
}
