//! Reads TOML key by key, so that every refusal knows its line and its dotted key.
//!
//! [`Part`] is a table whose keys are all known, [`Field`] one value of it. Both only read; which keys
//! there are and what they mean stands in `parse`.

use std::ops::RangeInclusive;
use std::str::FromStr;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::BadProfile;
use crate::ids::BadId;
use crate::time::{format_span_ms, parse_span_ms};

/// Longest text of a value; longer ones are no names of hardware.
pub(crate) const TEXT_BYTES_MAX: usize = 256;
/// Longest part of what was found that an error repeats, in characters.
const FOUND_CHARS_MAX: usize = 60;

/// A table of which every key is a known one.
pub(super) struct Part<'t> {
    text: &'t str,
    path: String,
    at: usize,
    table: &'t DeTable<'t>,
}

/// A value and where it stands.
pub(super) struct Field<'t> {
    text: &'t str,
    path: String,
    value: &'t Spanned<DeValue<'t>>,
}

impl<'t> Part<'t> {
    /// The whole document.
    pub(super) fn root(
        text: &'t str,
        table: &'t Spanned<DeTable<'t>>,
        known: &[&str],
    ) -> Result<Part<'t>, BadProfile> {
        Part { text, path: String::new(), at: 0, table: table.get_ref() }.with_known_keys(known)
    }

    fn with_known_keys(self, known: &[&str]) -> Result<Part<'t>, BadProfile> {
        let unknown = self.table.keys().filter(|key| !known.contains(&key.get_ref().as_ref()));
        match unknown.min_by_key(|key| key.span().start) {
            None => Ok(self),
            Some(key) => Err(BadProfile {
                line: line_of(self.text, key.span().start),
                key: joined(&self.path, &cut(key.get_ref())),
                found: "an unknown key".to_owned(),
                expected: one_of(key.get_ref(), known),
            }),
        }
    }

    /// The value of a key, where it is written.
    pub(super) fn field(&self, key: &str) -> Option<Field<'t>> {
        let value = self.table.get(key)?;
        Some(Field { text: self.text, path: joined(&self.path, key), value })
    }

    /// The value of a key, read, where it is written.
    pub(super) fn optional<T>(
        &self,
        key: &str,
        read: impl FnOnce(Field<'t>) -> Result<T, BadProfile>,
    ) -> Result<Option<T>, BadProfile> {
        self.field(key).map(read).transpose()
    }

    /// The value of a key that must be written.
    pub(super) fn needed(&self, key: &str, expected: &str) -> Result<Field<'t>, BadProfile> {
        self.field(key).ok_or_else(|| self.lacks(key, expected))
    }

    /// Says that a key is not there.
    pub(super) fn lacks(&self, key: &str, expected: &str) -> BadProfile {
        self.refuse_at(key, "nothing", expected)
    }

    /// Refuses a key of this table, whether it is written or not.
    pub(super) fn refuse_at(&self, key: &str, found: &str, expected: &str) -> BadProfile {
        let at = self.table.get(key).map_or(self.at, |value| value.span().start);
        BadProfile {
            line: line_of(self.text, at),
            key: joined(&self.path, key),
            found: found.to_owned(),
            expected: expected.to_owned(),
        }
    }

    /// Refuses the table as a whole.
    pub(super) fn refuse(&self, found: &str, expected: &str) -> BadProfile {
        BadProfile {
            line: line_of(self.text, self.at),
            key: self.path.clone(),
            found: found.to_owned(),
            expected: expected.to_owned(),
        }
    }
}

impl<'t> Field<'t> {
    /// Refuses the value.
    pub(super) fn refuse(&self, expected: &str) -> BadProfile {
        BadProfile {
            line: line_of(self.text, self.value.span().start),
            key: self.path.clone(),
            found: described(self.value.get_ref()),
            expected: expected.to_owned(),
        }
    }

    fn refuse_unless<T>(&self, value: Option<T>, expected: impl FnOnce() -> String) -> Result<T, BadProfile> {
        value.ok_or_else(|| self.refuse(&expected()))
    }

