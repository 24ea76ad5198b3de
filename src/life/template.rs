//! Corefile templates: text with `__PILLAR__*` placeholders in, Corefile out. Pure; `sources` reads and writes files.

use std::fmt;
use std::net::IpAddr;

use super::kubedns::{ConfigMap, is_subdomain};
use super::options::Template;

/// Environment variable that holds the cluster's domain, and the domain where it is not set.
const DOMAIN_VARIABLE: &str = "CLUSTER_DOMAIN";
const USUAL_DOMAIN: &str = "cluster.local";

const DNS_DOMAIN: &str = "__PILLAR__DNS__DOMAIN__";
const CLUSTER_DNS: &str = "__PILLAR__CLUSTER__DNS__";
const LOCAL_DNS: &str = "__PILLAR__LOCAL__DNS__";
const DNS_SERVER: &str = "__PILLAR__DNS__SERVER__";
const UPSTREAM_SERVERS: &str = "__PILLAR__UPSTREAM__SERVERS__";
const PROMETHEUS: &str = "__PROMETHEUS__ENDPOINT__";
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// The layout in which the stock manifest once forced TCP for external names. Custom upstream servers were reached by
/// UDP there, and exactly this layout still is; any other keeps its options.
const FORCE_TCP_BLOCK: &str = "\n    forward . __PILLAR__UPSTREAM__SERVERS__ {\n            force_tcp\n    }";
const FORCE_TCP_REPLACED: &str = "\n    forward . __PILLAR__UPSTREAM__SERVERS__";

/// A filled template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filled {
    /// The Corefile; equal inputs give equal text.
    pub text: String,
    /// What the operator should look at although the text could be made.
    pub warnings: Vec<String>,
}

/// Why a template cannot be filled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TemplateError {
    /// The Service's address is not in the environment.
    NoClusterDns {
        /// Name of the Service.
        service: String,
        /// Environment variable that should hold its address.
        variable: String,
    },
    /// The variable is set to something that is no address, `None` for a headless Service.
    BadClusterDns {
        /// Environment variable.
        variable: String,
        /// Its value.
        value: String,
    },
    /// The template asks for the local addresses and none was given.
    NoLocalIp,
    /// The environment variable of the cluster's domain holds this, which is no domain.
    BadDomain(String),
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TemplateError::NoClusterDns { service, variable } => write!(
                f,
                "the template uses {CLUSTER_DNS}, but the environment variable {variable} is not set. Kubernetes sets \
                 it for a Service named {service:?} (-upstreamsvc) in the pod's namespace, and only if the Service \
                 existed before the pod was started: create the Service, then delete this pod"
            ),
            TemplateError::BadClusterDns { variable, value } => write!(
                f,
                "the template uses {CLUSTER_DNS}, but the environment variable {variable} is {value:?}, which is not \
                 an IP address: the Service must have a cluster IP (a headless one has none)"
            ),
            TemplateError::NoLocalIp => {
                write!(f, "the template uses {LOCAL_DNS}, but -localip gives no address")
            }
            TemplateError::BadDomain(value) => write!(
                f,
                "the template uses {DNS_DOMAIN}, but the environment variable {DOMAIN_VARIABLE} is {value:?}, which is \
                 not a domain name of lower-case letters, digits, '-' and '.', such as {USUAL_DOMAIN}"
            ),
        }
    }
}

impl std::error::Error for TemplateError {}

/// Fills `text`. `environment` gives the value of a variable; `port` is the one stub domains listen on.
pub fn fill(
    text: &str,
    template: &Template,
    environment: &dyn Fn(&str) -> Option<String>,
    config_map: &ConfigMap,
    port: u16,
) -> Result<Filled, TemplateError> {
    let mut out = text.to_owned();
    if out.contains(DNS_DOMAIN) {
        out = out.replace(DNS_DOMAIN, &cluster_domain(environment(DOMAIN_VARIABLE))?);
    }
    if out.contains(CLUSTER_DNS) {
        out = out.replace(CLUSTER_DNS, &service_address(template, environment)?);
    }
    if out.contains(LOCAL_DNS) && template.local_ips.is_empty() {
        return Err(TemplateError::NoLocalIp);
    }
    let local = joined(&template.local_ips);
    out = out.replace(LOCAL_DNS, &local).replace(DNS_SERVER, "");
    if config_map.upstream_nameservers.is_empty() {
        out = out.replace(UPSTREAM_SERVERS, RESOLV_CONF);
    } else {
        out = out
            .replace(FORCE_TCP_BLOCK, FORCE_TCP_REPLACED)
            .replace(UPSTREAM_SERVERS, &config_map.upstream_nameservers.join(" "));
    }
    out = out.replace(PROMETHEUS, &template.prometheus_endpoint);
    let warnings = leftover(&out).into_iter().collect();
    append_stub_domains(&mut out, config_map, &local, port);
    Ok(Filled { text: out, warnings })
}

