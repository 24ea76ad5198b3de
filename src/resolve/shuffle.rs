//! Load balancing by the order of addresses, done on the bytes of a reply.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::dns::header::{self, Count, LENGTH};
use crate::dns::{Record, Type, question};

/// The most addresses of one reply that are put into another order.
const MOST: usize = 128;

/// Puts the addresses of each kind in the answer section into a random order, those of a lower rank first. Only RDATA of
/// equal length changes places and all records of a reply have one TTL, so no pointer and no count changes.
pub(super) fn addresses(reply: &mut [u8], mut random: impl FnMut() -> u32, rank: impl Fn(IpAddr) -> usize) {
    for (rtype, length) in [(Type::A, 4), (Type::AAAA, 16)] {
        let (places, count) = places(reply, rtype, length);
        let places = &places[..count];
        if count < 2 {
            continue;
        }
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

/// Where the RDATA of the first RRset of a type stands.
fn places(reply: &[u8], rtype: Type, length: usize) -> ([u16; MOST], usize) {
    let mut places = [0; MOST];
    let mut count = 0;
    let Some(mut at) = question::question_end(reply).filter(|&at| at >= LENGTH) else { return (places, 0) };
    let mut owner: Option<usize> = None;
    for _ in 0..header::count(reply, Count::Answer) {
        let Some(record) = Record::read(reply, at) else { break };
        at = record.end;
        if record.rtype != rtype || record.end - record.rdata != length || count == MOST {
            continue;
        }
        let same = owner.is_none_or(|first| same_owner(reply, first, record.start));
        if same {
            owner = owner.or(Some(record.start));
            places[count] = record.rdata as u16;
            count += 1;
        }
    }
    (places, count)
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
        let (places, count) = places(reply, Type::A, 4);
        places[..count].iter().map(|&at| reply[usize::from(at) + 3]).collect()
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
}
