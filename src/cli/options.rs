//! What the flags mean together.
//!
//! | given | template | Corefile that is used | written |
//! |---|---|---|---|
//! | none of `-conf`, `-basecorefile`, `-localip` | | built in | |
//! | `-conf` alone | | `-conf` | |
//! | `-basecorefile`, or `-localip` and the default template exists | `-basecorefile` or the default | the filled template | `-conf`, if given |
//! | `-localip` and the default template is missing | | `-conf`; an error without | |
//! | `-conf stdin` | | standard input | |

use std::path::{Path, PathBuf};

use super::flags::Flags;
use crate::life::budget;
use crate::life::options::{
    Configuration, DEFAULT_CONFIG_MAP, DEFAULT_TEMPLATE, NodeOptions, Options, TcpLimits, Template,
};
use crate::node::{Desired, Rules};
use crate::sys;

/// Facts about the machine that decide defaults.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Machine {
    pub(crate) cpus: usize,
    pub(crate) memory_limit: Option<u64>,
    pub(crate) default_template: bool,
}

impl Machine {
    pub(crate) fn here() -> Machine {
        Machine {
            cpus: sys::cpu::count(),
            memory_limit: sys::cpu::memory_limit(),
            default_template: Path::new(DEFAULT_TEMPLATE).is_file(),
        }
    }
}

/// The options of one run; the error is a sentence for the operator.
pub(crate) fn options(flags: &Flags, machine: &Machine) -> Result<Options, String> {
    let configuration = configuration(flags, machine.default_template)?;
    let node_cache = flags.localip.is_some() || matches!(configuration, Configuration::Template(_));
    let metrics_address = match &flags.metrics_listen_address {
        Some(given) => given.0,
        None if node_cache => Some(([0, 0, 0, 0], 9353).into()),
        None => None,
    };
    Ok(Options {
        configuration,
        dns_port: flags.dns_port,
        workers: flags.workers.map_or_else(|| budget::default_workers(machine.cpus, machine.memory_limit), usize::from),
        cache_memory: flags.cache_memory.unwrap_or_else(|| budget::default_cache(machine.memory_limit)),
        memory_limit: machine.memory_limit,
        client_networks: flags.client_networks(),
        tcp: TcpLimits {
            connections: flags.tcp_connections.max(1),
            per_client: flags.tcp_per_client.max(1),
            in_flight: flags.tcp_in_flight.max(1),
        },
        upstream_pps: flags.upstream_pps,
        metrics_address,
        node: node(flags),
        user: flags.user.0,
        pidfile: flags.pidfile.clone().filter(|path| !path.as_os_str().is_empty()),
        log_format: flags.log_format,
        quiet: flags.quiet,
        reload_with_signal: flags.reloadwithsignal,
        exit_on_loop: flags.exit_on_loop,
        unset: flags.unset(),
        warnings: warnings(flags),
    })
}

fn configuration(flags: &Flags, default_template: bool) -> Result<Configuration, String> {
    let conf = flags.conf.clone().filter(|path| !path.as_os_str().is_empty());
    let stdin = conf.as_deref() == Some(Path::new("stdin"));
    let template = match &flags.basecorefile {
        Some(_) if stdin => {
            return Err("-conf stdin cannot be combined with -basecorefile: a filled template is written to the file -conf names".to_owned());
        }
        Some(path) => Some(path.clone()),
        None if flags.localip.is_some() && default_template && !stdin => Some(PathBuf::from(DEFAULT_TEMPLATE)),
        None => None,
    };
    match (template, conf) {
        (Some(path), output) => Ok(Configuration::Template(Template {
            path,
            output,
            local_ips: flags.addresses(),
            upstream_service: flags.upstreamsvc.clone(),
            config_map: config_map(flags),
            prometheus_endpoint: flags.prometheus_listen_address.0.clone(),
        })),
        (None, Some(_)) if stdin => Ok(Configuration::Stdin),
        (None, Some(path)) => Ok(Configuration::File(path)),
        (None, None) if flags.localip.is_some() => Err(format!(
            "-localip is given, but there is no Corefile: neither a template at {DEFAULT_TEMPLATE} (or -basecorefile) nor -conf"
        )),
        (None, None) => Ok(Configuration::BuiltIn),
    }
}

/// The node is set up where the addresses of the cache are given.
fn node(flags: &Flags) -> Option<NodeOptions> {
    let addresses = flags.localip.as_ref()?.ips.clone();
    let fallback = flags.fallback.as_ref().map(|servers| servers.0.clone());
    let desired = Desired {
        link: flags.setupinterface.then(|| flags.interfacename.clone()),
        addresses,
        rules: if flags.setupiptables { flags.rules } else { Rules::None },
        dns_port: flags.dns_port,
        health_port: flags.health_port,
        fallback: fallback.clone().unwrap_or_default(),
    };
    let idle = desired.link.is_none() && desired.rules == Rules::None;
    (!idle).then(|| NodeOptions {
        desired,
        fallback_given: fallback.is_some(),
        skip_teardown: flags.skipteardown,
        sync_interval: flags.syncinterval,
    })
}