/// The domain as server blocks name it. A variable that is set to nothing is not set.
fn cluster_domain(value: Option<String>) -> Result<String, TemplateError> {
    let Some(value) = value.filter(|value| !value.is_empty()) else { return Ok(USUAL_DOMAIN.to_owned()) };
    let domain = value.strip_suffix('.').unwrap_or(&value);
    if is_subdomain(domain) { Ok(domain.to_owned()) } else { Err(TemplateError::BadDomain(value)) }
}

fn service_address(template: &Template, environment: &dyn Fn(&str) -> Option<String>) -> Result<String, TemplateError> {
    let variable = template.service_variable();
    match environment(&variable).filter(|value| !value.is_empty()) {
        None => Err(TemplateError::NoClusterDns { service: template.upstream_service.clone(), variable }),
        Some(value) => match value.parse::<IpAddr>() {
            Ok(address) => Ok(address.to_string()),
            Err(_) => Err(TemplateError::BadClusterDns { variable, value }),
        },
    }
}

fn append_stub_domains(out: &mut String, config_map: &ConfigMap, local: &str, port: u16) {
    for (domain, servers) in &config_map.stub_domains {
        if !out.is_empty() && !out.ends_with('\n') {
            out.push('\n');
        }
        out.push_str(&format!("{domain}:{port} {{\n    errors\n    cache 30\n"));
        if !local.is_empty() {
            out.push_str(&format!("    bind {local}\n"));
        }
        out.push_str(&format!("    forward . {}\n}}\n", servers.join(" ")));
    }
}

/// A placeholder that only deployment tooling can fill.
fn leftover(text: &str) -> Option<String> {
    let start = text.find("__PILLAR__")?;
    let rest = &text[start..];
    let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
    Some(format!("the template still holds {}: replace it before deployment, the agent cannot know it", &rest[..end]))
}

