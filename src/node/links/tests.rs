use std::env;
use std::net::{SocketAddr, SocketAddrV6, UdpSocket};
use std::time::Duration;

use super::*;
use crate::node::namespace::{block_on, private, run};
use crate::node::status::Kind;

const NAME: &str = "nodelocaldns";

/// Set where the test has given up its capabilities.
const POWERLESS: &str = "DNSLET_TEST_POWERLESS";

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().expect("an address")).collect()
}

/// Both families: two addresses that only this node knows, and two as Services have them.
fn four() -> Vec<IpAddr> {
    ips(&["169.254.20.10", "10.96.0.10", "fd00:90::10", "fe80::20:10"])
}

/// A bridge stands in for the dummy link, which not every kernel has.
fn with_link() -> Links {
    Links::of_kind(InfoKind::Bridge).expect("netlink")
}

/// As on a kernel without dummy links: no kernel has links of this kind.
fn without_link() -> Links {
    Links::of_kind(InfoKind::Other("nosuchkind".to_owned())).expect("netlink")
}

/// Ensures, lets no trouble pass, and returns what was done.
async fn done(links: &mut Links, addresses: &[IpAddr]) -> Vec<Action> {
    let (actions, troubles) = links.ensure(NAME, addresses).await;
    assert_eq!(troubles, []);
    actions
}

/// Waits for a change, and gives up long after it should have been told.
async fn told(links: &mut Links) {
    timeout(Duration::from_secs(10), links.changed()).await.expect("the kernel tells of the change");
}

/// Whether nothing is waiting to be told. Events are queued before the command that causes them returns.
async fn quiet(links: &mut Links) -> bool {
    timeout(Duration::from_millis(50), links.changed()).await.is_err()
}

/// The addresses of an interface, as `address/prefix scope`, in the order the kernel has them.
fn on(link: &str) -> Vec<String> {
    let text = run(&format!("ip -o address show dev {link}"));
    let fields = text.lines().map(|line| line.split_whitespace().skip(3).take(3).collect::<Vec<_>>());
    fields.map(|field| format!("{} {}", field[0], field[2])).collect()
}

/// A server can use the addresses at once.
fn assert_usable(links: &Links) {
    let place = links.place().expect("a place");
    let scope = nix::net::if_::if_nametoindex(place).expect("an interface");
    for address in &links.interest.addresses {
        let socket = match address {
            IpAddr::V4(v4) => SocketAddr::from((*v4, 53)),
            IpAddr::V6(v6) => SocketAddrV6::new(*v6, 53, 0, scope).into(),
        };
        UdpSocket::bind(socket).unwrap_or_else(|error| panic!("{socket}: {error}"));
    }
}

#[test]
fn the_link_is_made_with_its_addresses_and_nothing_is_done_twice() {
    private(|| {
        block_on(async {
            let (mut links, addresses) = (with_link(), four());
            let actions = done(&mut links, &addresses).await;
            let added = [Action::AddressAdded; 4];
            assert_eq!(actions, [&[Action::LinkAdded][..], &added[..]].concat());
            assert_eq!(links.place(), Some(NAME));
            assert!(run("ip link show nodelocaldns").contains(",UP"));
            let there = on(NAME);
            for expected in ["169.254.20.10/32 global", "10.96.0.10/32 global", "fd00:90::10/128 global"] {
                assert!(there.contains(&expected.to_owned()), "{expected} in {there:?}");
            }
            assert_usable(&links);

            for _ in 0..1000 {
                assert_eq!(done(&mut links, &addresses).await, []);
            }
            // The kernel adds a link-local address of its own when it likes.
            let after = on(NAME);
            assert!(there.iter().all(|address| after.contains(address)) && after.len() <= 5, "{there:?} {after:?}");
        });
    });
}

