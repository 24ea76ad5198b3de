//! The flags as typed: one row each, grouped by purpose for `-h`.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::builder::{NonEmptyStringValueParser, ValueParser};
use clap::{ArgAction, Parser};

use super::value;
use crate::life::options::{LogFormat, Unset};
use crate::node::Rules;
use crate::plugins::value::Network;
use crate::serve::Limits;

const CONFIGURATION: &str = "Configuration";
const KUBERNETES: &str = "Kubernetes template and ConfigMap";
const NODE: &str = "Interface and rules, used with -localip";
const SERVING: &str = "Serving";
const OBSERVING: &str = "Metrics, logs and process";
const HELP: &str = "Help";

/// Every flag. node-cache's keep their names and defaults; help texts avoid double dashes, see `help`.
#[derive(Debug, Parser)]
#[command(name = "dnslet", about = "A DNS cache for one node: answers from memory, forwards the rest.")]
#[command(disable_help_flag = true, disable_version_flag = true, args_override_self = true)]
#[command(after_help = "Without -conf, -basecorefile and -localip a built-in Corefile is served on 127.0.0.1:1053.\n\
    With -localip or -basecorefile the template is filled, used and written to -conf; if there is no template, -conf \
    is read as it stands.\nFlags take one dash or two, and a value after a space or '='.")]
pub(crate) struct Flags {
    /// Corefile to serve, or the file a filled template is written to; "stdin" reads standard input
    #[arg(long, value_name = "FILE", help_heading = CONFIGURATION)]
    pub(crate) conf: Option<PathBuf>,
    /// Accepted for node-cache; without effect there and here, see -conf
    #[arg(long, value_name = "FILE", help_heading = CONFIGURATION)]
    pub(crate) corefile: Option<PathBuf>,
    /// Default port of server blocks
    #[arg(long = "dns.port", short = 'p', value_name = "PORT", default_value_t = 53, help_heading = CONFIGURATION)]
    pub(crate) dns_port: u16,
    /// Apply a regenerated Corefile as SIGUSR1 does, even if only its layout differs
    #[arg(long, value_name = "BOOL", default_value = "false", value_parser = bool_parser(), action = ArgAction::Set, help_heading = CONFIGURATION)]
    pub(crate) reloadwithsignal: bool,

    /// Addresses of the cache, comma separated; they fill __PILLAR__LOCAL__DNS__
    #[arg(long, value_name = "IP,...", value_parser = ValueParser::new(value::addresses), help_heading = KUBERNETES)]
    pub(crate) localip: Option<value::Addresses>,
    /// Corefile template [default: /etc/coredns/Corefile.base]
    #[arg(long, value_name = "FILE", help_heading = KUBERNETES)]
    pub(crate) basecorefile: Option<PathBuf>,
    /// Directory of the kube-dns ConfigMap [default: /etc/kube-dns]
    #[arg(long, value_name = "DIR", help_heading = KUBERNETES)]
    pub(crate) kubednscm: Option<PathBuf>,
    /// Service whose address fills __PILLAR__CLUSTER__DNS__
    #[arg(long, value_name = "NAME", default_value = "kube-dns", value_parser = NonEmptyStringValueParser::new(), help_heading = KUBERNETES)]
    pub(crate) upstreamsvc: String,
    /// Fills __PROMETHEUS__ENDPOINT__
    #[arg(long, value_name = "ADDRESS", default_value = ":9253", value_parser = ValueParser::new(value::endpoint), help_heading = KUBERNETES)]
    pub(crate) prometheus_listen_address: value::Endpoint,

    /// Create the interface and put the addresses of -localip on it
    #[arg(long, value_name = "BOOL", default_value = "true", value_parser = bool_parser(), action = ArgAction::Set, help_heading = NODE)]
    pub(crate) setupinterface: bool,
    /// Name of that interface
    #[arg(long, value_name = "NAME", default_value = "nodelocaldns", help_heading = NODE)]
    pub(crate) interfacename: String,
    /// Place the packet rules
    #[arg(long, value_name = "BOOL", default_value = "true", value_parser = bool_parser(), action = ArgAction::Set, help_heading = NODE)]
    pub(crate) setupiptables: bool,
    /// Leave interface and rules in place at exit
    #[arg(long, value_name = "BOOL", default_value = "false", value_parser = bool_parser(), action = ArgAction::Set, help_heading = NODE)]
    pub(crate) skipteardown: bool,
    /// How often interface and rules are checked; 60, 60s and 60ns all mean one minute
    #[arg(long, value_name = "DURATION", default_value = "60", value_parser = ValueParser::new(value::sync_interval), help_heading = NODE)]
    pub(crate) syncinterval: std::time::Duration,
    /// How packets are kept out of connection tracking: auto, nftables, iptables or none
    #[arg(long, value_name = "KIND", default_value = "auto", value_parser = ValueParser::new(value::rules), help_heading = NODE)]
    pub(crate) rules: Rules,
    /// DNS servers that clients of link-local addresses reach while nobody answers here [default: what the first zone of
    /// the Corefile that is neither the root nor below arpa is forwarded to]
    #[arg(long, value_name = "IP[:PORT],...", value_parser = ValueParser::new(value::servers), help_heading = NODE)]
    pub(crate) fallback: Option<value::Servers>,
    /// Health port in the packet rules; the Corefile sets the real one
    #[arg(long, value_name = "PORT", default_value_t = 8080, help_heading = NODE)]
    pub(crate) health_port: u16,