fn joined(addresses: &[IpAddr]) -> String {
    addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template() -> Template {
        Template {
            path: "/etc/coredns/Corefile.base".into(),
            output: Some("/etc/Corefile".into()),
            local_ips: vec![[169, 254, 20, 10].into(), [10, 96, 0, 10].into()],
            upstream_service: "kube-dns-upstream".to_owned(),
            config_map: "/etc/kube-dns".into(),
            prometheus_endpoint: ":9253".to_owned(),
        }
    }

    fn set(variable: &'static str, value: &'static str) -> impl Fn(&str) -> Option<String> {
        move |asked| (asked == variable).then(|| value.to_owned())
    }

    const SERVICE: &str = "KUBE_DNS_UPSTREAM_SERVICE_HOST";

    fn filled(text: &str, config_map: &ConfigMap) -> String {
        fill(text, &template(), &set(SERVICE, "10.96.7.7"), config_map, 53).unwrap().text
    }

    fn upstreams(servers: &[&str]) -> ConfigMap {
        ConfigMap { upstream_nameservers: servers.iter().map(ToString::to_string).collect(), ..ConfigMap::default() }
    }

    #[test]
    fn every_placeholder_of_the_process_is_filled() {
        let text = "bind __PILLAR__LOCAL__DNS__ __PILLAR__DNS__SERVER__\nforward . __PILLAR__CLUSTER__DNS__\n\
                    forward . __PILLAR__UPSTREAM__SERVERS__\nprometheus __PROMETHEUS__ENDPOINT__\n";
        assert_eq!(
            filled(text, &ConfigMap::default()),
            "bind 169.254.20.10 10.96.0.10 \nforward . 10.96.7.7\nforward . /etc/resolv.conf\nprometheus :9253\n"
        );
    }

    #[test]
    fn custom_upstreams_replace_resolv_conf_and_the_one_known_force_tcp_layout() {
        let known = ".:53 {\n    forward . __PILLAR__UPSTREAM__SERVERS__ {\n            force_tcp\n    }\n    }\n";
        assert_eq!(
            filled(known, &upstreams(&["1.1.1.1", "8.8.8.8:53"])),
            ".:53 {\n    forward . 1.1.1.1 8.8.8.8:53\n    }\n"
        );
        assert!(filled(known, &ConfigMap::default()).contains("force_tcp"));
        let other = ".:53 {\n  forward . __PILLAR__UPSTREAM__SERVERS__ {\n    force_tcp\n  }\n}\n";
        assert_eq!(filled(other, &upstreams(&["1.1.1.1"])), ".:53 {\n  forward . 1.1.1.1 {\n    force_tcp\n  }\n}\n");
    }

    #[test]
    fn stub_domains_become_blocks_in_the_order_of_their_names() {
        let text = r#"{"z.example": ["10.0.0.1"], "a.example": ["10.0.0.2", "tls://10.0.0.3"]}"#;
        let map = ConfigMap::parse(Some(text), None, &|_| false).unwrap();
        assert_eq!(
            filled(".:53 {\n}", &map),
            ".:53 {\n}\n\
             a.example:53 {\n    errors\n    cache 30\n    bind 169.254.20.10 10.96.0.10\n    forward . 10.0.0.2 tls://10.0.0.3\n}\n\
             z.example:53 {\n    errors\n    cache 30\n    bind 169.254.20.10 10.96.0.10\n    forward . 10.0.0.1\n}\n"
        );
    }

    #[test]
    fn a_missing_service_address_names_the_variable_and_the_order_of_creation() {
        let error = fill("__PILLAR__CLUSTER__DNS__", &template(), &|_| None, &ConfigMap::default(), 53).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("KUBE_DNS_UPSTREAM_SERVICE_HOST is not set"), "{text}");
        assert!(text.contains("existed before the pod"), "{text}");
        let error = fill("__PILLAR__CLUSTER__DNS__", &template(), &set(SERVICE, "None"), &ConfigMap::default(), 53)
            .unwrap_err();
        assert!(error.to_string().contains("\"None\", which is not"), "{error}");
        assert!(fill(". {\n}\n", &template(), &|_| None, &ConfigMap::default(), 53).is_ok(), "not needed, not missed");
    }

    #[test]
    fn local_addresses_are_missed_only_where_they_are_used() {
        let bare = Template { local_ips: Vec::new(), ..template() };
        assert_eq!(
            fill("bind __PILLAR__LOCAL__DNS__", &bare, &|_| None, &ConfigMap::default(), 53),
            Err(TemplateError::NoLocalIp)
        );
        assert!(fill(". {\n}\n", &bare, &|_| None, &ConfigMap::default(), 53).is_ok());
    }

    #[test]
    fn the_cluster_s_domain_is_the_one_of_the_environment_and_else_the_usual_one() {
        let text = "__PILLAR__DNS__DOMAIN__:53 {\n}\n";
        let with = |value| fill(text, &template(), &set("CLUSTER_DOMAIN", value), &ConfigMap::default(), 53);
        assert_eq!(with("corp.example").unwrap().text, "corp.example:53 {\n}\n");
        assert_eq!(with("corp.example.").unwrap().text, "corp.example:53 {\n}\n");
        assert_eq!(with("").unwrap().text, "cluster.local:53 {\n}\n");
        let filled = fill(text, &template(), &|_| None, &ConfigMap::default(), 53).unwrap();
        assert_eq!((filled.text.as_str(), filled.warnings.len()), ("cluster.local:53 {\n}\n", 0));
        for bad in ["a b", ". {", "corp..example", ".", "-a"] {
            let error = with(bad).unwrap_err().to_string();
            assert!(error.contains(&format!("CLUSTER_DOMAIN is {bad:?}, which is not a domain name")), "{error}");
        }
        let unused = fill(". {\n}\n", &template(), &set("CLUSTER_DOMAIN", "a b"), &ConfigMap::default(), 53);
        assert!(unused.is_ok(), "not used, not judged");
    }

    #[test]
    fn a_placeholder_of_the_deployment_tooling_is_pointed_out() {
        let filled = fill("__PILLAR__SITE__:53 {\n}\n", &template(), &|_| None, &ConfigMap::default(), 53).unwrap();
        assert_eq!(filled.warnings.len(), 1);
        assert!(filled.warnings[0].contains("__PILLAR__SITE__:"), "{}", filled.warnings[0]);
    }
}
