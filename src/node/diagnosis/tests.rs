use super::super::firewall::Base;
use super::super::namespace::{block_on, private, run};
use super::*;
use std::net::{SocketAddr, UdpSocket};

fn question() -> Question {
    Question { link: "cachelink".to_owned(), addresses: Vec::new(), ports: [53, 8080], rules: Rules::Nftables }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Sends one datagram to port 53 of the address and gives its own address.
fn send(to: &str) -> SocketAddr {
    let client = UdpSocket::bind("0.0.0.0:0").unwrap();
    client.connect((to, 53)).unwrap();
    client.send(b"x").unwrap();
    client.local_addr().unwrap()
}

#[test]
fn an_empty_network_has_nothing_and_hides_nothing() {
    private(|| {
        let facts = block_on(look(&question()));
        assert_eq!((facts.link, facts.tables), (Ok(None), Ok(Vec::new())));
        assert_eq!(facts.tracked, Ok(Tracked { complete: true, ..Tracked::default() }));
        assert!(facts.addresses.is_empty() && facts.places.is_empty());
        assert_eq!(facts.placeable, Ok(Rules::Nftables));
        assert_eq!(facts.iptables, Ok(Chains::default()));
    });
}

#[test]
fn the_interface_and_its_addresses_are_found() {
    private(|| {
        run("ip link add cachelink type bridge && ip addr add 169.254.20.10/32 dev cachelink");
        let facts = block_on(look(&question()));
        let link = facts.link.unwrap().unwrap();
        assert_eq!((link.kind.as_deref(), link.up), (Some("bridge"), false));
        run("ip link set cachelink up && ip addr add 10.96.0.10/32 dev lo");
        let facts = block_on(look(&question()));
        assert!(facts.link.unwrap().unwrap().up);
        assert_eq!(facts.addresses, [ip("169.254.20.10")]);
        let both = [ip("169.254.20.10"), ip("10.96.0.10"), ip("192.0.2.1")];
        let facts = block_on(look(&Question { addresses: both.to_vec(), ..question() }));
        let places: Vec<&[String]> = both.iter().map(|address| facts.places[address].as_slice()).collect();
        assert_eq!(places, [&["cachelink".to_owned()][..], &["lo".to_owned()], &[]]);
    });
}

#[test]
fn rules_in_force_are_counted_with_their_process_and_tracked_packets_are_found() {
    private(|| {
        run("ip addr add 169.254.20.10/32 dev lo && ip addr add 10.96.0.10/32 dev lo");
        let (local, service) = (ip("169.254.20.10"), ip("10.96.0.10"));
        let base = Base {
            addresses: vec![local, service],
            dns_port: 53,
            health_port: 8080,
            fallback: vec!["127.0.0.1:5300".parse().unwrap()],
        };
        // The rules' own time ends with the runtime's.
        block_on(async {
            let (mut firewall, trouble) = Firewall::choose(Rules::Nftables).await;
            assert_eq!(trouble, None);
            firewall.base(&base).await.unwrap();
            firewall.intercept(&[service].into()).await.unwrap();
            // Without it the refusals, which go to the same address, would be counted as well.
            let _server = UdpSocket::bind("10.96.0.10:53").unwrap();
            send("10.96.0.10");
            send("10.96.0.10");
            let client = send("169.254.20.10");
            let facts = look(&question()).await;
            assert_eq!(facts.addresses, [service, local]);
            let tables = facts.tables.unwrap();
            let [base, instance] = tables.as_slice() else { panic!("{tables:?}") };
            assert_eq!((base.name.as_str(), &base.holder), ("dnslet", &None));
            assert_eq!(base.fallback, [(local, 1)].into());
            // Each packet is seen where it leaves and where it arrives.
            assert_eq!(instance.intercepted, [(service, 4)].into());
            let me = format!("(pid {})", std::process::id());
            assert!(instance.holder.as_ref().is_some_and(|holder| holder.ends_with(&me)), "{instance:?}");
            let tracked = facts.tracked.unwrap();
            assert_eq!((tracked.entries, tracked.complete), ([(local, 1)].into(), true));
            let example = tracked.example.unwrap();
            assert_eq!(example, format!("UDP from {client} to 169.254.20.10:53"));
            assert!(facts.kernel.tracked.is_some_and(|(entries, most)| entries >= 1 && most > 1), "{:?}", facts.kernel);
        });
    });
}

#[test]
fn rules_of_node_cache_are_found() {
    private(|| {
        run("iptables -t raw -A PREROUTING -d 10.96.0.10/32 -p udp --dport 53 -m comment \
             --comment 'NodeLocal DNS Cache: skip conntrack' -j NOTRACK");
        let facts = block_on(look(&question()));
        let node_cache_addresses = [[10, 96, 0, 10].into()].into();
        assert_eq!(facts.iptables, Ok(Chains { node_caches: 1, node_cache_addresses, ..Chains::default() }));
    });
}