    /// Worker threads [default: the CPUs this process may use, no more than one for each 16Mi of the cgroup's limit]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024), help_heading = SERVING)]
    pub(crate) workers: Option<u16>,
    /// Memory for cached answers, for example 64Mi [default: a third of the cgroup's limit, 64Mi without one]
    #[arg(long, value_name = "BYTES", value_parser = ValueParser::new(value::bytes), help_heading = SERVING)]
    pub(crate) cache_memory: Option<usize>,
    /// Source networks that are answered besides the usual ones, comma separated
    #[arg(long, value_name = "CIDR,...", value_parser = ValueParser::new(value::networks), help_heading = SERVING)]
    pub(crate) client_net: Option<value::Networks>,
    /// TCP connections in all; fewer where a limit on memory or open files leaves no room
    #[arg(long, value_name = "N", default_value_t = Limits::default().connections, help_heading = SERVING)]
    pub(crate) tcp_connections: usize,
    /// TCP connections from one source address; never more than half of all that there may be
    #[arg(long, value_name = "N", default_value_t = Limits::default().per_source, help_heading = SERVING)]
    pub(crate) tcp_per_client: usize,
    /// Queries in progress on one TCP connection
    #[arg(long, value_name = "N", default_value_t = Limits::default().per_connection, help_heading = SERVING)]
    pub(crate) tcp_in_flight: usize,
    /// The most questions a second to all upstreams together; 0 is no limit. Some clouds drop packets above 1024 a second
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = SERVING)]
    pub(crate) upstream_pps: u32,
    /// Leave with exit code 1 when a forwarding loop is found, instead of answering SERVFAIL
    #[arg(long, value_name = "BOOL", default_value = "false", value_parser = bool_parser(), action = ArgAction::Set, help_heading = SERVING)]
    pub(crate) exit_on_loop: bool,

    /// Metrics endpoint besides those of the Corefile; "" is off, and so is the default when nothing of Kubernetes is used
    #[arg(long, value_name = "ADDRESS", value_parser = ValueParser::new(value::optional_endpoint), help_heading = OBSERVING)]
    pub(crate) metrics_listen_address: Option<value::OptionalEndpoint>,
    /// Shape of log lines: text or json
    #[arg(long, value_name = "FORMAT", default_value = "text", value_parser = ValueParser::new(value::log_format), help_heading = OBSERVING)]
    pub(crate) log_format: LogFormat,
    /// Who the process that reads packets runs as, where the start is allowed to choose: NAME, UID or UID:GID
    #[arg(long, value_name = "USER", default_value = "65532", value_parser = ValueParser::new(value::user), help_heading = OBSERVING)]
    pub(crate) user: value::User,
    /// File for the process id, written once the agent serves and removed at exit
    #[arg(long, value_name = "FILE", help_heading = OBSERVING)]
    pub(crate) pidfile: Option<PathBuf>,
    /// No list of zones at start
    #[arg(long, value_name = "BOOL", default_value = "false", value_parser = bool_parser(), action = ArgAction::Set, help_heading = OBSERVING)]
    pub(crate) quiet: bool,

    /// Print this and leave
    #[arg(long, short = 'h', value_name = "BOOL", default_value = "false", hide_default_value = true, value_parser = bool_parser(), action = ArgAction::Set, help_heading = HELP)]
    pub(crate) help: bool,
    /// Print the version and leave
    #[arg(long, value_name = "BOOL", default_value = "false", hide_default_value = true, value_parser = bool_parser(), action = ArgAction::Set, help_heading = HELP)]
    pub(crate) version: bool,
    /// Print the names of the Corefile's directives and leave
    #[arg(long, value_name = "BOOL", default_value = "false", hide_default_value = true, value_parser = bool_parser(), action = ArgAction::Set, help_heading = HELP)]
    pub(crate) plugins: bool,
}

impl Flags {
    /// Addresses of `-localip`.
    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        self.localip.as_ref().map(|list| list.ips.clone()).unwrap_or_default()
    }

    /// What stands in `-localip` instead of addresses.
    pub(crate) fn unset(&self) -> Vec<Unset> {
        self.localip.as_ref().map(|list| list.unset.clone()).unwrap_or_default()
    }

    /// Networks of `-client-net`.
    pub(crate) fn client_networks(&self) -> Vec<Network> {
        self.client_net.as_ref().map(|networks| networks.0.clone()).unwrap_or_default()
    }
}

pub(super) fn bool_parser() -> ValueParser {
    ValueParser::new(value::boolean)
}
