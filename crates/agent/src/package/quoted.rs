//! What was found, as an error shows it: in quotes, in one line, and not longer than a line should be.

/// The characters of what was found that are shown.
const SHOWN_CHARACTERS_MAX: usize = 120;

/// A text in quotes, with line ends and controls escaped, cut after 120 characters.
pub(super) fn quoted(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARACTERS_MAX) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}… ({} bytes)", &text[..end], text.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_stays_in_one_short_line() {
        assert_eq!(quoted("a\nb"), "\"a\\nb\"");
        let long = "é".repeat(300);
        assert_eq!(quoted(&long), format!("{:?}… (600 bytes)", "é".repeat(120)));
    }
}
