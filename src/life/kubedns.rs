//! The kube-dns ConfigMap: `stubDomains` and `upstreamNameservers`, two JSON files in one directory.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::upstream::Address;

/// The most upstream nameservers kube-dns ever took.
const MAX_UPSTREAMS: usize = 3;

/// The checked contents, in the order they are written out: the same data always gives the same text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConfigMap {
    /// Domain to its servers, as typed.
    pub stub_domains: BTreeMap<String, Vec<String>>,
    /// Servers that replace the node's resolv.conf; empty keeps it.
    pub upstream_nameservers: Vec<String>,
}

/// Why a ConfigMap is ignored as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigMapError {
    /// The key (file name) at fault.
    pub key: &'static str,
    /// What is wrong with it and what would be right.
    pub reason: String,
}

impl fmt::Display for ConfigMapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.reason)
    }
}

impl std::error::Error for ConfigMapError {}

impl ConfigMap {
    /// Checks the two values; `None` or nothing but white space means the key is not set. `is_file` says whether a path
    /// exists, as stub domains may name a resolv.conf-style file.
    pub fn parse(
        stub_domains: Option<&str>,
        upstream_nameservers: Option<&str>,
        is_file: &dyn Fn(&str) -> bool,
    ) -> Result<ConfigMap, ConfigMapError> {
        Ok(ConfigMap {
            stub_domains: stubs(stub_domains, is_file)?,
            upstream_nameservers: upstreams(upstream_nameservers)?,
        })
    }
}

fn stubs(text: Option<&str>, is_file: &dyn Fn(&str) -> bool) -> Result<BTreeMap<String, Vec<String>>, ConfigMapError> {
    let fail = |reason| ConfigMapError { key: "stubDomains", reason };
    let Some(text) = text.filter(|text| !text.trim().is_empty()) else { return Ok(BTreeMap::new()) };
    let domains: BTreeMap<String, Vec<String>> = serde_json::from_str(text).map_err(|error| {
        fail(format!("{error}; expected a JSON object of lists, for example {{\"corp.example\": [\"10.0.0.53\"]}}"))
    })?;
    for (domain, servers) in &domains {
        if !is_subdomain(domain) {
            return Err(fail(format!(
                "{domain:?} is not a domain name of lower-case letters, digits, '-' and '.' (DNS-1123 subdomain)"
            )));
        }
        if servers.is_empty() {
            return Err(fail(format!("{domain:?} has no servers")));
        }
        if let Some(server) = servers.iter().find(|server| !is_target(server, is_file)) {
            return Err(fail(format!(
                "{server:?} (for {domain:?}) is not IP, IP:port, dns:// or tls:// address, nor a file that exists"
            )));
        }
    }
    Ok(domains)
}

fn upstreams(text: Option<&str>) -> Result<Vec<String>, ConfigMapError> {
    let fail = |reason| ConfigMapError { key: "upstreamNameservers", reason };
    let Some(text) = text.filter(|text| !text.trim().is_empty()) else { return Ok(Vec::new()) };
    let servers: Vec<String> = serde_json::from_str(text)
        .map_err(|error| fail(format!("{error}; expected a JSON list, for example [\"10.0.0.53\"]")))?;
    if servers.len() > MAX_UPSTREAMS {
        return Err(fail(format!("{} servers, at most {MAX_UPSTREAMS} are allowed", servers.len())));
    }
    match servers.iter().find(|server| !is_address(server)) {
        Some(server) => Err(fail(format!("{server:?} is not an IP address or IP:port"))),
        None => Ok(servers),
    }
}

/// DNS-1123 subdomain, with the label length DNS itself sets (RFC 1035 section 2.3.4).
pub(super) fn is_subdomain(domain: &str) -> bool {
    domain.len() <= 253
        && domain.split('.').all(|label| {
            let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| inner(byte) || byte == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        })
}

fn is_address(server: &str) -> bool {
    server.parse::<IpAddr>().is_ok() || server.parse::<SocketAddr>().is_ok()
}

/// What `forward` takes as TO.
fn is_target(server: &str, is_file: &dyn Fn(&str) -> bool) -> bool {
    // White space, quotes and braces would change the meaning of the generated line.
    if server.is_empty() || server.contains(|c: char| c.is_whitespace() || "\"{}#".contains(c)) {
        return false;
    }
    Address::parse(server).is_ok() || (!server.contains("://") && is_file(server))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(stub: &str, upstream: &str) -> Result<ConfigMap, String> {
        ConfigMap::parse(Some(stub), Some(upstream), &|path| path == "/etc/corp-resolv.conf")
            .map_err(|error| error.to_string())
    }

    #[test]
    fn both_keys_are_read_and_domains_come_sorted() {
        let map = parse(
            r#"{"b.example": ["10.0.0.1", "10.0.0.2:5353"], "a.example": ["tls://10.0.0.3%dns.corp", "/etc/corp-resolv.conf"]}"#,
            r#"["192.0.2.1", "[2001:db8::1]:53"]"#,
        )
        .unwrap();
        assert_eq!(map.stub_domains.keys().collect::<Vec<_>>(), ["a.example", "b.example"]);
        assert_eq!(map.upstream_nameservers, ["192.0.2.1", "[2001:db8::1]:53"]);
    }

    #[test]
    fn missing_and_blank_keys_mean_nothing_is_set() {
        assert_eq!(ConfigMap::parse(None, None, &|_| false), Ok(ConfigMap::default()));
        assert_eq!(parse(" \n", ""), Ok(ConfigMap::default()));
    }

    #[test]
    fn one_fault_refuses_the_whole_map_and_says_which() {
        for (stub, upstream, part) in [
            ("{", "", "stubDomains: "),
            (r#"["a"]"#, "", "expected a JSON object"),
            (r#"{"Corp.example": ["10.0.0.1"]}"#, "", "\"Corp.example\" is not a domain name"),
            (r#"{"-a.example": ["10.0.0.1"]}"#, "", "DNS-1123"),
            (r#"{"a.example": []}"#, "", "no servers"),
            (r#"{"a.example": ["ns.corp"]}"#, "", "\"ns.corp\" (for \"a.example\")"),
            (r#"{"a.example": ["https://10.0.0.1"]}"#, "", "dns:// or tls://"),
            (r#"{"a.example": ["10.0.0.1 {"]}"#, "", "is not IP"),
            ("", r#"["1.1.1.1","1.1.1.2","1.1.1.3","1.1.1.4"]"#, "at most 3"),
            ("", r#"["resolver.example"]"#, "upstreamNameservers: \"resolver.example\""),
            ("", r#"["tls://10.0.0.1"]"#, "IP:port"),
            ("", "{}", "expected a JSON list"),
        ] {
            let error = parse(stub, upstream).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
