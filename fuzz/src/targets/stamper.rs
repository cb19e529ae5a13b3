//! What a step prints: any split of it into reads gives the same lines.

use groundcrew_agent::process::local_time::{LocalTime, Stamp};
use groundcrew_agent::process::stamper::{Label, Stamped, Stamper};
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// The first bytes of an input say where the rest is cut: each gives the length of a read.
const CUTS_MAX: usize = 16;

/// Tries one input.
pub fn check(bytes: &[u8]) {
    let (cuts, output) = bytes.split_at(bytes.len().min(CUTS_MAX));
    let stamp = LocalTime::in_zone(TimeZone::UTC).at(Timestamp::UNIX_EPOCH);
    let whole = stamped(&[output], &stamp);
    assert_eq!(whole, rules(output, &stamp));
    assert_eq!(whole, stamped(&reads(cuts, output), &stamp), "cut at {cuts:?}");
    let single: Vec<&[u8]> = output.chunks(1).collect();
    assert_eq!(whole, stamped(&single, &stamp), "cut into single bytes");
}

fn reads<'a>(cuts: &[u8], output: &'a [u8]) -> Vec<&'a [u8]> {
    let (mut reads, mut rest) = (Vec::new(), output);
    for cut in cuts {
        let (read, later) = rest.split_at(rest.len().min(usize::from(*cut)));
        reads.push(read);
        rest = later;
    }
    reads.push(rest);
    reads
}

fn stamped(reads: &[&[u8]], stamp: &Stamp) -> String {
    let (mut stamper, mut given) = (Stamper::new(Label::Out), Stamped::default());
    for read in reads {
        stamper.push(read, stamp, &mut given);
    }
    stamper.finish(stamp, &mut given);
    String::from_utf8(given.as_slice().to_vec()).expect("what is given is text")
}

/// The rules as they are said: a prefix before each line, one more after a last line end, U+FFFD for what is no text.
fn rules(output: &[u8], stamp: &Stamp) -> String {
    let stamp = std::str::from_utf8(stamp.as_bytes()).expect("a stamp is text");
    let prefix = format!("[out]{stamp} ");
    let mut text: String = output
        .split_inclusive(|byte| *byte == b'\n')
        .map(|line| format!("{prefix}{}", String::from_utf8_lossy(line)))
        .collect();
    if output.ends_with(b"\n") {
        text += &prefix;
    }
    text
}