    /// A text as it stands.
    pub(super) fn raw_text(&self, expected: &str) -> Result<&'t str, BadProfile> {
        self.refuse_unless(self.value.get_ref().as_str(), || expected.to_owned())
    }

    /// A text that names something: not blank, one line, not longer than a name is.
    pub(super) fn name(&self) -> Result<String, BadProfile> {
        let fits = |text: &&str| {
            !text.trim().is_empty() && text.len() <= TEXT_BYTES_MAX && !text.chars().any(char::is_control)
        };
        let text = self.value.get_ref().as_str().filter(fits).map(|text| text.trim().to_owned());
        self.refuse_unless(text, || format!("a text of 1 to {TEXT_BYTES_MAX} bytes on one line"))
    }

    /// A text of a form.
    pub(super) fn text_of(&self, form: &str, valid: fn(&str) -> bool) -> Result<String, BadProfile> {
        let text = self.value.get_ref().as_str().filter(|text| valid(text)).map(str::to_owned);
        self.refuse_unless(text, || form.to_owned())
    }

    /// A text of one of the types of `ids`.
    pub(super) fn id<T: FromStr<Err = BadId>>(&self) -> Result<T, BadProfile> {
        // An empty text is none of them, so that a value of another kind gets the same words.
        let text = self.value.get_ref().as_str().unwrap_or_default();
        text.parse().map_err(|bad: BadId| self.refuse(bad.expected))
    }

    /// A whole number.
    pub(super) fn whole(&self, range: RangeInclusive<u32>) -> Result<u32, BadProfile> {
        let number = self.integer().and_then(|number| u32::try_from(number).ok());
        self.refuse_unless(number.filter(|number| range.contains(number)), || {
            format!("a whole number from {} to {}", range.start(), range.end())
        })
    }

    fn integer(&self) -> Option<i64> {
        let integer = self.value.get_ref().as_integer()?;
        i64::from_str_radix(integer.as_str(), integer.radix()).ok()
    }

    /// A finite number.
    pub(super) fn number(&self, range: RangeInclusive<f64>) -> Result<f64, BadProfile> {
        let float = || self.value.get_ref().as_float().and_then(|float| float.as_str().parse().ok());
        let number = self.integer().map(|number| number as f64).or_else(float);
        self.refuse_unless(number.filter(|number| range.contains(number)), || {
            format!("a number from {} to {}", range.start(), range.end())
        })
    }

    /// True or false.
    pub(super) fn flag(&self) -> Result<bool, BadProfile> {
        self.refuse_unless(self.value.get_ref().as_bool(), || "true or false".to_owned())
    }

    /// A length of time, in milliseconds.
    pub(super) fn span_ms(&self, range: RangeInclusive<u64>) -> Result<u64, BadProfile> {
        let text = self.value.get_ref().as_str();
        let span_ms = self.refuse_unless(text.and_then(|text| parse_span_ms(text).ok()), || {
            "a whole number and ms, s, m, h or d, as in \"90s\"".to_owned()
        })?;
        self.refuse_unless(Some(span_ms).filter(|span_ms| range.contains(span_ms)), || {
            format!("from {} to {}", format_span_ms(*range.start()), format_span_ms(*range.end()))
        })
    }

    /// A table.
    pub(super) fn table(&self, known: &[&str]) -> Result<Part<'t>, BadProfile> {
        let table = self.refuse_unless(self.value.get_ref().as_table(), || "a table".to_owned())?;
        let at = self.value.span().start;
        Part { text: self.text, path: self.path.clone(), at, table }.with_known_keys(known)
    }

    /// The entries of a table whose keys may be any, in the order of the keys.
    pub(super) fn entries(&self, length_max: usize) -> Result<Vec<(String, Field<'t>)>, BadProfile> {
        let table = self.refuse_unless(self.value.get_ref().as_table(), || "a table".to_owned())?;
        if table.len() > length_max {
            let found = format!("{} of them", table.len());
            return Err(BadProfile { found, ..self.refuse(&format!("at most {length_max}")) });
        }
        let entry = |(key, value): (&Spanned<std::borrow::Cow<'t, str>>, &'t Spanned<DeValue<'t>>)| {
            let name = key.get_ref().to_string();
            let path = joined(&self.path, &cut(&name));
            (name, Field { text: self.text, path, value })
        };
        Ok(table.iter().map(entry).collect())
    }

    /// Refuses the last part of the key under which the value stands.
    pub(super) fn refuse_key(&self, name: &str, expected: &str) -> BadProfile {
        let found = format!("the key \"{}\"", cut(&name.escape_debug().to_string()));
        BadProfile { found, ..self.refuse(expected) }
    }

    /// True where the value is a table.
    pub(super) fn is_table(&self) -> bool {
        self.value.get_ref().is_table()
    }

    /// The values of an array, each with its place in it, counted from 1.
    pub(super) fn items(&self, expected: &str, length_max: usize) -> Result<Vec<Field<'t>>, BadProfile> {
        let array = self.refuse_unless(self.value.get_ref().as_array(), || expected.to_owned())?;
        let item =
            |(index, value)| Field { text: self.text, path: format!("{}[{}]", self.path, index + 1), value };
        let items: Vec<Field<'t>> = array.iter().enumerate().map(item).collect();
        match items.get(length_max) {
            None => Ok(items),
            Some(first_too_many) => Err(BadProfile {
                line: line_of(self.text, first_too_many.value.span().start),
                key: self.path.clone(),
                found: format!("{} of them", items.len()),
                expected: format!("at most {length_max}"),
            }),
        }
    }
}

