//! Messages as they stand in the octets of a connection (RFC 1035 section 4.2.2).

use crate::dns::header;

/// The most octets of a message that is read, as over UDP: no query needs more. Of a longer one the header is kept, which
/// is enough to say that it is malformed.
pub(crate) const LONGEST: usize = crate::sys::mmsg::DATAGRAM;

/// What is at the front of some octets.
pub(crate) enum Front<'a> {
    /// The beginning of a message, or nothing.
    Unfinished,
    /// A whole message.
    Whole(&'a [u8]),
    /// The beginning of a message that is too long.
    Long(Long),
}

/// A message that is too long, on its way past.
pub(crate) struct Long {
    header: [u8; header::LENGTH],
    /// Octets of it that are still to come.
    rest: usize,
}

/// The message at the front of `bytes`.
pub(crate) fn front(bytes: &[u8]) -> Front<'_> {
    let Some((length, bytes)) = bytes.split_first_chunk::<2>() else { return Front::Unfinished };
    let length = usize::from(u16::from_be_bytes(*length));
    match bytes.first_chunk() {
        Some(header) if length > LONGEST => Front::Long(Long { header: *header, rest: length - header.len() }),
        _ => bytes.get(..length).map_or(Front::Unfinished, Front::Whole),
    }
}

/// The octets of a message with its length in front.
pub(crate) const fn framed(length: usize) -> usize {
    2 + length
}

impl Long {
    /// Octets of it that are gone when it is found.
    pub(crate) const FOUND: usize = framed(header::LENGTH);

    /// Lets octets of it pass, and returns how many of `bytes` were its own.
    pub(crate) fn pass(&mut self, bytes: &[u8]) -> usize {
        let n = self.rest.min(bytes.len());
        self.rest -= n;
        n
    }

    /// What is left of it, once it is over.
    pub(crate) fn over(&self) -> Option<[u8; header::LENGTH]> {
        (self.rest == 0).then_some(self.header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_whole_unfinished_or_too_long() {
        assert!(matches!(front(&[]), Front::Unfinished));
        assert!(matches!(front(&[0]), Front::Unfinished));
        assert!(matches!(front(&[0, 2, 7]), Front::Unfinished));
        assert!(matches!(front(&[0, 2, 7, 8, 9]), Front::Whole([7, 8])));
        assert!(matches!(front(&[0, 0, 9]), Front::Whole([])));
        let most = [vec![0x10, 0], vec![7; LONGEST]].concat();
        assert!(matches!(front(&most), Front::Whole(message) if message.len() == LONGEST));
        assert!(matches!(front(&[vec![0xff, 0xff], vec![7; 11]].concat()), Front::Unfinished));
    }

    #[test]
    fn of_a_long_message_the_header_is_kept() {
        let bytes = [vec![0x10, 1], vec![7; header::LENGTH], vec![8; LONGEST]].concat();
        let Front::Long(mut long) = front(&bytes) else { panic!("it is too long") };
        assert_eq!(long.pass(&bytes[Long::FOUND..100]), 100 - Long::FOUND);
        assert_eq!(long.over(), None);
        assert_eq!(long.pass(&bytes[100..]), LONGEST + 1 + 2 - 100, "the next message is not its own");
        assert_eq!(long.over(), Some([7; header::LENGTH]));
    }
}
