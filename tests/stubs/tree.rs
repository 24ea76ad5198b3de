//! What there is to be found: a cluster's zone as CoreDNS's kubernetes plugin would serve it, and everything outside.

/// The names are long on purpose: three labels of 63 octets.
pub const LONG: &str = "aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffff123.\
                        bbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffgggggggggg123.\
                        ccccccccccddddddddddeeeeeeeeeeffffffffffgggggggggghhhhhhhhhh123";

/// The top-level domains; those that are namespaces as well come first.
pub const TOPS: [&str; 5] = ["com", "dev", "org", "io", "net"];

/// `cluster.local`: denials live for five seconds, and what has names beneath it exists (RFC 8020).
pub fn cluster() -> (&'static str, String) {
    let zone = "$ORIGIN cluster.local.\n$TTL 30\n@ 5 IN SOA ns.dns hostmaster 1 7200 1800 86400 5\n@ NS ns.dns\n\
        ns.dns A 10.96.0.10\ndns-version TXT 1.1.0\n\
        kubernetes.default.svc A 10.96.0.1\n_https._tcp.kubernetes.default.svc SRV 0 100 443 kubernetes.default.svc\n\
        web.default.svc A 10.96.1.1\n_http._tcp.web.default.svc SRV 0 100 80 web.default.svc\n\
        six.default.svc AAAA fd00:96::6\ndual.default.svc A 10.96.1.2\ndual.default.svc AAAA fd00:96::2\n\
        ext.default.svc CNAME www.example.com.\next-six.default.svc CNAME six.example.org.\n\
        ext-gone.default.svc CNAME missing.example.net.\next-text.default.svc CNAME text.example.io.\n\
        ext-in.default.svc CNAME web.shop.svc.cluster.local.\n\
        10-1-2-3.default.pod A 10.1.2.3\n\
        web.shop.svc A 10.96.2.1\n_http._tcp.web.shop.svc SRV 0 50 80 web.shop.svc\n\
        _http._tcp.web.shop.svc SRV 0 50 8080 web.shop.svc\ncart.shop.svc A 10.96.2.2\n\
        six.shop.svc AAAA fd00:96:2::6\next.shop.svc CNAME alias.example.dev.\n\
        db.data.svc A 10.1.3.1\ndb.data.svc A 10.1.3.2\npod-0.db.data.svc A 10.1.3.1\npod-1.db.data.svc A 10.1.3.2\n\
        _pg._tcp.db.data.svc SRV 0 50 5432 pod-0.db.data.svc\n_pg._tcp.db.data.svc SRV 0 50 5432 pod-1.db.data.svc\n\
        web.data.svc A 10.96.3.1\nqueue.data.svc A 10.96.3.2\nqueue.data.svc AAAA fd00:96:3::2\n\
        shop.dev.svc A 10.96.4.1\nweb.dev.svc A 10.96.4.2\nmixed.dev.svc A 10.96.4.3\n\
        shop.com.svc A 10.96.5.1\nmixed.com.svc AAAA fd00:96:5::3\n\
        api-gateway.kube-system.svc A 10.96.6.1\n";
    ("cluster.local", zone.to_owned())
}

/// Everything else, in one zone: a recursive resolver's view. `wildcard`: the host's domain answers for every name.
pub fn outside(wildcard: bool) -> (&'static str, String) {
    let mut zone = "$ORIGIN .\n$TTL 300\n@ 60 IN SOA a.root-servers.net. nstld.net. 1 1800 900 604800 30\n\
        @ NS a.root-servers.net.\na.root-servers.net. A 198.41.0.4\n"
        .to_owned();
    for (number, top) in TOPS.into_iter().enumerate() {
        zone.push_str(&domain(top, number));
    }
    zone.push_str(
        "shop.dev. A 203.0.113.1\nweb.dev. AAAA 2001:db8:d::2\ncart.dev. A 203.0.113.2\nmixed.dev. AAAA 2001:db8:d::3\n\
         shop.com. A 203.0.113.4\nmixed.com. A 203.0.113.5\nwww.shop.com. A 203.0.113.6\npay.com. A 203.0.113.7\n\
         web.shop. A 203.0.113.8\nalone.shop. A 203.0.113.9\nsingle. A 203.0.113.10\n\
         a.b.c.d.e.f.io. A 203.0.113.11\n",
    );
    zone.push_str(
        "intranet.corp.example. A 10.9.0.1\ngit.corp.example. A 10.9.0.2\ngit.corp.example. AAAA 2001:db8:9::2\n\
         six.corp.example. AAAA 2001:db8:9::6\nweb.corp.example. A 10.9.0.3\napi.corp.example. A 10.9.0.4\n\
         mail.corp.example. MX 10 git.corp.example.\nalias.corp.example. CNAME www.example.org.\n\
         gone.corp.example. CNAME missing.example.io.\nbuild.ci.corp.example. A 10.9.0.5\n\
         both.shop.corp.example. A 10.9.0.6\nmissing.com.corp.example. A 10.9.0.7\na.b.c.d.e.f.g.corp.example. A 10.9.0.8\n\
         _ldap._tcp.corp.example. SRV 5 6 389 git.corp.example.\ndev.corp.example. A 10.9.0.9\n\
         unrelated.other.example. A 10.9.0.10\nweb.other.example. A 10.9.0.11\n",
    );
    if wildcard {
        zone.push_str("*.corp.example. A 10.9.9.9\n*.corp.example. TXT wild\n");
    }
    (".", zone)
}

/// One domain with a host of every kind.
fn domain(top: &str, number: usize) -> String {
    let other = TOPS[(number + 1) % TOPS.len()];
    format!(
        "$ORIGIN example.{top}.\n@ A 192.0.2.{number}\nwww A 192.0.2.1{number}\nwww A 192.0.2.2{number}\n\
         dual A 192.0.2.3{number}\ndual AAAA 2001:db8:{number}::3\nsix AAAA 2001:db8:{number}::6\n\
         mail MX 10 www\ntext TXT \"no address\"\nalias CNAME www\nchain CNAME alias\nsix-alias CNAME six\n\
         gone CNAME missing\nfar-gone CNAME gone\nempty CNAME text\ncross CNAME chain.example.{other}.\n\
         one.two.three.four.five A 192.0.2.4{number}\n{LONG} A 192.0.2.5{number}\n\
         _xmpp._tcp SRV 5 0 5222 www\n_sip._udp CNAME _xmpp._tcp\n"
    )
}
