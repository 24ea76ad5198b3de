//! Where a datagram came from and which local address it was sent to, in the kernel's own form: the way back of its
//! reply is the same bytes, hardly touched.

#![allow(unsafe_code)]

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};

/// The way back to the sender of one datagram, kept while its reply is made.
#[derive(Clone, Copy)]
pub struct ReturnPath {
    name: Name,
    name_len: libc::socklen_t,
    control: Control,
    control_len: usize,
}

impl ReturnPath {
    /// Turns what the kernel gave with a query (`control_len` octets of it valid) into what its reply needs.
    pub(super) fn new(name: Name, name_len: libc::socklen_t, mut control: Control, control_len: usize) -> Self {
        let control_len = control.turn(control_len);
        Self { name, name_len, control, control_len }
    }
}

/// Sends one reply without waiting. Errors: errno as it is, `WouldBlock` if the socket's buffer is full.
pub fn send(fd: BorrowedFd<'_>, reply: &[u8], path: &ReturnPath) -> io::Result<()> {
    let mut path = *path;
    let mut iov = libc::iovec { iov_base: reply.as_ptr().cast_mut().cast(), iov_len: reply.len() };
    // SAFETY: an all-zero msghdr is valid (no name, no data); the fields set next point at locals that outlive the
    // call, and sendmsg only reads through them.
    let n = unsafe {
        let mut header: libc::msghdr = std::mem::zeroed();
        header.msg_name = (&raw mut path.name).cast();
        header.msg_namelen = path.name_len;
        header.msg_iov = &raw mut iov;
        header.msg_iovlen = 1;
        if path.control_len > 0 {
            header.msg_control = (&raw mut path.control).cast();
            header.msg_controllen = path.control_len as _;
        }
        libc::sendmsg(fd.as_raw_fd(), &header, libc::MSG_DONTWAIT)
    };
    if n < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

pub(super) const NAME_LEN: libc::socklen_t = size_of::<Name>() as _;
pub(super) const CONTROL_LEN: usize = size_of::<Control>();

/// A socket address of either family, as the kernel writes it.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) union Name {
    family: libc::sa_family_t,
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

impl Name {
    pub(super) fn address(&self) -> SocketAddr {
        // SAFETY: the kernel wrote the family and the fields that belong to it; every bit pattern of them is valid.
        unsafe {
            if libc::c_int::from(self.family) == libc::AF_INET {
                let ip = Ipv4Addr::from(u32::from_be(self.v4.sin_addr.s_addr));
                return SocketAddrV4::new(ip, u16::from_be(self.v4.sin_port)).into();
            }
            let (ip, port) = (Ipv6Addr::from(self.v6.sin6_addr.s6_addr), u16::from_be(self.v6.sin6_port));
            match ip.to_ipv4_mapped() {
                Some(ip) => SocketAddrV4::new(ip, port).into(),
                None => SocketAddrV6::new(ip, port, self.v6.sin6_flowinfo, self.v6.sin6_scope_id).into(),
            }
        }
    }
}

/// Room for one control message that holds a local address: IP_PKTINFO or IPV6_PKTINFO, ip(7) and ipv6(7). Laid out as
/// CMSG_DATA and CMSG_SPACE compute it.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Control {
    header: libc::cmsghdr,
    info: Info,
}

#[repr(C)]
#[derive(Clone, Copy)]
union Info {
    v4: libc::in_pktinfo,
    v6: libc::in6_pktinfo,
}

enum Family {
    V4,
    V6,
}

impl Control {
    /// What the first `len` bytes hold.
    fn family(&self, len: usize) -> Option<Family> {
        let holds = |info: usize| len >= size_of::<libc::cmsghdr>() + info;
        match (self.header.cmsg_level, self.header.cmsg_type) {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) if holds(size_of::<libc::in_pktinfo>()) => Some(Family::V4),
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) if holds(size_of::<libc::in6_pktinfo>()) => Some(Family::V6),
            _ => None,
        }
    }

    pub(super) fn local(&self, len: usize) -> Option<IpAddr> {
        // SAFETY: `family` checked which of the two the kernel wrote.
        self.family(len).map(|family| unsafe {
            match family {
                Family::V4 => Ipv4Addr::from(u32::from_be(self.info.v4.ipi_addr.s_addr)).into(),
                Family::V6 => Ipv6Addr::from(self.info.v6.ipi6_addr.s6_addr).to_canonical(),
            }
        })
    }

    /// Makes what was received with a query fit to send its reply, and returns how much of it to send. The interface
    /// is left to routing (the way back may be another), except where the address means nothing without it.
    pub(super) fn turn(&mut self, len: usize) -> usize {
        let info = match self.family(len) {
            None => return 0,
            Some(Family::V4) => {
                self.info.v4.ipi_ifindex = 0;
                size_of::<libc::in_pktinfo>()
            }
            Some(Family::V6) => {
                // SAFETY: `family` saw that the kernel wrote this one.
                let v6 = unsafe { &mut self.info.v6 };
                if !Ipv6Addr::from(v6.ipi6_addr.s6_addr).is_unicast_link_local() {
                    v6.ipi6_ifindex = 0;
                }
                size_of::<libc::in6_pktinfo>()
            }
        };
        // SAFETY: CMSG_LEN and CMSG_SPACE only compute.
        unsafe {
            self.header.cmsg_len = libc::CMSG_LEN(info as _) as _;
            libc::CMSG_SPACE(info as _) as usize
        }
    }
}
