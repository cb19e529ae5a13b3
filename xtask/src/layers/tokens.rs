//! Rust source cut into words and marks, with comments, strings and characters left out: enough to follow paths, with
//! no notion of grammar.

/// A token and the line it stands on, counted from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    pub line: usize,
    pub kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// An identifier, a keyword or a number; a raw identifier without its `r#`.
    Word(String),
    /// `::`
    Separator,
    /// Any other sign.
    Mark(char),
}

/// Cuts source text. Source that does not compile gives some tokens, never an error.
pub fn tokens(source: &str) -> Vec<Token> {
    let mut cutter = Cutter { chars: source.chars().collect(), at: 0, line: 1, tokens: Vec::new() };
    while cutter.at < cutter.chars.len() {
        cutter.step();
    }
    cutter.tokens
}

struct Cutter {
    chars: Vec<char>,
    at: usize,
    line: usize,
    tokens: Vec<Token>,
}

impl Cutter {
    fn step(&mut self) {
        let here = self.chars[self.at];
        match (here, self.peek(1)) {
            ('/', Some('/')) => self.skip_line(),
            ('/', Some('*')) => self.skip_block(),
            ('"', _) => self.skip_quoted('"'),
            ('\'', _) => self.skip_char_or_lifetime(),
            (':', Some(':')) => {
                self.push(Kind::Separator);
                self.advance(2);
            }
            _ if is_word(here) => self.word(),
            _ => {
                if !here.is_whitespace() {
                    self.push(Kind::Mark(here));
                }
                self.advance(1);
            }
        }
    }

    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn push(&mut self, kind: Kind) {
        self.tokens.push(Token { line: self.line, kind });
    }

    /// Moves on, counting the lines that are passed.
    fn advance(&mut self, count: usize) {
        let end = (self.at + count).min(self.chars.len());
        self.line += self.chars[self.at..end].iter().filter(|&&char| char == '\n').count();
        self.at = end;
    }

    fn skip_line(&mut self) {
        while self.peek(0).is_some_and(|char| char != '\n') {
            self.advance(1);
        }
    }

    /// Block comments nest.
    fn skip_block(&mut self) {
        let mut depth = 0;
        while let Some(here) = self.peek(0) {
            match (here, self.peek(1)) {
                ('/', Some('*')) => depth += 1,
                ('*', Some('/')) => depth -= 1,
                _ => {
                    self.advance(1);
                    continue;
                }
            }
            self.advance(2);
            if depth == 0 {
                return;
            }
        }
    }

    fn skip_quoted(&mut self, quote: char) {
        self.advance(1);
        while let Some(here) = self.peek(0) {
            self.advance(if here == '\\' { 2 } else { 1 });
            if here == quote {
                return;
            }
        }
    }

    /// `'a'` and `'\n'` are characters, `'a` is a lifetime: what follows its quote is then an ordinary word.
    fn skip_char_or_lifetime(&mut self) {
        if self.peek(1) == Some('\\') || self.peek(2) == Some('\'') {
            self.skip_quoted('\'');
        } else {
            self.advance(1);
            while self.peek(0).is_some_and(is_word) {
                self.advance(1);
            }
        }
    }

    fn word(&mut self) {
        let start = self.at;
        while self.peek(0).is_some_and(is_word) {
            self.at += 1;
        }
        let word: String = self.chars[start..self.at].iter().collect();
        let hashes = self.chars[self.at..].iter().take_while(|&&char| char == '#').count();
        let raw = matches!(word.as_str(), "r" | "br" | "cr");
        if raw && self.peek(hashes) == Some('"') {
            return self.skip_raw(hashes);
        }
        if word == "r" && hashes == 1 && self.peek(1).is_some_and(is_word) {
            self.at += 1;
            return self.word();
        }
        self.push(Kind::Word(word));
    }

    /// A raw string ends at a quote with as many hashes behind it as stood before it.
    fn skip_raw(&mut self, hashes: usize) {
        self.advance(hashes + 1);
        while let Some(here) = self.peek(0) {
            let closes = here == '"' && (1..=hashes).all(|ahead| self.peek(ahead) == Some('#'));
            self.advance(if closes { hashes + 1 } else { 1 });
            if closes {
                return;
            }
        }
    }
}

fn is_word(char: char) -> bool {
    char == '_' || char.is_alphanumeric()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(source: &str) -> Vec<String> {
        let word = |token: Token| match token.kind {
            Kind::Word(word) => Some(word),
            Kind::Separator | Kind::Mark(_) => None,
        };
        tokens(source).into_iter().filter_map(word).collect()
    }

    #[test]
    fn comments_strings_and_characters_are_left_out() {
        assert_eq!(words("a // b\nc /* d /* e */ f */ g"), ["a", "c", "g"]);
        assert_eq!(words(r#"a "b \" c" d "\\" e"#), ["a", "d", "e"]);
        assert_eq!(words(r##"a r"b\" c r#"d " e"# f br#"g"# h"##), ["a", "c", "f", "h"]);
        assert_eq!(words(r"a '\'' b '{' c '\u{41}' d"), ["a", "b", "c", "d"]);
        assert_eq!(words(r#"a b"x" c"y" d"#), ["a", "b", "c", "d"], "a prefix alone stays a word");
    }

    #[test]
    fn lifetimes_do_not_open_a_character() {
        assert_eq!(
            words("fn f<'a>(x: &'a str, y: &'static str) -> char { 'z' }"),
            ["fn", "f", "x", "str", "y", "str", "char"]
        );
    }

    #[test]
    fn raw_identifiers_lose_their_prefix() {
        assert_eq!(words("r#type::r#move r"), ["type", "move", "r"]);
    }

    #[test]
    fn lines_are_counted_through_everything_skipped() {
        let source = "a\n/* \n */ b \"\n\n\" c r\"\n\" d // x\ne 'f' \n g \"\\\n\" h";
        let lines: Vec<usize> = tokens(source).iter().map(|token| token.line).collect();
        assert_eq!(lines, [1, 3, 5, 6, 7, 8, 9]);
    }

    #[test]
    fn source_that_ends_too_early_ends_the_tokens() {
        for source in ["\"abc", "/* abc", "r#\"abc\"", "'", "'\\", "a:", "b'", "r#"] {
            tokens(source);
        }
    }
}
