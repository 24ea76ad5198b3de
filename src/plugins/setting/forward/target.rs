//! One TO of a `forward` line: an address, a file or a host name, told apart by how it is written.

use std::path::PathBuf;

use crate::corefile::{Diagnostic, Token};
use crate::dns::Name;
use crate::plugins::report::Report;
use crate::upstream::spec::Target;
use crate::upstream::{Address, AddressError, Transport};

pub(super) fn target(word: &Token, report: &mut Report<'_>) -> Option<Target> {
    let error = match Address::parse(&word.text) {
        Ok(address) => return Some(Target::Address(address)),
        Err(error) => error,
    };
    let text = &*word.text;
    let refused = |message: String, help: &str| Diagnostic::error(word.span, message).help(help);
    let finding = match &error {
        AddressError::Scheme(scheme) if matches!(scheme.to_lowercase().as_str(), "https" | "h3" | "doh") => {
            refused("DNS over HTTPS upstreams are not offered yet".into(), "use the same server over TLS: `tls://IP`")
        }
        AddressError::Scheme(scheme) if matches!(scheme.to_lowercase().as_str(), "quic" | "grpc") => {
            refused(format!("{scheme} upstreams are not offered"), "use `tls://IP` or plain `IP`")
        }
        AddressError::NotAnAddress(_) if text.is_empty() => {
            refused("this upstream is empty".into(), "name an IP address or a file; is a variable not set?")
        }
        AddressError::NotAnAddress(_) if text == "<nil>" || text.starts_with("__") => refused(
            format!("the template left `{text}` in place of an upstream"),
            "the address it stands for was not known when this file was made",
        ),
        AddressError::NotAnAddress(_) if text.contains('/') && !text.contains("://") => {
            return Some(Target::File(PathBuf::from(text)));
        }
        AddressError::NotAnAddress(_) => match host(text) {
            Some(host) => return Some(host),
            None => neither(word, &error),
        },
        _ => refused(error.to_string(), "write `10.0.0.10`, `10.0.0.10:5353`, `[fd00::1]:53` or `tls://9.9.9.9`"),
    };
    report.add(finding);
    None
}

/// What looks like an address, a file or a host name, but is none of them.
fn neither(word: &Token, error: &AddressError) -> Diagnostic {
    let text = &*word.text;
    if text.contains("://") {
        return Diagnostic::error(word.span, error.to_string())
            .help("write `tls://9.9.9.9`, `tls://9.9.9.9%dns.quad9.net` or `tls://dns.quad9.net`");
    }
    if text.contains(char::is_whitespace) {
        return Diagnostic::error(word.span, format!("`{text}` is not an IP address: there is a space in it"))
            .help("write each upstream as a word of its own; a variable stands for one word");
    }
    if is_numeric(text.trim_end_matches('.').rsplit('.').next().unwrap_or_default()) {
        return Diagnostic::error(word.span, format!("`{text}` is a malformed IP address"))
            .help("write all of it, such as `10.0.0.10` or `10.0.0.10:5353`");
    }
    if text.to_lowercase().ends_with(".conf") {
        return Diagnostic::error(word.span, format!("`{text}` is taken for a file, which needs a slash"))
            .help(format!("write `./{text}`"));
    }
    Diagnostic::error(word.span, format!("`{text}` is neither an IP address nor a host name with a dot"))
        .help(format!("write its IP address or its full name, or the path of a file with a slash (`./{text}`)"))
}

/// `name`, `name:port`, each after an optional `dns://` or `tls://`. A name of one label may be a file or a slip, one
/// that ends in a number is an address gone wrong (RFC 3696 section 2), and one in `.conf` is a file.
fn host(text: &str) -> Option<Target> {
    let (transport, rest) = match text.split_once("://") {
        None => (Transport::Plain, text),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("tls") => (Transport::Tls, rest),
        Some((_, rest)) => (Transport::Plain, rest),
    };
    let (host, port) = match rest.rsplit_once(':') {
        None => (rest, transport.default_port()),
        Some((host, port)) => (host, port.parse().ok()?),
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    let last = host.rsplit_once('.')?.1;
    let is_label = |label: &str| {
        let known = |octet: u8| octet.is_ascii_alphanumeric() || octet == b'-' || octet == b'_';
        label.bytes().all(known) && !label.starts_with('-') && !label.ends_with('-')
    };
    if is_numeric(last) || last.eq_ignore_ascii_case("conf") || !host.split('.').all(is_label) {
        return None;
    }
    // A certificate is checked against the name, so it has to be one that can stand there.
    if transport == Transport::Tls && rustls_pki_types::ServerName::try_from(host).is_err() {
        return None;
    }
    Some(Target::Host { name: Name::parse(host).ok()?, port, transport })
}

fn is_numeric(label: &str) -> bool {
    label.bytes().all(|octet| octet.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_write_a_host_name() {
        for (text, expected) in [
            ("dns.example.net", "dns.example.net:53"),
            ("dns.example.net.", "dns.example.net:53"),
            ("DNS.Example.net:5353", "dns.example.net:5353"),
            ("dns://dns.example.net", "dns.example.net:53"),
            ("dns://dns.example.net:54", "dns.example.net:54"),
            ("tls://dns.example.net", "tls://dns.example.net:853"),
            ("TLS://dns.example.net:8853", "tls://dns.example.net:8853"),
            ("kube-dns._x.svc", "kube-dns._x.svc:53"),
            ("4.example", "4.example:53"),
        ] {
            assert_eq!(host(text).map(|host| host.to_string()).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_host_name() {
        for text in [
            "localhost",
            "localhost.",
            "localhost:53",
            "1.2.3",
            "1.2.3.",
            "1.2.3.4.5",
            "256.1.1.1:53",
            "a..b",
            ".a.b",
            "a.b..",
            "-a.b",
            "a-.b",
            "a b.c",
            "a.b%c",
            "[a.b]:53",
            "fe80::1.b",
            "resolv.conf",
            "tls://-a.b",
            "a.<nil>",
        ] {
            assert_eq!(host(text), None, "{text}");
        }
    }
}
