//! Which servers know the cluster's names, as the Corefile tells it.

use std::net::SocketAddr;

use crate::dns::Name;
use crate::routes::Routes;
use crate::upstream::Transport;
use crate::upstream::spec::Target;

/// The addresses that the first zone which is neither the root nor below `arpa` is forwarded to by classic DNS. In the
/// Corefile of NodeLocal DNSCache that is the cluster's domain; stub domains come after it.
pub(super) fn servers(routes: &Routes) -> Vec<SocketAddr> {
    let arpa = Name::parse("arpa").expect("a name");
    let is_cluster = |zone: &Name| *zone != Name::root() && !zone.is_under(&arpa);
    let cluster = routes.routes.iter().find(|route| route.zones.iter().any(is_cluster));
    let targets = cluster.iter().flat_map(|route| &route.forwards).flat_map(|forward| &forward.spec.targets);
    let classic = targets.filter_map(|target| match target {
        Target::Address(address) if address.transport == Transport::Plain => Some(address.socket),
        _ => None,
    });
    classic.collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::routes::{Sources, load};

    #[test]
    fn the_first_zone_that_is_neither_root_nor_reverse_counts() {
        let text = "
            . { forward . 192.0.2.1 }
            in-addr.arpa:53 { forward . 192.0.2.2 }
            cluster.local { forward . 10.96.0.10 tls://10.96.0.11 [fd00::10]:5353 }
            stub.example { forward . 192.0.2.3 }"
            .replace(" }", "\n}")
            .replace("{ ", "{\n");
        let machine = Sources { default_port: 53, interfaces: Vec::new() };
        let loaded = load(Path::new("Corefile"), &text, &mut |_| Ok(Vec::new()), &|_| None, &machine);
        let routes = loaded.routes.expect("the text is right");
        let found: Vec<String> = servers(&routes).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["10.96.0.10:53", "[fd00::10]:5353"]);
    }
}
