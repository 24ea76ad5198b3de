//! The upstream of every server under test: answers any question from its name alone, over UDP and TCP on one loopback
//! port, and counts what it was asked. External names have addresses of both families (`cdn-*` behind an alias, `v4-*`
//! of IPv4 only); `svc-*.team-*.svc.cluster.local` has an IPv4 address, the names above it exist without data, and
//! nothing else exists under cluster.local.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::sys::{self, Batch};
use crate::workload::{A, AAAA};

/// Longer than any run, shorter than the caps that servers put on lifetimes.
const TTL: u32 = 3600;
const NEGATIVE_TTL: u32 = 1800;
/// What CoreDNS's kubernetes plugin gives all names of the cluster unless it is told otherwise.
const CLUSTER_TTL: u32 = 5;

/// How long the names of the cluster may be kept. Others may always be kept for longer than any run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cluster {
    /// Longer than any run.
    Lasting,
    /// As short as in a real one.
    Brief,
}

pub(crate) struct Answerer {
    pub(crate) address: SocketAddr,
    asked: Arc<AtomicU64>,
    /// Answers what comes over UDP.
    thread: JoinHandle<()>,
}

impl Answerer {
    /// Starts the threads; they end with the process.
    pub(crate) fn start(cluster: Cluster) -> io::Result<Self> {
        let (udp, tcp) = bind_both()?;
        let address = udp.local_addr()?;
        let asked = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&asked);
        let thread = thread::spawn(move || serve_udp(&udp, cluster, &counter));
        let counter = Arc::clone(&asked);
        thread::spawn(move || {
            for stream in tcp.incoming().flatten() {
                let counter = Arc::clone(&counter);
                thread::spawn(move || serve_tcp(stream, cluster, &counter));
            }
        });
        Ok(Self { address, asked, thread })
    }

    /// Queries so far, over both transports.
    pub(crate) fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    /// The CPU time that its answers over UDP have taken so far.
    pub(crate) fn cpu_time(&self) -> io::Result<Duration> {
        sys::thread_cpu_time(&self.thread)
    }
}

/// A port that is free for both transports.
fn bind_both() -> io::Result<(UdpSocket, TcpListener)> {
    let mut last = None;
    for _ in 0..16 {
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        match TcpListener::bind(udp.local_addr()?) {
            Ok(tcp) => return Ok((udp, tcp)),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| io::ErrorKind::AddrInUse.into()))
}

fn serve_udp(socket: &UdpSocket, cluster: Cluster, asked: &AtomicU64) {
    let mut batch = Batch::unconnected();
    let mut response = Vec::new();
    while let Ok(count) = batch.receive(socket, true) {
        let mut ready = 0;
        for i in 0..count {
            if answer(batch.received(i), cluster, &mut response) {
                batch.reply(i, ready, &response);
                ready += 1;
            }
        }
        asked.fetch_add(count as u64, Ordering::Relaxed);
        // A client that closed its socket is reported here; the others still want their answers.
        let _ = batch.send(socket, ready);
    }
}

fn serve_tcp(mut stream: TcpStream, cluster: Cluster, asked: &AtomicU64) {
    let mut response = Vec::new();
    let mut length = [0; 2];
    while stream.read_exact(&mut length).is_ok() {
        let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
        if stream.read_exact(&mut query).is_err() || !answer(&query, cluster, &mut response) {
            return;
        }
        asked.fetch_add(1, Ordering::Relaxed);
        let mut framed = (response.len() as u16).to_be_bytes().to_vec();
        framed.extend_from_slice(&response);
        if stream.write_all(&framed).is_err() {
            return;
        }
    }
}

/// Writes the response to `query` into `out`; false for what is not a query with one question.
fn answer(query: &[u8], cluster: Cluster, out: &mut Vec<u8>) -> bool {
    let Some(question) = Asked::parse(query) else { return false };
    out.clear();
    out.extend_from_slice(&query[..question.end]);
    out[2] = 0x80 | (query[2] & 0x01);
    out[3] = 0x80;
    out[6..12].fill(0);
    let labels = &question.labels;
    let in_cluster = labels.len() >= 2 && question.ends_with(query, &["cluster", "local"]);
    let service = in_cluster && question.is_service(query);
    let exists = !in_cluster || service || question.is_above_services(query);
    let (ttl, negative_ttl) =
        if in_cluster && cluster == Cluster::Brief { (CLUSTER_TTL, CLUSTER_TTL) } else { (TTL, NEGATIVE_TTL) };
    let records = match question.kind {
        A if service || !in_cluster => addresses(out, &question, service, A, ttl),
        AAAA if !in_cluster && !query[13..].starts_with(b"v4-") => addresses(out, &question, service, AAAA, ttl),
        _ => 0,
    };
    out[7] = records;
    if records == 0 {
        out[3] |= if exists { 0 } else { 3 };
        out[9] = 1;
        soa(out, labels[labels.len().saturating_sub(2)], negative_ttl);
    }
    if question.edns {
        out[11] = 1;
        out.extend_from_slice(&[0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0]);
    }
    true
}

