//! What a running agent tells of itself at its metrics endpoint.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::PATIENCE;
use crate::observe::counters::UPSTREAM_UP;

/// The most that is read, in octets; somebody else may be there.
const LONGEST: u64 = 4 << 20;

/// Whether each upstream is used, by its label; empty where nobody tells.
pub(super) async fn upstreams(endpoint: SocketAddr) -> BTreeMap<String, bool> {
    match timeout(PATIENCE, get(reachable(endpoint))).await {
        Ok(Ok(text)) => read(&text),
        _ => BTreeMap::new(),
    }
}

async fn get(target: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect(target).await?;
    stream.write_all(format!("GET /metrics HTTP/1.0\r\nHost: {target}\r\n\r\n").as_bytes()).await?;
    let mut text = Vec::new();
    stream.take(LONGEST).read_to_end(&mut text).await?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn read(text: &str) -> BTreeMap<String, bool> {
    let series = text.lines().filter_map(|line| line.strip_prefix(UPSTREAM_UP.name)?.strip_prefix("{to=\""));
    let told = series.filter_map(|rest| rest.split_once("\"} "));
    told.map(|(to, value)| (to.to_owned(), value.trim() != "0")).collect()
}

/// Where to reach what listens on every address.
fn reachable(endpoint: SocketAddr) -> SocketAddr {
    let ip = match endpoint.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, endpoint.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstreams_are_found_among_other_metrics() {
        let text = "HTTP/1.0 200 OK\r\n\r\n# HELP dnslet_upstream_up 0 while.\n# TYPE dnslet_upstream_up gauge\n\
                    dnslet_upstream_up{to=\"10.0.0.10:53\"} 1\ndnslet_upstream_up{to=\"[fd00::1]:53\"} 0\n\
                    dnslet_upstream_rtt_seconds{to=\"10.0.0.10:53\"} 0\n";
        let told = [("10.0.0.10:53".to_owned(), true), ("[fd00::1]:53".to_owned(), false)];
        assert_eq!(read(text), told.into());
        assert_eq!(read("<html>"), BTreeMap::new());
    }
}
