//! The names that are looked up, by class.

use super::tree::{LONG, TOPS};

/// Names of one kind.
pub struct Class {
    pub name: &'static str,
    /// What is said about what they cost.
    pub group: Group,
    pub names: Vec<String>,
    /// Programs that refuse a name before they ask anyone end on it.
    pub odd: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// In the cluster.
    Cluster,
    /// Outside, with an address, looked up along the search list.
    External,
    /// With services: SRV records.
    Services,
    /// Without an address, or nowhere; a stub goes through its whole list.
    Missing,
    /// Whatever else: in several places, asked for outright, odd.
    Other,
}

pub const GROUPS: [Group; 5] = [Group::Cluster, Group::External, Group::Services, Group::Missing, Group::Other];

/// Class, group, and names; `{a,b}` stands for either.
const TABLE: &[(&str, Group, &str)] = &[
    (
        "service",
        Group::Cluster,
        "web kubernetes six six.default dual db queue web.{default,shop,data,dev} cart.shop six.shop queue.data db.data kubernetes.default \
         dual.default web.{default,shop,data}.svc kubernetes.default.svc api-gateway.kube-system \
         {web.shop,six.default}.svc.cluster.local",
    ),
    ("headless", Group::Cluster, "pod-0.db pod-{0,1}.db.data{,.svc,.svc.cluster.local} 10-1-2-3.default.pod"),
    ("external name", Group::Cluster, "ext ext-in ext{,-six,-gone,-text,-in}.default ext.shop{,.svc}"),
    (
        "service record",
        Group::Services,
        "_pg._tcp.db _pg._tcp.db.data{,.svc,.svc.cluster.local} _https._tcp.kubernetes.default{,.svc} \
         _http._tcp.web _http._tcp.web.{default,shop} _{xmpp._tcp,sip._udp}.example.{com,org} _ldap._tcp",
    ),
    (
        "service record that is missing",
        Group::Missing,
        "_nope._tcp.web.shop _pg._udp.db.data _nope._tcp.example.{com,io}",
    ),
    ("external, IPv4 only", Group::External, "{www.,}example.{com,dev,org,io,net}"),
    ("external, both families", Group::External, "dual.example.{com,dev,org,io,net}"),
    ("external, IPv6 only", Group::External, "six.example.{com,dev,org,io,net}"),
    ("external, alias", Group::External, "{alias,chain,cross,six-alias}.example.{com,dev,org,io,net}"),
    ("external, short", Group::External, "pay.com www.shop.com cart.dev alone.shop single"),
    ("external, no address", Group::Missing, "{mail,text}.example.{com,dev,org,io,net} empty.example.{com,org}"),
    ("external, missing", Group::Missing, "{missing,a.missing}.example.{com,dev,org,io,net} missing.{com,org,nowhere}"),
    ("alias of nothing", Group::Missing, "{gone,far-gone}.example.{com,dev,org}"),
    ("inside and outside", Group::Other, "shop.{dev,com} web.dev mixed.{dev,com} web.shop"),
    (
        "host's domain",
        Group::External,
        "intranet git build.ci both.shop {intranet,git,build.ci,alias}.corp.example api",
    ),
    ("host's domain and more", Group::Other, "mail alias gone six missing.com {mail,gone,nope}.corp.example web.corp"),
    (
        "service missing in a namespace",
        Group::Missing,
        "api.shop intranet.{data,dev} git.{kube-system,com} nope.default.svc",
    ),
    ("single label that is missing", Group::Missing, "nope wpad printer zzz x localdomain isatap cluster"),
    (
        "namespace",
        Group::Missing,
        "default shop data com kube-system svc pod local org default.pod shop.svc _tcp.db.data",
    ),
    ("namespace and host", Group::Other, "dev"),
    (
        "trailing dot",
        Group::Other,
        "www.example.{com,org}. missing.example.com. nope. kubernetes.default. web.shop.svc.cluster.local. single. intranet.",
    ),
    (
        "many dots",
        Group::Other,
        "one.two.three.four.five.example.{com,org} a.b.c.d.e.f.{io,nowhere,g} a.b.c.d.missing.example.com \
         one.two.three.four.five.example.net.",
    ),
    (
        "capitals",
        Group::Other,
        "WWW.Example.COM Alias.EXAMPLE.org KUBERNETES.Default Web.Shop.SVC.Cluster.Local Intranet NOPE.Example.Com \
         SHOP.dev Pod-0.DB.data",
    ),
    (
        "other namespace of a zone",
        Group::Missing,
        "web.nowhere web.shop.cluster.local shop.svc.cluster.local cluster.local",
    ),
];

/// Every class.
pub fn classes() -> Vec<Class> {
    let row = |(name, group, text): &(&'static str, Group, &str)| {
        let names = text.split_whitespace().flat_map(expanded).collect();
        Class { name, group: *group, names, odd: false }
    };
    let mut classes: Vec<Class> = TABLE.iter().map(row).collect();
    let long = TOPS.iter().map(|top| format!("{LONG}.example.{top}"));
    // Longer and longer, so that ever fewer names of the list still fit.
    let longer = [4, 12, 20, 28, 36, 44].map(|length| format!("{}.{LONG}.example.com", "x".repeat(length)));
    let names = long.chain(longer).collect();
    classes.push(Class { name: "long", group: Group::Other, names, odd: false });
    let names = vec![format!("{}.example.com", "y".repeat(64)), format!("www.{}", "z".repeat(64)), "a..b".to_owned()];
    classes.push(Class { name: "no name at all", group: Group::Other, names, odd: true });
    classes
}

/// The word with each choice in braces.
fn expanded(word: &str) -> Vec<String> {
    let Some((before, rest)) = word.split_once('{') else { return vec![word.to_owned()] };
    let (choices, after) = rest.split_once('}').expect("a closing brace");
    let each = |choice| expanded(after).into_iter().map(move |end| format!("{before}{choice}{end}"));
    choices.split(',').flat_map(each).collect()
}
