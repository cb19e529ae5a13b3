//! DNS messages (RFC 1035): one question out, the addresses of one answer in. No I/O.

use std::net::IpAddr;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
}

impl Kind {
    fn number(self) -> u16 {
        match self {
            Kind::A => 1,
            Kind::Aaaa => 28,
        }
    }
}

const CNAME: u16 = 5;
const CLASS_INTERNET: u16 = 1;
const HEADER_BYTES: usize = 12;
/// A name on the wire, RFC 1035 section 2.3.4.
const NAME_BYTES_MAX: usize = 255;
/// Compression pointers that are followed in one name: more is a loop.
const POINTERS_MAX: usize = 16;
/// Addresses that are kept of one answer: more than anybody tries.
const ADDRESSES_MAX: usize = 16;

/// What an answer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The addresses of the name; none where it exists without such an address.
    Addresses(Vec<IpAddr>),
    /// There is no such name.
    NoSuchName,
    /// The server would not or could not say (RCODE).
    Refused(u8),
    /// The answer did not fit into a datagram.
    Truncated,
    /// Not an answer to this question: somebody else's, or a forgery. To be passed over.
    NotOurs,
    /// An answer to this question that nobody can read.
    Malformed,
}

/// The question for a name, or `None` for a name that is none.
pub(crate) fn question(id: u16, name: &str, kind: Kind) -> Option<Vec<u8>> {
    let mut message = Vec::with_capacity(HEADER_BYTES + name.len() + 6);
    message.extend(id.to_be_bytes());
    // Recursion desired; one question, nothing else.
    message.extend([0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length))?;
        message.push(length);
        message.extend(label.as_bytes());
    }
    message.push(0);
    message.extend(kind.number().to_be_bytes());
    message.extend(CLASS_INTERNET.to_be_bytes());
    (message.len() <= HEADER_BYTES + NAME_BYTES_MAX + 4).then_some(message)
}

/// Reads what came back for a question.
pub(crate) fn read_answer(message: &[u8], id: u16, name: &str, kind: Kind) -> Answer {
    let mut reader = Reader { message, at: 0 };
    let Some([found_id, flags, questions, answers, _, _]) = reader.header() else { return Answer::NotOurs };
    let is_answer = flags & 0x8000 != 0;
    if found_id != id || !is_answer || questions != 1 {
        return Answer::NotOurs;
    }
    let Some(asked) = reader.name() else { return Answer::NotOurs };
    let asked_kind = reader.word();
    let asked_class = reader.word();
    let same = asked.eq_ignore_ascii_case(name)
        && asked_kind == Some(kind.number())
        && asked_class == Some(CLASS_INTERNET);
    if !same {
        return Answer::NotOurs;
    }
    if flags & 0x0200 != 0 {
        return Answer::Truncated;
    }
    match flags & 0x000f {
        0 => read_addresses(&mut reader, answers, asked, kind).map_or(Answer::Malformed, Answer::Addresses),
        3 => Answer::NoSuchName,
        code => Answer::Refused(code as u8),
    }
}

/// The addresses of `wanted`, through the aliases that the answer lists. Records of other names are passed over.
fn read_addresses(
    reader: &mut Reader<'_>,
    count: u16,
    mut wanted: String,
    kind: Kind,
) -> Option<Vec<IpAddr>> {
    let mut addresses = Vec::new();
    for _ in 0..count {
        let owner = reader.name()?;
        let (found_kind, class) = (reader.word()?, reader.word()?);
        let _time_to_live = (reader.word()?, reader.word()?);
        let length = usize::from(reader.word()?);
        let data_at = reader.at;
        let data = reader.message.get(data_at..data_at + length)?;
        if class == CLASS_INTERNET && owner.eq_ignore_ascii_case(&wanted) {
            if found_kind == CNAME {
                wanted = Reader { message: reader.message, at: data_at }.name()?;
            } else if found_kind == kind.number() && addresses.len() < ADDRESSES_MAX {
                addresses.push(address(data, kind)?);
            }
        }
        reader.at = data_at + length;
    }
    Some(addresses)
}

fn address(data: &[u8], kind: Kind) -> Option<IpAddr> {
    match kind {
        Kind::A => <[u8; 4]>::try_from(data).ok().map(IpAddr::from),
        Kind::Aaaa => <[u8; 16]>::try_from(data).ok().map(IpAddr::from),
    }
}