/// A document that is no TOML.
pub(super) fn bad_syntax(text: &str, error: &toml::de::Error) -> BadProfile {
    let at = error.span().map_or(0, |span| span.start);
    let rest = text.get(at..).unwrap_or_default();
    let found = match rest.lines().next() {
        None => "the end of the profile".to_owned(),
        Some("") => "the end of the line".to_owned(),
        Some(line) => format!("`{}`", cut(line)),
    };
    BadProfile {
        line: line_of(text, at),
        key: key_near(text, at),
        found,
        expected: format!("TOML ({})", error.message()),
    }
}

/// The dotted key at a place in a document that could not be parsed, from the headers and the line before it.
fn key_near(text: &str, at: usize) -> String {
    let line = line_of(text, at);
    let lines: Vec<&str> = text.lines().take(line).map(str::trim).collect();
    let is_header = |line: &&str| line.starts_with('[');
    let header = lines.iter().rev().find(|line| is_header(line)).copied().unwrap_or_default();
    let name = header.trim_start_matches('[').split([']', '#']).next().unwrap_or_default().trim();
    let path = if header.starts_with("[[") {
        format!("{name}[{}]", lines.iter().filter(|line| **line == header).count())
    } else {
        name.to_owned()
    };
    match lines.last().and_then(|line| line.split_once('=')) {
        Some((key, _)) if !is_header(&key) => joined(&path, &cut(key.trim())),
        Some(_) | None => path,
    }
}

/// `expected` of a word that is none of the known ones: all of them, and the nearest where one is near.
pub(super) fn one_of(word: &str, known: &[&str]) -> String {
    let nearest =
        known.iter().map(|known| (distance(word, known), known)).min_by_key(|(distance, _)| *distance);
    let all = known.join(", ");
    match nearest {
        Some((distance, nearest)) if distance * 3 <= nearest.len() + 1 => {
            format!("one of {all} (is {nearest} meant?)")
        }
        Some(_) | None => format!("one of {all}"),
    }
}

/// Edits between two words: a letter put in, taken out or changed (Levenshtein), whatever their case.
fn distance(one: &str, other: &str) -> usize {
    let one: Vec<char> = one.chars().take(TEXT_BYTES_MAX).flat_map(char::to_lowercase).collect();
    let other: Vec<char> = other.chars().flat_map(char::to_lowercase).collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, letter) in one.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, against) in other.iter().enumerate() {
            let changed = diagonal + usize::from(letter != against);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

fn joined(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn line_of(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count()
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(FOUND_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// A value as an error repeats it.
fn described(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("\"{}\"", cut(&text.escape_debug().to_string())),
        DeValue::Integer(integer) => cut(&integer.to_string()),
        DeValue::Float(float) => cut(float.as_str()),
        DeValue::Boolean(flag) => flag.to_string(),
        DeValue::Datetime(moment) => moment.to_string(),
        DeValue::Array(array) => format!("an array of {}", array.len()),
        DeValue::Table(_) => "a table".to_owned(),
    }
}
