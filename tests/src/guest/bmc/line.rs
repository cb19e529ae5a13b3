//! The line between QEMU and a BMC (hw/ipmi/ipmi_bmc_extern.c): messages end with one mark and words on the machine with
//! another; a byte that is a mark is escaped; the bytes of a message and its checksum add up to 0.

const MESSAGE_ENDS: u8 = 0xa0;
const CONTROL_ENDS: u8 = 0xa1;
const ESCAPE: u8 = 0xaa;
/// What sets an escaped byte apart from a mark.
const ESCAPED: u8 = 0x10;
/// No request is longer.
const BYTES_MAX: usize = 1024;

/// The version of this line: what a BMC says first.
pub(super) const VERSION: [u8; 2] = [0xff, 0x01];

/// What the guest asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    sequence: u8,
    /// The network function and, in its two lowest bits, the unit.
    function: u8,
    command: u8,
    /// What comes with it.
    pub data: Vec<u8>,
}

impl Request {
    /// Function and command, which tell requests apart.
    pub fn kind(&self) -> (u8, u8) {
        (self.function >> 2, self.command)
    }
}

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// A request.
    Request(Request),
    /// A word on the machine: that it was reset, or what it can do.
    Control,
}

/// What has come of a frame so far.
#[derive(Debug, Default)]
pub(super) struct Line {
    bytes: Vec<u8>,
    is_escaped: bool,
}

impl Line {
    /// Takes a byte; the frame that it ends.
    ///
    /// # Panics
    /// Where QEMU does not keep to the line.
    pub fn take(&mut self, byte: u8) -> Option<Frame> {
        match byte {
            MESSAGE_ENDS => return Some(Frame::Request(request(&std::mem::take(&mut self.bytes)))),
            CONTROL_ENDS => {
                self.bytes.clear();
                return Some(Frame::Control);
            }
            ESCAPE => self.is_escaped = true,
            byte => {
                let escaped = std::mem::take(&mut self.is_escaped);
                self.bytes.push(if escaped { byte & !ESCAPED } else { byte });
                assert!(self.bytes.len() <= BYTES_MAX, "QEMU sends a request without an end");
            }
        }
        None
    }
}

fn request(bytes: &[u8]) -> Request {
    let [sequence, function, command, data @ .., _checksum] = bytes else {
        panic!("QEMU sent {bytes:02x?}, expected a request")
    };
    assert_eq!(sum(bytes), 0, "QEMU sent {bytes:02x?} with a wrong checksum");
    Request { sequence: *sequence, function: *function, command: *command, data: data.to_vec() }
}

/// The answer to a request: its completion code, and what follows that.
pub(super) fn answer(request: &Request, answer: &[u8]) -> Vec<u8> {
    // An answer has the next function.
    let mut bytes = vec![request.sequence, request.function | 4, request.command];
    bytes.extend(answer);
    bytes.push(sum(&bytes).wrapping_neg());
    framed(&bytes, MESSAGE_ENDS)
}

/// A word of the BMC's own.
pub(super) fn control(bytes: [u8; 2]) -> Vec<u8> {
    framed(&bytes, CONTROL_ENDS)
}

fn framed(bytes: &[u8], end: u8) -> Vec<u8> {
    let mut out = Vec::new();
    for byte in bytes {
        match *byte {
            mark @ (MESSAGE_ENDS | CONTROL_ENDS | ESCAPE) => out.extend([ESCAPE, mark | ESCAPED]),
            byte => out.push(byte),
        }
    }
    out.push(end);
    out
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(bytes: &[u8]) -> Vec<Frame> {
        let mut line = Line::default();
        bytes.iter().filter_map(|byte| line.take(*byte)).collect()
    }

    #[test]
    fn a_request_comes_whole_whatever_its_bytes_are() {
        // Get Device ID, by hand: 7 + 18h + 1 + E0h = 100h.
        let whole = Request { sequence: 7, function: 0x18, command: 1, data: Vec::new() };
        assert_eq!(taken(&[7, 0x18, 1, 0xe0, MESSAGE_ENDS]), [Frame::Request(whole.clone())]);
        assert_eq!(whole.kind(), (6, 1));
        let marks = Request { data: vec![MESSAGE_ENDS, CONTROL_ENDS, ESCAPE, 0xb0], ..whole };
        // The same bytes as an answer would have, but for the function.
        let sent = answer(&marks, &marks.data);
        let back = Request { function: 0x1c, ..marks };
        assert_eq!(taken(&sent), [Frame::Request(back)]);
        assert_eq!(sent.iter().filter(|byte| **byte == ESCAPE).count(), 3);
        assert_eq!(
            taken(&[1, 2, CONTROL_ENDS, 8, ESCAPE, 0xb1, CONTROL_ENDS]),
            [Frame::Control, Frame::Control]
        );
    }

    #[test]
    #[should_panic(expected = "wrong checksum")]
    fn a_wrong_checksum_is_not_taken() {
        taken(&[7, 0x18, 1, 0xe1, MESSAGE_ENDS]);
    }
}