fn config_map(flags: &Flags) -> PathBuf {
    flags
        .kubednscm
        .clone()
        .filter(|path| !path.as_os_str().is_empty())
        .unwrap_or_else(|| PathBuf::from(DEFAULT_CONFIG_MAP))
}

fn warnings(flags: &Flags) -> Vec<String> {
    let mut warnings = Vec::new();
    if flags.corefile.is_some() {
        warnings.push("-corefile has no effect, as in node-cache: use -conf or -basecorefile".to_owned());
    }
    warnings
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;
    use crate::cli::arguments::normalise;

    fn parsed(arguments: &str, machine: &Machine) -> Result<Options, String> {
        let words: Vec<String> = arguments.split_whitespace().map(str::to_owned).collect();
        let normalised = normalise(&Flags::command(), &words).unwrap();
        let flags = Flags::try_parse_from(std::iter::once("dnslet".to_owned()).chain(normalised)).unwrap();
        options(&flags, machine)
    }

    fn bare() -> Machine {
        Machine { cpus: 3, memory_limit: None, default_template: false }
    }

    fn in_pod() -> Machine {
        Machine { memory_limit: Some(192 << 20), default_template: true, ..bare() }
    }

    #[test]
    fn nothing_given_is_the_built_in_corefile_without_a_public_metrics_port() {
        let options = parsed("", &bare()).unwrap();
        assert_eq!(options.configuration, Configuration::BuiltIn);
        assert_eq!((options.workers, options.cache_memory, options.metrics_address), (3, 64 << 20, None));
        assert_eq!(options.upstream_pps, 0);
        assert_eq!(parsed("-upstream-pps=1000", &bare()).unwrap().upstream_pps, 1000);
        assert!(options.warnings.is_empty());
    }

    #[test]
    fn the_official_arguments_fill_the_default_template_into_conf() {
        let arguments = "-localip 169.254.20.10,10.96.0.10 -conf /etc/Corefile -upstreamsvc kube-dns-upstream";
        let options = parsed(arguments, &in_pod()).unwrap();
        let Configuration::Template(template) = &options.configuration else { panic!("{options:?}") };
        assert_eq!(template.path, Path::new(DEFAULT_TEMPLATE));
        assert_eq!(template.output.as_deref(), Some(Path::new("/etc/Corefile")));
        assert_eq!(template.local_ips.len(), 2);
        assert_eq!(options.metrics_address, Some("0.0.0.0:9353".parse().unwrap()));
        assert_eq!(options.cache_memory, 64 << 20);
        assert!(options.warnings.is_empty(), "{:?}", options.warnings);
        let node = options.node.expect("the node is set up");
        assert_eq!(node.desired.link.as_deref(), Some("nodelocaldns"));
        assert_eq!((node.desired.addresses.len(), node.desired.rules), (2, Rules::Auto));
        assert_eq!((node.desired.dns_port, node.desired.health_port), (53, 8080));
        assert!(!node.fallback_given && !node.skip_teardown);
    }

    #[test]
    fn conf_is_read_as_it_stands_without_a_template() {
        let corefile = Configuration::File("/etc/Corefile".into());
        assert_eq!(parsed("-conf /etc/Corefile", &in_pod()).unwrap().configuration, corefile);
        let quiet = "-conf /etc/Corefile -localip 169.254.20.10 -setupinterface=false -setupiptables=false";
        let options = parsed(quiet, &bare()).unwrap();
        assert_eq!(options.configuration, corefile);
        assert_eq!(options.node, None);
        assert_eq!(parsed("-conf stdin -localip ::1", &in_pod()).unwrap().configuration, Configuration::Stdin);
    }

    #[test]
    fn combinations_without_a_meaning_say_what_is_missing() {
        assert!(parsed("-localip 169.254.20.10", &bare()).unwrap_err().contains("there is no Corefile"));
        assert!(parsed("-conf stdin -basecorefile x", &bare()).unwrap_err().contains("cannot be combined"));
    }

    #[test]
    fn link_and_rules_are_set_up_apart() {
        let node = |more: &str| parsed(&format!("-conf x -localip ::1 {more}"), &bare()).unwrap().node.unwrap();
        assert_eq!(node("-setupinterface=false").desired.link, None);
        assert_eq!(node("-setupiptables=false -rules iptables").desired.rules, Rules::None);
        let given = node("-rules=nftables -fallback 10.244.0.5,[fd00::5]:5353,fd00::6 -skipteardown");
        assert_eq!(given.desired.rules, Rules::Nftables);
        let servers: Vec<String> = given.desired.fallback.iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["10.244.0.5:53", "[fd00::5]:5353", "[fd00::6]:53"]);
        assert!(given.fallback_given && given.skip_teardown);
        assert_eq!(parsed("-conf x", &bare()).unwrap().node, None);
    }

    #[test]
    fn the_node_cache_metrics_endpoint_can_be_moved_and_switched_off() {
        let moved = parsed("-metrics-listen-address=127.0.0.1:1", &bare()).unwrap();
        assert_eq!(moved.metrics_address, Some("127.0.0.1:1".parse().unwrap()));
        assert_eq!(parsed("-localip ::1 -conf x -metrics-listen-address=", &bare()).unwrap().metrics_address, None);
    }
}
