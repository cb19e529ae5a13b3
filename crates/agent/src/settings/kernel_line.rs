//! The kernel command line, cut into parameters as the kernel itself does it (`next_arg` in lib/cmdline.c):
//! white space separates, except between double quotes; quotes around a value, or around name and value
//! together, are not part of it; `--` ends the kernel's parameters and begins those of init.

/// A parameter and its value, where it has one.
pub(super) type Parameter = (String, Option<String>);

/// Every parameter in order.
pub(super) fn parameters(line: &str) -> Vec<Parameter> {
    let mut found = Vec::new();
    let mut rest = line.trim_start();
    while !rest.is_empty() {
        let (parameter, behind) = next(rest);
        if parameter == ("--".to_owned(), None) {
            break;
        }
        found.push(parameter);
        rest = behind.trim_start();
    }
    found
}

/// The first parameter of a text that begins with one, and what comes behind it.
fn next(text: &str) -> (Parameter, &str) {
    let whole_quoted = text.starts_with('"');
    let text = text.strip_prefix('"').unwrap_or(text);
    let mut in_quotes = whole_quoted;
    let mut equals = None;
    let mut end = text.len();
    for (at, character) in text.char_indices() {
        match character {
            '"' => in_quotes = !in_quotes,
            '=' if equals.is_none() && at > 0 => equals = Some(at),
            _ if character.is_ascii_whitespace() && !in_quotes => {
                end = at;
                break;
            }
            _ => {}
        }
    }
    let (word, behind) = text.split_at(end);
    let word = if whole_quoted { word.strip_suffix('"').unwrap_or(word) } else { word };
    let Some(equals) = equals else { return ((word.to_owned(), None), behind) };
    let value = &word[equals + 1..];
    let value = match value.strip_prefix('"') {
        Some(inside) => inside.strip_suffix('"').unwrap_or(inside),
        None => value,
    };
    ((word[..equals].to_owned(), Some(value.to_owned())), behind)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(line: &str) -> Vec<String> {
        parameters(line)
            .iter()
            .map(|(name, value)| format!("{name}|{}", value.as_deref().unwrap_or("-")))
            .collect()
    }

    #[test]
    fn parameters_are_cut_as_the_kernel_cuts_them() {
        assert_eq!(found("quiet  a=1\tb=x=y\n"), ["quiet|-", "a|1", "b|x=y"]);
        assert_eq!(found(r#"a="x y" "b=z w" c="""#), ["a|x y", "b|z w", "c|"]);
        assert_eq!(found(r#"a=x"y z"w "q r" a= =b"#), [r#"a|x"y z"w"#, "q r|-", "a|", "=b|-"]);
        assert_eq!(found("a=1 -- a=2"), ["a|1"]);
        assert_eq!(found("a=1 --- a=2 --x"), ["a|1", "---|-", "a|2", "--x|-"]);
        assert_eq!(found(r#"a="never closed b=1"#), ["a|never closed b=1"]);
        assert_eq!(found(" \n"), Vec::<String>::new());
        assert_eq!(found("\""), ["|-"]);
    }
}