/// Breaks something, waits for the kernel to tell, repairs, and returns what that took.
async fn repaired(links: &mut Links, addresses: &[IpAddr], breakage: &str) -> Vec<Action> {
    while !quiet(links).await {}
    run(breakage);
    told(links).await;
    let actions = done(links, addresses).await;
    assert_eq!(done(links, addresses).await, [], "{breakage}: one repair is enough");
    assert_usable(links);
    actions
}

#[test]
fn what_is_lost_comes_back_as_soon_as_the_kernel_tells() {
    private(|| {
        block_on(async {
            let (mut links, addresses) = (with_link(), ips(&["169.254.20.10", "10.96.0.10", "fd00:90::10"]));
            done(&mut links, &addresses).await;
            let one = [Action::AddressAdded];
            let cases: [(&str, &[Action]); 7] = [
                ("ip address del 169.254.20.10/32 dev nodelocaldns", &one),
                ("ip address del fd00:90::10/128 dev nodelocaldns", &one),
                ("ip address flush dev nodelocaldns scope global", &[Action::AddressAdded; 3]),
                // The kernel takes IPv6 addresses off an interface that goes down.
                ("ip link set nodelocaldns down", &[Action::LinkUp, Action::AddressAdded]),
                ("ip link del nodelocaldns", &[Action::LinkAdded, one[0], one[0], one[0]]),
                ("ip link set nodelocaldns down && ip link set nodelocaldns name other", &[Action::LinkAdded, one[0]]),
                ("ip link del other", &[one[0]; 2]),
            ];
            for (breakage, expected) in cases {
                assert_eq!(repaired(&mut links, &addresses, breakage).await, expected, "{breakage}");
            }
        });
    });
}

#[test]
fn on_lo_too_what_is_lost_comes_back() {
    private(|| {
        block_on(async {
            let (mut links, addresses) = (without_link(), ips(&["169.254.20.10", "10.96.0.10", "fd00:90::10"]));
            let one = Action::AddressAdded;
            assert_eq!(done(&mut links, &addresses).await, [one; 3]);
            assert_eq!(links.place(), Some("lo"));
            let there = on("lo");
            assert!(there.contains(&"169.254.20.10/32 host".to_owned()), "{there:?}");
            told(&mut links).await;
            while !quiet(&mut links).await {}
            for _ in 0..1000 {
                assert_eq!(done(&mut links, &addresses).await, []);
            }
            assert_eq!(on("lo"), there);
            assert!(quiet(&mut links).await, "a thousand calls that change nothing cause no event");
            let cases: [(&str, &[Action]); 3] = [
                ("ip address del 10.96.0.10/32 dev lo", &[one]),
                ("ip address del fd00:90::10/128 dev lo", &[one]),
                ("ip link set lo down", &[Action::LinkUp, one]),
            ];
            for (breakage, expected) in cases {
                assert_eq!(repaired(&mut links, &addresses, breakage).await, expected, "{breakage}");
            }
        });
    });
}

#[test]
fn what_happens_to_others_is_no_change() {
    private(|| {
        block_on(async {
            let mut links = without_link();
            done(&mut links, &four()).await;
            while !quiet(&mut links).await {}
            run("ip link add cali0 type veth peer name eth0 && ip link set cali0 up && ip link set eth0 up");
            run("ip address add 10.0.0.1/24 dev cali0 && ip address add fd00:1::1/64 dev cali0 && ip link del cali0");
            assert!(quiet(&mut links).await);
            run("ip address del 10.96.0.10/32 dev lo");
            told(&mut links).await;
        });
    });
}

