//! The twelve octets at the head of a message (RFC 1035 section 4.1.1). Every function here wants a message that has
//! them; [`LENGTH`] is what callers check.

use super::codes::Rcode;

/// The header's length in octets.
pub const LENGTH: usize = 12;

/// QR, in the third octet.
pub const QR: u8 = 0x80;
/// AA, in the third octet.
pub const AA: u8 = 0x04;
/// TC, in the third octet.
pub const TC: u8 = 0x02;
/// RD, in the third octet.
pub const RD: u8 = 0x01;
/// RA, in the fourth octet.
pub const RA: u8 = 0x80;
/// AD, in the fourth octet (RFC 4035 section 3.2.3).
pub const AD: u8 = 0x20;
/// CD, in the fourth octet (RFC 4035 section 3.2.2).
pub const CD: u8 = 0x10;

/// Which count of the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// QDCOUNT.
    Question = 4,
    /// ANCOUNT.
    Answer = 6,
    /// NSCOUNT.
    Authority = 8,
    /// ARCOUNT.
    Additional = 10,
}

/// The message ID.
pub fn id(message: &[u8]) -> u16 {
    read_u16(message, 0)
}

/// Sets the message ID.
pub fn set_id(message: &mut [u8], id: u16) {
    write_u16(message, 0, id);
}

/// QR.
pub fn is_response(message: &[u8]) -> bool {
    message[2] & QR != 0
}

/// The OPCODE.
pub fn opcode(message: &[u8]) -> u8 {
    message[2] >> 3 & 0x0f
}

/// TC.
pub fn truncated(message: &[u8]) -> bool {
    message[2] & TC != 0
}

/// The four low bits of the RCODE; the upper ones are in the OPT record.
pub fn rcode(message: &[u8]) -> Rcode {
    Rcode(u16::from(message[3] & 0x0f))
}

/// One of the four counts.
pub fn count(message: &[u8], which: Count) -> u16 {
    read_u16(message, which as usize)
}

/// Sets one of the four counts.
pub fn set_count(message: &mut [u8], which: Count, value: u16) {
    write_u16(message, which as usize, value);
}

/// Two octets, most significant first.
pub fn read_u16(message: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([message[at], message[at + 1]])
}

/// Writes two octets, most significant first.
pub fn write_u16(message: &mut [u8], at: usize, value: u16) {
    message[at..at + 2].copy_from_slice(&value.to_be_bytes());
}
