//! Numbers of the protocol and their names: RCODE, TYPE, CLASS, OPCODE, extended error.

use std::fmt;

/// A response code, extended bits included (RFC 6895 section 2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Rcode(pub u16);

/// A resource record type (RFC 6895 section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Type(pub u16);

/// A class (RFC 6895 section 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Class(pub u16);

/// An extended DNS error INFO-CODE (RFC 8914 section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ede(pub u16);

/// The transport of the client's side, as metrics and replies see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// One datagram a message.
    Udp,
    /// Two octets of length before each message.
    Tcp,
}

/// OPCODE QUERY; every other one is answered with NOTIMP.
pub const OPCODE_QUERY: u8 = 0;

macro_rules! named {
    ($of:ident, $prefix:literal, { $($(#[$doc:meta])* $name:ident = $value:literal,)* }) => {
        #[allow(missing_docs, reason = "the names are those of the registry")]
        impl $of {
            $($(#[$doc])* pub const $name: $of = $of($value);)*

            /// Every code that has a name here.
            pub const NAMED: &'static [(&'static str, $of)] = &[$((stringify!($name), $of($value)),)*];

            /// The registered mnemonic, where there is one.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some(stringify!($name)),)*
                    _ => None,
                }
            }

            /// The code of a mnemonic, in any case; also the numeric form that `Display` writes.
            pub fn from_name(name: &str) -> Option<$of> {
                Self::NAMED
                    .iter()
                    .find(|(known, _)| known.eq_ignore_ascii_case(name))
                    .map(|&(_, code)| code)
                    .or_else(|| numeric(name, $prefix).map($of))
            }
        }

        impl fmt::Display for $of {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.name() {
                    Some(name) => f.write_str(name),
                    None => write!(f, concat!($prefix, "{}"), self.0),
                }
            }
        }
    };
}

named!(Rcode, "RCODE", {
    NOERROR = 0, FORMERR = 1, SERVFAIL = 2, NXDOMAIN = 3, NOTIMP = 4, REFUSED = 5, YXDOMAIN = 6, YXRRSET = 7,
    NXRRSET = 8, NOTAUTH = 9, NOTZONE = 10, DSOTYPENI = 11, BADVERS = 16, BADKEY = 17, BADTIME = 18, BADMODE = 19,
    BADNAME = 20, BADALG = 21, BADTRUNC = 22, BADCOOKIE = 23,
});

named!(Type, "TYPE", {
    A = 1, NS = 2, MD = 3, MF = 4, CNAME = 5, SOA = 6, MB = 7, MG = 8, MR = 9, NULL = 10, WKS = 11, PTR = 12,
    HINFO = 13, MINFO = 14, MX = 15, TXT = 16, RP = 17, AFSDB = 18, X25 = 19, ISDN = 20, RT = 21, SIG = 24, KEY = 25,
    PX = 26, AAAA = 28, LOC = 29, NXT = 30, SRV = 33, NAPTR = 35, KX = 36, CERT = 37, DNAME = 39, OPT = 41, DS = 43,
    SSHFP = 44, RRSIG = 46, NSEC = 47, DNSKEY = 48, NSEC3 = 50, NSEC3PARAM = 51, TLSA = 52, CDS = 59, CDNSKEY = 60,
    OPENPGPKEY = 61, SVCB = 64, HTTPS = 65, SPF = 99, TSIG = 250, IXFR = 251, AXFR = 252, MAILB = 253, MAILA = 254,
    ANY = 255, URI = 256, CAA = 257,
});

named!(Class, "CLASS", {
    IN = 1, CH = 3, HS = 4, NONE = 254, ANY = 255,
});

#[allow(missing_docs, reason = "the names are those of the registry")]
impl Ede {
    pub const OTHER: Ede = Ede(0);
    pub const STALE_ANSWER: Ede = Ede(3);
    pub const CACHED_ERROR: Ede = Ede(13);
    pub const NOT_READY: Ede = Ede(14);
    pub const BLOCKED: Ede = Ede(15);
    pub const PROHIBITED: Ede = Ede(18);
    pub const STALE_NXDOMAIN: Ede = Ede(19);
    pub const NOT_AUTHORITATIVE: Ede = Ede(20);
    pub const NOT_SUPPORTED: Ede = Ede(21);
    pub const NO_REACHABLE_AUTHORITY: Ede = Ede(22);
    pub const NETWORK_ERROR: Ede = Ede(23);
    pub const INVALID_DATA: Ede = Ede(24);
    pub const SYNTHESIZED: Ede = Ede(29);
    /// In the reply to a probe of our own, to tell it from anybody else's: of the codes for private use (RFC 8914 section
    /// 5.2).
    pub const OURSELVES: Ede = Ede(53_053);
}

impl Type {
    /// Whether this is a transfer, which a cache neither answers nor passes on.
    pub const fn is_transfer(self) -> bool {
        matches!(self, Type::AXFR | Type::IXFR)
    }
}

fn numeric(name: &str, prefix: &str) -> Option<u16> {
    let (head, digits) = name.split_at_checked(prefix.len())?;
    if head.eq_ignore_ascii_case(prefix) { digits.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_go_both_ways() {
        assert_eq!(Type::AAAA.to_string(), "AAAA");
        assert_eq!(Type(65280).to_string(), "TYPE65280");
        assert_eq!(Type::from_name("type65280"), Some(Type(65280)));
        assert_eq!(Rcode::from_name("servfail"), Some(Rcode::SERVFAIL));
        assert_eq!(Rcode::from_name("nope"), None);
        assert_eq!(Rcode(99).to_string(), "RCODE99");
        assert_eq!(Class::from_name("CLASS7"), Some(Class(7)));
    }
}