#[test]
fn another_instance_takes_over_what_is_there() {
    private(|| {
        block_on(async {
            let addresses = four();
            done(&mut with_link(), &addresses).await;
            let mut second = with_link();
            assert_eq!(done(&mut second, &addresses).await, []);
            assert_eq!(second.place(), Some(NAME));
            let kept = ips(&["169.254.20.10", "fd00:90::10"]);
            let removed = second.remove(NAME, &kept).await;
            assert_eq!(removed, ["10.96.0.10 from nodelocaldns", "fe80::20:10 from nodelocaldns"]);
            done(&mut second, &kept).await;
            assert_usable(&second);
            assert_eq!(with_link().remove(NAME, &[]).await, ["interface nodelocaldns"]);
            assert_eq!(with_link().remove(NAME, &[]).await, [""; 0]);
            assert!(!run("ip link").contains(NAME));
        });
    });
}

#[test]
fn an_interface_of_another_kind_is_left_alone() {
    private(|| {
        block_on(async {
            run("ip link add nodelocaldns type bridge && ip address add 10.0.0.1/24 dev nodelocaldns");
            let before = run("ip -d address show");
            let mut links = Links::connect().expect("netlink");
            let (actions, troubles) = links.ensure(NAME, &four()).await;
            assert_eq!(actions, []);
            let [trouble] = troubles.as_slice() else { panic!("{troubles:?}") };
            assert_eq!(trouble.kind, Kind::InterfaceAdd);
            for said in ["nodelocaldns is a bridge", "169.254.20.10, 10.96.0.10,", "serving goes on", "-interfacename"]
            {
                assert!(trouble.text.contains(said), "{said:?} in {:?}", trouble.text);
            }
            assert_eq!(links.remove(NAME, &[]).await, [""; 0]);
            assert_eq!(run("ip -d address show"), before);

            // An alternative name does not make it ours either.
            run("ip link set nodelocaldns name br0 && ip link property add dev br0 altname nodelocaldns");
            let mut links = with_link();
            assert_eq!(links.ensure(NAME, &four()).await.1.len(), 1);
            assert_eq!(links.remove(NAME, &[]).await, [""; 0]);
            assert!(run("ip address show br0").contains("10.0.0.1/24"));
        });
    });
}

#[test]
fn an_address_that_another_interface_has_stays_there() {
    private(|| {
        block_on(async {
            run("ip link add kube-ipvs0 type bridge && ip address add 10.96.0.10/32 dev kube-ipvs0");
            let (mut links, addresses) = (with_link(), ips(&["10.96.0.10"]));
            assert_eq!(done(&mut links, &addresses).await, [], "not even an interface is needed");
            assert_eq!(links.place(), Some("kube-ipvs0"));
            let both = ips(&["169.254.20.10", "10.96.0.10"]);
            assert_eq!(done(&mut links, &both).await, [Action::LinkAdded, Action::AddressAdded]);
            assert_eq!(links.place(), Some(NAME));
            assert_eq!(links.remove(NAME, &[]).await, ["interface nodelocaldns"]);
            assert_eq!(on("kube-ipvs0"), ["10.96.0.10/32 global"]);

            done(&mut links, &both).await;
            let actions = repaired(&mut links, &both, "ip link del kube-ipvs0").await;
            assert_eq!(actions, [Action::AddressAdded]);
            assert!(on(NAME).contains(&"10.96.0.10/32 global".to_owned()));
        });
    });
}

#[test]
fn of_lo_only_what_was_put_there_is_removed() {
    private(|| {
        block_on(async {
            run("ip address add 10.96.0.10/32 dev lo && ip address add fd00:90::10/128 dev lo");
            run("ip address add 127.0.0.9/32 dev lo scope host");
            let before = on("lo");
            let addresses = ips(&["169.254.20.10", "10.96.0.10", "fd00:90::10", "fd00:90::11"]);
            let mut links = without_link();
            assert_eq!(done(&mut links, &addresses).await, [Action::AddressAdded; 2]);
            for placed in links.rtnl.addresses().await.expect("netlink") {
                let ours = ["169.254.20.10", "fd00:90::11"].contains(&placed.address.to_string().as_str());
                assert_eq!(placed.marked, ours, "{placed:?}");
                // The only sign on kernels before 5.18.
                assert!(placed.alike || !ours, "{placed:?}");
                assert!(!placed.alike || ours || placed.address.is_loopback(), "{placed:?}");
            }

            // A process that starts later knows them again, and one that knows no address does, too.
            let mut links = without_link();
            done(&mut links, &addresses).await;
            assert_eq!(links.remove(NAME, &ips(&["169.254.20.10"])).await, ["fd00:90::11 from lo"]);
            assert_eq!(without_link().remove(NAME, &[]).await, ["169.254.20.10 from lo"]);
            assert_eq!(on("lo"), before);
        });
    });
}