struct Reader<'a> {
    message: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn word(&mut self) -> Option<u16> {
        let bytes = self.message.get(self.at..self.at + 2)?;
        self.at += 2;
        Some(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn header(&mut self) -> Option<[u16; 6]> {
        let mut words = [0; 6];
        for word in &mut words {
            *word = self.word()?;
        }
        Some(words)
    }

    /// A name, with its compression pointers followed; afterwards the reader stands behind it.
    fn name(&mut self) -> Option<String> {
        let mut name = String::new();
        let mut at = self.at;
        let mut behind = None;
        let mut pointers = 0;
        loop {
            let length = *self.message.get(at)?;
            match length {
                0 => break,
                1..=63 => {
                    let label = self.message.get(at + 1..at + 1 + usize::from(length))?;
                    if !name.is_empty() {
                        name.push('.');
                    }
                    name.push_str(str::from_utf8(label).ok().filter(|label| label.is_ascii())?);
                    at += 1 + usize::from(length);
                }
                0xc0.. => {
                    let low = *self.message.get(at + 1)?;
                    behind.get_or_insert(at + 2);
                    at = usize::from(u16::from_be_bytes([length & 0x3f, low]));
                    pointers += 1;
                }
                64..=0xbf => return None,
            }
            if name.len() > NAME_BYTES_MAX || pointers > POINTERS_MAX {
                return None;
            }
        }
        self.at = behind.unwrap_or(at + 1);
        Some(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer to the question, with records `(owner, kind, data)`.
    fn answer(question: &[u8], flags: u16, records: &[(&[u8], u16, &[u8])]) -> Vec<u8> {
        let mut message = question.to_vec();
        message[2..4].copy_from_slice(&flags.to_be_bytes());
        message[6..8].copy_from_slice(&(records.len() as u16).to_be_bytes());
        for (owner, kind, data) in records {
            message.extend(*owner);
            message.extend(kind.to_be_bytes());
            message.extend(CLASS_INTERNET.to_be_bytes());
            message.extend([0, 0, 0, 60]);
            message.extend((data.len() as u16).to_be_bytes());
            message.extend(*data);
        }
        message
    }

    const SAME_NAME: &[u8] = &[0xc0, 12];
    const ALIAS: &[u8] = b"\x03box\x03lab\x00";

    #[test]
    fn addresses_are_found_through_aliases_and_those_of_others_are_not() {
        let question = question(7, "gc.lab", Kind::A).unwrap();
        let message = answer(
            &question,
            0x8180,
            &[
                (b"\x05other\x00", 1, &[9, 9, 9, 9]),
                (SAME_NAME, CNAME, ALIAS),
                (ALIAS, 1, &[10, 0, 0, 1]),
                (ALIAS, 28, &[0; 16]),
                (b"\x03BOX\x03lab\x00", 1, &[10, 0, 0, 2]),
            ],
        );
        let expected = Answer::Addresses(vec![[10, 0, 0, 1].into(), [10, 0, 0, 2].into()]);
        assert_eq!(read_answer(&message, 7, "GC.lab", Kind::A), expected);
        assert_eq!(read_answer(&message, 8, "gc.lab", Kind::A), Answer::NotOurs);
        assert_eq!(read_answer(&message, 7, "gx.lab", Kind::A), Answer::NotOurs);
        assert_eq!(read_answer(&message, 7, "gc.lab", Kind::Aaaa), Answer::NotOurs);
    }

    #[test]
    fn refusals_truncation_and_nonsense_are_told_apart() {
        let question = question(7, "gc.lab", Kind::Aaaa).unwrap();
        let read = |flags, records: &[(&[u8], u16, &[u8])]| {
            read_answer(&answer(&question, flags, records), 7, "gc.lab", Kind::Aaaa)
        };
        assert_eq!(read(0x8183, &[]), Answer::NoSuchName);
        assert_eq!(read(0x8182, &[]), Answer::Refused(2));
        assert_eq!(read(0x8380, &[]), Answer::Truncated);
        assert_eq!(read(0x0100, &[]), Answer::NotOurs);
        assert_eq!(read(0x8180, &[]), Answer::Addresses(vec![]));
        assert_eq!(read(0x8180, &[(SAME_NAME, 28, &[1; 4])]), Answer::Malformed);
        // The owner's name points at itself.
        let loops = [0xc0, question.len() as u8];
        assert_eq!(read(0x8180, &[(&loops, 28, &[0; 16])]), Answer::Malformed);
    }

    #[test]
    fn every_cut_of_an_answer_is_read_without_a_panic() {
        let question = question(7, "gc.lab", Kind::A).unwrap();
        let message = answer(&question, 0x8180, &[(SAME_NAME, CNAME, ALIAS), (ALIAS, 1, &[10, 0, 0, 1])]);
        for cut in 0..message.len() {
            let found = read_answer(&message[..cut], 7, "gc.lab", Kind::A);
            assert!(matches!(found, Answer::NotOurs | Answer::Malformed), "{cut}: {found:?}");
        }
    }

    #[test]
    fn a_name_that_is_none_is_not_asked_for() {
        for bad in ["", "a..b", ".a", &"a".repeat(64), &["a"; 128].join(".")] {
            assert_eq!(question(1, bad, Kind::A), None, "{bad}");
        }
    }
}
