//! Load balancing by the order of addresses, done on the bytes of a reply.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::dns::header::{self, Count, LENGTH};
use crate::dns::{Expanded, Record, Type, question};
use crate::plugins::front::weights::Weights;

/// The most addresses of one reply that are put into another order.
const MOST: usize = 128;

/// The kinds of addresses and how many octets each has.
const KINDS: [(Type, usize); 2] = [(Type::A, 4), (Type::AAAA, 16)];

/// The addresses of one owner.
struct Places {
    /// Where the owner of the first one stands.
    owner: usize,
    /// Where the RDATA of each stands,
    rdata: [u16; MOST],
    /// for so many.
    count: usize,
}

/// Puts the addresses of each kind in the answer section into a random order, those of a lower rank first. Only RDATA of
/// equal length changes places and all records of a reply have one TTL, so no pointer and no count changes.
pub(super) fn addresses(reply: &mut [u8], mut random: impl FnMut() -> u32, rank: impl Fn(IpAddr) -> usize) {
    for (rtype, length) in KINDS {
        let Some(Places { rdata, count, .. }) = places(reply, rtype, length) else { continue };
        let places = &rdata[..count];
        for last in (1..count).rev() {
            let other = random() as usize % (last + 1);
            swap(reply, places[last], places[other], length);
        }
        // By insertion, which keeps the random order within a rank and costs nothing where there is only one.
        for next in 1..count {
            for at in (1..=next).rev() {
                if rank(address(reply, places[at], length)) >= rank(address(reply, places[at - 1], length)) {
                    break;
                }
                swap(reply, places[at], places[at - 1], length);
            }
        }
    }
}

/// Lets one address of each kind in the answer section change places with the first, chosen by the weights of their
/// owner. An owner that has none is left as it is.
pub(super) fn weighted(reply: &mut [u8], mut random: impl FnMut() -> u32, weights: &Weights) {
    for (rtype, length) in KINDS {
        let Some(Places { owner, rdata, count }) = places(reply, rtype, length) else { continue };
        let places = &rdata[..count];
        let Some(domain) = Expanded::read(reply, owner).and_then(|(name, _)| weights.domain(name.as_wire())) else {
            continue;
        };
        let weight = |at: u16| u32::from(domain.weight(address(reply, at, length)));
        let sum: u32 = places.iter().map(|&at| weight(at)).sum();
        let mut left = random() % sum;
        let chosen = places.iter().copied().find(|&at| {
            let before = left;
            left = left.wrapping_sub(weight(at));
            before < weight(at)
        });
        swap(reply, places[0], chosen.expect("the number is below the sum of all weights"), length);
    }
}

/// Where the first RRset of a type stands, if there are several records in it.
fn places(reply: &[u8], rtype: Type, length: usize) -> Option<Places> {
    let mut places = Places { owner: 0, rdata: [0; MOST], count: 0 };
    let mut at = question::question_end(reply).filter(|&at| at >= LENGTH)?;
    for _ in 0..header::count(reply, Count::Answer) {
        let Some(record) = Record::read(reply, at) else { break };
        at = record.end;
        if record.rtype != rtype || record.end - record.rdata != length || places.count == MOST {
            continue;
        }
        if places.count == 0 {
            places.owner = record.start;
        } else if !same_owner(reply, places.owner, record.start) {
            continue;
        }
        places.rdata[places.count] = record.rdata as u16;
        places.count += 1;
    }
    (places.count > 1).then_some(places)
}

/// Owners of one RRset are the same pointer, or the first is written out and the others point to it.
fn same_owner(reply: &[u8], first: usize, other: usize) -> bool {
    if reply[other] >= 0xc0 {
        let target = usize::from(header::read_u16(reply, other) & 0x3fff);
        return target == first || reply[first..first + 2] == reply[other..other + 2];
    }
    false
}

fn swap(reply: &mut [u8], one: u16, other: u16, length: usize) {
    for octet in 0..length {
        reply.swap(usize::from(one) + octet, usize::from(other) + octet);
    }
}

fn address(reply: &[u8], at: u16, length: usize) -> IpAddr {
    let octets = &reply[usize::from(at)..usize::from(at) + length];
    match length {
        4 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(octets).expect("four octets"))),
        _ => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(octets).expect("sixteen octets"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::{Builder, Query, Rcode, Response, reply};

    fn reply_with(addresses: &[[u8; 4]]) -> Vec<u8> {
        let query = b"\0\0\x01\0\0\x01\0\0\0\0\0\0\x01a\0\0\x01\0\x01";
        let mut builder = Builder::new(query, query.len(), [0x80, 0x80]);
        for rdata in addresses {
            builder.add(Count::Answer, b"\x01a\0", Type::A, 30, rdata).unwrap();
        }
        let response: Response = builder.build(Rcode::NOERROR, Vec::new());
        let mut out = vec![0; 512];
        let shape = reply::Shape { limit: 512, ..Default::default() };
        let length = reply::write(&Query::parse(query).unwrap(), &response, shape, &mut out);
        out.truncate(length);
        out
    }

    fn order(reply: &[u8]) -> Vec<u8> {
        let places = places(reply, Type::A, 4).unwrap();
        places.rdata[..places.count].iter().map(|&at| reply[usize::from(at) + 3]).collect()
    }

    #[test]
    fn every_order_comes_up_and_every_address_stays() {
        let mut seen = std::collections::HashSet::new();
        let mut state = 1u32;
        for _ in 0..200 {
            let mut reply = reply_with(&[[10, 0, 0, 1], [10, 0, 0, 2], [10, 0, 0, 3]]);
            let random = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                state >> 8
            };
            addresses(&mut reply, random, |_| 0);
            let mut sorted = order(&reply);
            seen.insert(sorted.clone());
            sorted.sort_unstable();
            assert_eq!(sorted, [1, 2, 3]);
        }
        assert_eq!(seen.len(), 6);
    }

    #[test]
    fn preferred_addresses_come_first() {
        let mut reply = reply_with(&[[10, 0, 0, 1], [10, 1, 0, 2], [10, 0, 0, 3], [10, 1, 0, 4]]);
        let rank = |address: IpAddr| usize::from(!matches!(address, IpAddr::V4(v4) if v4.octets()[1] == 1));
        addresses(&mut reply, || 0, rank);
        let order = order(&reply);
        assert!(order[..2].iter().all(|last| [2, 4].contains(last)), "{order:?}");
    }

    #[test]
    fn the_first_address_is_chosen_by_weight() {
        let weights = Weights::parse("A\n10.0.0.2 6\n10.0.0.3 3").unwrap();
        let mut first = [0; 4];
        for number in 0..1000 {
            let mut reply = reply_with(&[[10, 0, 0, 1], [10, 0, 0, 2], [10, 0, 0, 3]]);
            weighted(&mut reply, || number, &weights);
            let mut order = order(&reply);
            first[usize::from(order[0])] += 1;
            order.sort_unstable();
            assert_eq!(order, [1, 2, 3]);
        }
        assert_eq!(first, [0, 100, 600, 300]);
        let mut reply = reply_with(&[[10, 0, 0, 1], [10, 0, 0, 2]]);
        weighted(&mut reply, || 1, &Weights::parse("b\n10.0.0.2 255").unwrap());
        assert_eq!(order(&reply), [1, 2], "nothing is said of this name");
    }
}
