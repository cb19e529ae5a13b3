//! Any text is read or refused at a line of it, and what was read is written as it can be read again.

use proptest::prelude::*;

use super::{EXAMPLE, Profile, round_trips};

/// What one key needs beside it must be the same for the reader and for the writer.
#[test]
fn the_example_without_some_of_its_lines_is_read_back_as_it_was_read() {
    let lines: Vec<&str> = EXAMPLE.lines().collect();
    let mut read = 0;
    for at in 0..lines.len() {
        for gone in 1..=4.min(lines.len() - at) {
            let left = [&lines[..at], &lines[at + gone..]].concat().join("\n");
            if let Ok(profile) = Profile::parse(&left) {
                round_trips(&profile);
                read += 1;
            }
        }
    }
    assert!(read > lines.len(), "only {read} of the texts could be read at all");
}

/// A valid profile with something put in, taken out or repeated at a place.
fn mutated() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        "\\PC{0,6}",
        prop::sample::select(vec![
            "\"", "[", "]]", "=", "\n", "{", "}", "nan", "-1", "\u{0}", "é", ".", "1e999"
        ])
        .prop_map(str::to_owned),
    ];
    (any::<prop::sample::Index>(), any::<prop::sample::Index>(), piece, any::<bool>()).prop_map(
        |(at, length, piece, is_cut)| {
            let letters: Vec<char> = EXAMPLE.chars().collect();
            let at = at.index(letters.len());
            let gone = if is_cut { length.index((letters.len() - at).min(200)) } else { 0 };
            letters[..at]
                .iter()
                .copied()
                .chain(piece.chars())
                .chain(letters[at + gone..].iter().copied())
                .collect()
        },
    )
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused_at_a_line_of_it(
        text in prop_oneof![
            mutated(),
            "\\PC{0,200}",
            prop::collection::vec(any::<u8>(), 0..300)
                .prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
        ],
    ) {
        match Profile::parse(&text) {
            Ok(profile) => round_trips(&profile),
            Err(bad) => {
                prop_assert!((1..=text.split('\n').count()).contains(&bad.line), "{}", bad);
                prop_assert!(!bad.found.is_empty() && !bad.expected.is_empty(), "{bad:?}");
            }
        }
    }
}
