//! What the operator asked for on the command line, in typed form.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::node::Desired;
use crate::plugins::value::Network;

/// Where a template is read from when `-basecorefile` does not say.
pub const DEFAULT_TEMPLATE: &str = "/etc/coredns/Corefile.base";

/// The kube-dns ConfigMap directory used when `-kubednscm` does not say and it exists.
pub const DEFAULT_CONFIG_MAP: &str = "/etc/kube-dns";

/// Everything one run of the agent needs to know.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Where the Corefile comes from.
    pub configuration: Configuration,
    /// Default port of server blocks and port of generated stub domain blocks.
    pub dns_port: u16,
    /// Number of worker threads.
    pub workers: usize,
    /// Bytes the cache may hold, all zones together.
    pub cache_memory: usize,
    /// What the control group of this process may use, in bytes; `None` where nothing limits it.
    pub memory_limit: Option<u64>,
    /// Networks answered besides the ones that are answered anyway.
    pub client_networks: Vec<Network>,
    /// Limits of the TCP side.
    pub tcp: TcpLimits,
    /// The most questions a second to all upstreams together; 0: no limit.
    pub upstream_pps: u32,
    /// Address of the process's own metrics endpoint; `None` is off.
    pub metrics_address: Option<SocketAddr>,
    /// What is done to the node's network; `None` where the addresses of the cache are not given.
    pub node: Option<NodeOptions>,
    /// User and group the server runs as, where the process may choose.
    pub user: (u32, u32),
    /// File that holds the process id while the agent serves.
    pub pidfile: Option<PathBuf>,
    /// Shape of log lines.
    pub log_format: LogFormat,
    /// No list of zones at start.
    pub quiet: bool,
    /// Apply a regenerated Corefile as `SIGUSR1` does: whether or not its content differs.
    pub reload_with_signal: bool,
    /// Leave with exit code 1 when a forwarding loop is found, instead of answering SERVFAIL.
    pub exit_on_loop: bool,
    /// What stood in `-localip` instead of an address.
    pub unset: Vec<Unset>,
    /// What was asked for and is not acted upon: one warning line each at start.
    pub warnings: Vec<String>,
}

/// A variable in `-localip` that kubelet left as it was, `$(KUBE_DNS_SERVICE_HOST)`, because it knows none of that name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unset(pub String);

/// What is done to the node's network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeOptions {
    /// The link, the addresses and the rules.
    pub desired: Desired,
    /// The servers in `desired.fallback` were given; otherwise they are found by way of the Corefile.
    pub fallback_given: bool,
    /// Nothing is removed at the end.
    pub skip_teardown: bool,
    /// How often everything is looked at although no event came.
    pub sync_interval: Duration,
}

/// Where the Corefile comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Configuration {
    /// The text compiled into the program (`sources::BUILT_IN`).
    BuiltIn,
    /// Standard input, read once; a reload keeps the text.
    Stdin,
    /// A file, used as it stands.
    File(PathBuf),
    /// A template whose filled form is used, and written to `output` for people to look at.
    Template(Template),
}

/// Inputs and output of a Corefile template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// The text with placeholders.
    pub path: PathBuf,
    /// Where the filled text is written, if anywhere.
    pub output: Option<PathBuf>,
    /// Replaces `__PILLAR__LOCAL__DNS__`.
    pub local_ips: Vec<IpAddr>,
    /// Service whose address replaces `__PILLAR__CLUSTER__DNS__`.
    pub upstream_service: String,
    /// Directory of the kube-dns ConfigMap; it may come and go.
    pub config_map: PathBuf,
    /// Replaces `__PROMETHEUS__ENDPOINT__`.
    pub prometheus_endpoint: String,
}

/// Shape of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// `[LEVEL] message`, as CoreDNS prints them.
    Text,
    /// One JSON object per line.
    Json,
}

/// Limits of the TCP side; over one of them a connection or a query is refused and counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpLimits {
    /// Connections in all.
    pub connections: usize,
    /// Connections from one source address.
    pub per_client: usize,
    /// Queries in progress on one connection.
    pub in_flight: usize,
}

impl Options {
    /// The addresses that are put on an interface here.
    pub fn placed(&self) -> &[IpAddr] {
        let node = self.node.as_ref().filter(|node| node.desired.link.is_some());
        node.map_or(&[], |node| &node.desired.addresses)
    }
}

impl Unset {
    /// What is missing, in a few words.
    pub fn brief(&self) -> String {
        match self.service() {
            Some(service) => format!("no address for $({}): no Service {service} when this pod was started", self.0),
            None => format!("no address for $({}): no such variable when this pod was started", self.0),
        }
    }

    /// The Service whose address it would be.
    fn service(&self) -> Option<String> {
        Some(self.0.strip_suffix("_SERVICE_HOST")?.to_lowercase().replace('_', "-"))
    }
}

impl fmt::Display for Unset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Unset(variable) = self;
        write!(f, "-localip holds $({variable}), which was not replaced: the other addresses are served. ")?;
        match self.service() {
            Some(service) => write!(
                f,
                "Kubernetes knows the variable if a Service {service} is in the pod's namespace when the pod is started, \
                 and the pod does not say enableServiceLinks: false. Create the Service, or give the address, then \
                 delete this pod"
            ),
            None => f.write_str("Give the address, or set the variable in the container's env, then delete this pod"),
        }
    }
}

impl Configuration {
    /// How the source is called in messages.
    pub fn display(&self) -> String {
        match self {
            Configuration::BuiltIn => "built-in Corefile".to_owned(),
            Configuration::Stdin => "stdin".to_owned(),
            Configuration::File(path) => path.display().to_string(),
            Configuration::Template(template) => {
                template.output.as_deref().unwrap_or(&template.path).display().to_string()
            }
        }
    }

    /// The path relative imports start from; the text itself need not be in that file.
    pub fn root(&self) -> &Path {
        match self {
            Configuration::BuiltIn | Configuration::Stdin => Path::new("Corefile"),
            Configuration::File(path) => path,
            Configuration::Template(template) => template.output.as_deref().unwrap_or(&template.path),
        }
    }
}

impl Template {
    /// The environment variable Kubernetes sets for the Service: `kube-dns-upstream` is `KUBE_DNS_UPSTREAM_SERVICE_HOST`.
    pub fn service_variable(&self) -> String {
        format!("{}_SERVICE_HOST", self.upstream_service.to_uppercase().replace('-', "_"))
    }
}

/// The interval of the check that nothing was missed by file events.
pub const SLOW_POLL: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_variable_is_the_one_kubernetes_sets() {
        let template = Template {
            path: DEFAULT_TEMPLATE.into(),
            output: None,
            local_ips: Vec::new(),
            upstream_service: "kube-dns-upstream".to_owned(),
            config_map: DEFAULT_CONFIG_MAP.into(),
            prometheus_endpoint: ":9253".to_owned(),
        };
        assert_eq!(template.service_variable(), "KUBE_DNS_UPSTREAM_SERVICE_HOST");
    }
}