#[test]
fn where_ipv6_is_disabled_ipv4_goes_on() {
    private(|| {
        block_on(async {
            run("sysctl -q -w net.ipv6.conf.default.disable_ipv6=1 net.ipv6.conf.lo.disable_ipv6=1");
            for mut links in [with_link(), without_link()] {
                let (actions, troubles) = links.ensure(NAME, &four()).await;
                assert_eq!(actions.iter().filter(|action| **action == Action::AddressAdded).count(), 2);
                let [trouble] = troubles.as_slice() else { panic!("{troubles:?}") };
                let place = links.place().expect("a place").to_owned();
                let start =
                    format!("IPv6 is disabled on {place}, which therefore cannot have fd00:90::10 and fe80::20:10");
                assert!(trouble.text.starts_with(&start) && trouble.text.contains("IPv4 goes on"), "{trouble}");
                assert_eq!(links.ensure(NAME, &four()).await, (vec![], troubles.clone()), "the same words each time");

                while !quiet(&mut links).await {}
                run(&format!("sysctl -q -w net.ipv6.conf.{place}.disable_ipv6=0"));
                if place == "lo" {
                    told(&mut links).await;
                }
                assert_eq!(done(&mut links, &four()).await, [Action::AddressAdded; 2]);
                links.remove(NAME, &[]).await;
            }
        });
    });
}

#[test]
fn without_rights_it_says_so_once_and_what_is_there_will_do() {
    if env::var_os(POWERLESS).is_some() {
        return block_on(powerless());
    }
    private(|| {
        let itself = env::current_exe().expect("the test's binary");
        let test = "node::links::tests::without_rights_it_says_so_once_and_what_is_there_will_do";
        let drop = "setpriv --bounding-set=-net_admin --inh-caps=-net_admin";
        let powerless = format!("{POWERLESS}=1 {drop} {} --exact {test} --nocapture", itself.display());
        assert!(run(&powerless).contains("1 passed"));
        run("ip address add 169.254.20.10/32 dev lo && ip address add 10.96.0.10/32 dev lo");
        run("ip address add fd00:90::10/128 dev lo && ip address add fe80::20:10/128 dev lo");
        assert!(run(&powerless.replacen("=1", "=placed", 1)).contains("1 passed"));
    });
}

async fn powerless() {
    let mut links = Links::connect().expect("netlink");
    let (actions, troubles) = links.ensure(NAME, &four()).await;
    assert_eq!(actions, []);
    if env::var(POWERLESS).is_ok_and(|value| value == "placed") {
        assert_eq!((troubles, links.place()), (vec![], Some("lo")));
        return;
    }
    let [trouble] = troubles.as_slice() else { panic!("{troubles:?}") };
    for said in ["169.254.20.10, 10.96.0.10,", "lacks CAP_NET_ADMIN", "serving goes on", "-setupinterface=false"] {
        assert!(trouble.text.contains(said), "{said:?} in {:?}", trouble.text);
    }
    assert_eq!(links.place(), None);
}

#[test]
fn a_lost_connection_is_made_again() {
    private(|| {
        block_on(async {
            let mut links = with_link();
            links.rtnl.connection.abort();
            while !links.rtnl.broken() {
                tokio::task::yield_now().await;
            }
            assert_eq!(done(&mut links, &four()).await.len(), 5);
        });
    });
}
