//! What may happen to a tool's output on its way. What cannot be read any more is no good word.

use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Value, json};

use super::leaves;

/// Bytes of which neither a number nor a word that is good anywhere is made.
const BYTES: &[u8] = b"?#|~:.x\n\0\xff";
/// Things that happen to one output.
const MANGLINGS_MAX: usize = 3;

/// Something that happens.
#[derive(Debug, Clone)]
pub(in crate::vet) enum Mangling {
    /// It ends here.
    Cut(Index),
    /// A byte becomes another.
    Replaced(Index, u8),
    /// A line is gone.
    Dropped(Index),
    /// A line comes twice.
    Doubled(Index),
    /// Something stands before a number that does not change it.
    Padded(Index, u8),
}

/// What happens to one output.
pub(in crate::vet) fn manglings() -> impl Strategy<Value = Vec<Mangling>> {
    let any_index = any::<Index>;
    let one = prop_oneof![
        any_index().prop_map(Mangling::Cut),
        (any_index(), select(BYTES)).prop_map(|(at, byte)| Mangling::Replaced(at, byte)),
        any_index().prop_map(Mangling::Dropped),
        any_index().prop_map(Mangling::Doubled),
        (any_index(), select(&b"0 "[..])).prop_map(|(at, byte)| Mangling::Padded(at, byte)),
    ];
    proptest::collection::vec(one, 1..=MANGLINGS_MAX)
}

/// What is left of an output.
pub(in crate::vet) fn mangle(output: &str, manglings: &[Mangling]) -> Vec<u8> {
    manglings.iter().fold(output.as_bytes().to_vec(), one)
}

fn one(mut bytes: Vec<u8>, mangling: &Mangling) -> Vec<u8> {
    if bytes.is_empty() {
        return bytes;
    }
    let mut lines: Vec<Vec<u8>> = bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    match mangling {
        Mangling::Cut(at) => bytes.truncate(at.index(bytes.len())),
        Mangling::Replaced(at, byte) => {
            let at = at.index(bytes.len());
            bytes[at] = *byte;
        }
        Mangling::Dropped(at) => {
            lines.remove(at.index(lines.len()));
            bytes = lines.concat();
        }
        Mangling::Doubled(at) => {
            let at = at.index(lines.len());
            lines.insert(at, lines[at].clone());
            bytes = lines.concat();
        }
        Mangling::Padded(at, byte) => {
            let begins = |at: &usize| bytes[*at].is_ascii_digit() && (*at == 0 || bytes[*at - 1] == b' ');
            let numbers: Vec<usize> = (0..bytes.len()).filter(begins).collect();
            if !numbers.is_empty() {
                bytes.insert(*at.get(&numbers), *byte);
            }
        }
    }
    bytes
}

/// Which leaf of a report is gone, or becomes what.
pub(in crate::vet) type BrokenLeaf = (Index, Option<Value>);

/// A leaf that is gone, or is of another type.
pub(in crate::vet) fn broken_leaf() -> impl Strategy<Value = BrokenLeaf> {
    let others = [Value::Null, json!(""), json!("x"), json!([]), json!({}), json!(false)];
    (any::<Index>(), proptest::option::of(select(others.to_vec())))
}

/// A report with such a leaf.
pub(in crate::vet) fn with_broken(mut report: Value, (at, other): &BrokenLeaf) -> Value {
    let mut all = Vec::new();
    leaves(&report, "", &mut all);
    let pointer = at.get(&all);
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    match (other, report.pointer_mut(parent).unwrap()) {
        (Some(other), _) => *report.pointer_mut(pointer).unwrap() = other.clone(),
        (None, Value::Object(fields)) => drop(fields.remove(key).unwrap()),
        (None, Value::Array(items)) => drop(items.remove(key.parse().unwrap())),
        (None, leaf) => panic!("{leaf} has no leaves"),
    }
    report
}
