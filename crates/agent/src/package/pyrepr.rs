//! Values as Python 3.12's `repr` writes them.
//!
//! Log lines and the names of flags hold lists in that form, and nodes hold flags that the reference agent named so:
//! one character of difference here, and a step that was done is done again.

mod printable;

use std::fmt::Write;

/// `repr(None)`.
pub const NONE: &str = "None";

/// `repr` of a bool.
pub fn boolean(value: bool) -> &'static str {
    if value { "True" } else { "False" }
}

/// `repr` of a list, of whose items the `repr` is given.
pub fn list<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> String {
    let mut written = String::from("[");
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            written.push_str(", ");
        }
        written.push_str(item.as_ref());
    }
    written.push(']');
    written
}

/// `repr` of a list of str.
pub fn texts(items: &[String]) -> String {
    list(items.iter().map(|item| text(item)))
}

/// `repr` of a str: in single quotes unless it holds those and no double ones, with what is not printable escaped.
pub fn text(value: &str) -> String {
    let quote = if value.contains('\'') && !value.contains('"') { '"' } else { '\'' };
    let mut written = String::with_capacity(value.len() + 2);
    written.push(quote);
    for character in value.chars() {
        push_character(&mut written, character, quote);
    }
    written.push(quote);
    written
}

fn push_character(written: &mut String, character: char, quote: char) {
    let escaped = match character {
        '\\' => Some('\\'),
        '\n' => Some('n'),
        '\r' => Some('r'),
        '\t' => Some('t'),
        other => (other == quote).then_some(quote),
    };
    if let Some(letter) = escaped {
        written.extend(['\\', letter]);
        return;
    }
    if is_printable(character) {
        written.push(character);
        return;
    }
    let point = u32::from(character);
    let result = match point {
        ..=0xff => write!(written, "\\x{point:02x}"),
        0x100..=0xffff => write!(written, "\\u{point:04x}"),
        0x10000.. => write!(written, "\\U{point:08x}"),
    };
    result.expect("writing to a String cannot fail");
}

/// `str.isprintable` of one character: not a control, format, private or unassigned one, and no separator but the
/// space, as of Unicode 15.0.
pub fn is_printable(character: char) -> bool {
    let point = u32::from(character);
    printable::TURNS.partition_point(|&turn| turn <= point) % 2 == 1
}

/// The exponents between which `repr` of a float writes no exponent: `1e-05` and `1e+16` are beyond them.
const PLAIN_EXPONENTS: std::ops::Range<i32> = -4..16;

/// `repr` of a float: the fewest digits that read back as the same number.
pub fn float(value: f64) -> String {
    if value.is_nan() {
        return "nan".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf".to_owned() } else { "-inf".to_owned() };
    }
    let scientific = nearest_shortest(value);
    let (mantissa, exponent) = scientific.split_once('e').expect("the format writes an exponent");
    let exponent: i32 = exponent.parse().expect("the format's exponent is a number");
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |rest| ("-", rest));
    if PLAIN_EXPONENTS.contains(&exponent) {
        let digits: String = mantissa.chars().filter(|character| *character != '.').collect();
        return format!("{sign}{}", plain(&digits, exponent));
    }
    let exponent_sign = if exponent < 0 { '-' } else { '+' };
    format!("{sign}{mantissa}e{exponent_sign}{:02}", exponent.unsigned_abs())
}

/// The fewest digits that read back as the same number, in scientific form. Of two such numbers that are equally near,
/// Python takes the one with the even digit, and Rust's shortest form may be the other; its rounding to a given number
/// of digits is Python's.
fn nearest_shortest(value: f64) -> String {
    let shortest = format!("{value:e}");
    let mantissa = shortest.split('e').next().unwrap_or_default();
    let digits = mantissa.bytes().filter(u8::is_ascii_digit).count();
    let nearest = format!("{value:.*e}", digits.saturating_sub(1));
    if nearest.parse() == Ok(value) { nearest } else { shortest }
}

/// The digits `d.ddd` times ten to the `exponent`, written out, with a point in any case.
fn plain(digits: &str, exponent: i32) -> String {
    let Ok(exponent) = usize::try_from(exponent) else {
        let zeros = exponent.unsigned_abs() as usize - 1;
        return format!("0.{}{digits}", "0".repeat(zeros));
    };
    let whole = exponent + 1;
    if digits.len() <= whole {
        return format!("{digits}{}.0", "0".repeat(whole - digits.len()));
    }
    let (before, after) = digits.split_at(whole);
    format!("{before}.{after}")
}

#[cfg(test)]
mod tests;