/// One address for a service, else one, two or four by the length of the name, for `cdn-*` behind an alias.
fn addresses(out: &mut Vec<u8>, question: &Asked, single: bool, kind: u16, ttl: u32) -> u8 {
    let mut owner = 12;
    let mut records = 0;
    let count = if single { 1 } else { [2, 1, 2, 4][question.end % 4] };
    if out[13..].starts_with(b"cdn-") {
        record(out, owner, 5, ttl, 7);
        owner = out.len();
        out.extend_from_slice(b"\x04edge\xc0\x0c");
        records += 1;
    }
    for host in 1..=count {
        let length = if kind == A { 4 } else { 16 };
        record(out, owner, kind, ttl, length);
        let mut data = [0; 16];
        data[0] = if kind == A { 192 } else { 0x20 };
        data[length as usize - 1] = host;
        out.extend_from_slice(&data[..length as usize]);
        records += 1;
    }
    records
}

/// The SOA of the zone whose name starts at `zone` in the question.
fn soa(out: &mut Vec<u8>, zone: usize, ttl: u32) {
    record(out, zone, 6, ttl, 2 * 5 + 20);
    for host in [b"\x02ns", b"\x02hm"] {
        out.extend_from_slice(host);
        out.extend_from_slice(&pointer(zone));
    }
    for value in [1, 7200, 3600, 86400, ttl] {
        out.extend_from_slice(&value.to_be_bytes());
    }
}

fn record(out: &mut Vec<u8>, owner: usize, kind: u16, ttl: u32, length: u16) {
    out.extend_from_slice(&pointer(owner));
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&[0, 1]);
    out.extend_from_slice(&ttl.to_be_bytes());
    out.extend_from_slice(&length.to_be_bytes());
}

fn pointer(offset: usize) -> [u8; 2] {
    (0xc000 | offset as u16).to_be_bytes()
}

/// The question of a query: where its labels start, where it ends, and whether an OPT record follows.
struct Asked {
    labels: Vec<usize>,
    end: usize,
    kind: u16,
    edns: bool,
}

impl Asked {
    fn parse(query: &[u8]) -> Option<Self> {
        if query.len() < 17 || query[2] & 0x80 != 0 || query[4..6] != [0, 1] {
            return None;
        }
        let mut labels = Vec::with_capacity(8);
        let mut at = 12;
        loop {
            match *query.get(at)? {
                0 => break,
                length if length < 64 => {
                    labels.push(at);
                    at += 1 + usize::from(length);
                }
                _ => return None,
            }
        }
        if labels.is_empty() {
            labels.push(at);
        }
        let kind = u16::from_be_bytes([*query.get(at + 1)?, *query.get(at + 2)?]);
        query.get(at + 4)?;
        Some(Self { labels, end: at + 5, kind, edns: query[10..12] != [0, 0] })
    }

    fn label<'a>(&self, query: &'a [u8], i: usize) -> &'a [u8] {
        let at = self.labels[i];
        &query[at + 1..at + 1 + usize::from(query[at])]
    }

    fn ends_with(&self, query: &[u8], suffix: &[&str]) -> bool {
        let skip = self.labels.len() - suffix.len();
        suffix.iter().enumerate().all(|(i, want)| self.label(query, skip + i).eq_ignore_ascii_case(want.as_bytes()))
    }

    fn starts(&self, query: &[u8], i: usize, with: &str) -> bool {
        let label = self.label(query, i);
        label.len() > with.len() && label[..with.len()].eq_ignore_ascii_case(with.as_bytes())
    }

    /// Whether a name of the cluster is `svc-*.team-*.svc.cluster.local`.
    fn is_service(&self, query: &[u8]) -> bool {
        self.labels.len() == 5
            && self.starts(query, 0, "svc-")
            && self.starts(query, 1, "team-")
            && self.label(query, 2).eq_ignore_ascii_case(b"svc")
    }

    /// Whether a name of the cluster is `team-*.svc.cluster.local` or above that.
    fn is_above_services(&self, query: &[u8]) -> bool {
        match self.labels.len() {
            2 => true,
            3 => self.label(query, 0).eq_ignore_ascii_case(b"svc"),
            4 => self.starts(query, 0, "team-") && self.label(query, 1).eq_ignore_ascii_case(b"svc"),
            _ => false,
        }
    }
}
