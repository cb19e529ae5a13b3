//! The paths in a source file that begin at `crate` or climb by `super`, followed to the first name beneath the crate's
//! root. That name is the module that the file uses.

use super::tokens::{Kind, Token, tokens};

/// A use of something right beneath the crate's root.
#[derive(Debug, PartialEq, Eq)]
pub struct Use {
    /// Counted from 1.
    pub line: usize,
    pub name: Name,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Name {
    /// A module, or an item of the root itself.
    Item(String),
    /// A macro: those that are exported live at the root, wherever they are written.
    Macro(String),
    /// `crate::*` or `crate::{self}`: everything, of which nothing can be said.
    Everything,
}

/// What a file uses of its crate's root. `module` is the file's own module path, empty for the root.
///
/// Inline modules are followed, so that `super` in `mod tests` means the file. Macros are not expanded.
pub fn uses(source: &str, module: &[String]) -> Vec<Use> {
    let tokens = tokens(source);
    let mut scan = Scan { tokens: &tokens, uses: Vec::new() };
    // Inline modules: the name and the depth of braces outside it.
    let mut inline: Vec<(String, usize)> = Vec::new();
    let mut depth = 0;
    let mut at = 0;
    while at < tokens.len() {
        match &tokens[at].kind {
            Kind::Word(word) if word == "mod" && scan.mark(at + 2) == Some('{') => {
                if let Some(name) = scan.word(at + 1) {
                    inline.push((name.to_string(), depth));
                }
            }
            Kind::Mark('{') => depth += 1,
            Kind::Mark('}') => {
                depth = depth.saturating_sub(1);
                inline.pop_if(|(_, outside)| *outside == depth);
            }
            Kind::Word(word) if word == "crate" && scan.separator(at + 1) => {
                at = scan.follow(at + 2, Vec::new());
                continue;
            }
            Kind::Word(word) if word == "super" && !continues_a_path(&tokens, at) => {
                let names = inline.iter().map(|(name, _)| name);
                at = scan.follow(at, module.iter().chain(names).cloned().collect());
                continue;
            }
            Kind::Word(_) | Kind::Separator | Kind::Mark(_) => {}
        }
        at += 1;
    }
    scan.uses
}

/// `self::super::x`: the climb is written behind a `::`, yet starts where any other does.
fn continues_a_path(tokens: &[Token], at: usize) -> bool {
    at > 1 && tokens[at - 1].kind == Kind::Separator && tokens[at - 2].kind != Kind::Word("self".into())
}

struct Scan<'a> {
    tokens: &'a [Token],
    uses: Vec<Use>,
}

impl Scan<'_> {
    /// Follows a path from `at`, standing in module `base`, and returns where to go on.
    ///
    /// Stops at the first name: nothing behind it can leave it again, and what stands there (`crate::a::<crate::b::C>`)
    /// is scanned like everything else. Names beneath a module that is not the root lie in a module that the file is
    /// itself in, so only those right beneath the root are uses.
    fn follow(&mut self, at: usize, mut base: Vec<String>) -> usize {
        let Some(token) = self.tokens.get(at) else { return at };
        match &token.kind {
            Kind::Word(word) if word == "super" => {
                base.pop();
                if self.separator(at + 1) { self.follow(at + 2, base) } else { at + 1 }
            }
            Kind::Word(word) if word == "self" && self.separator(at + 1) => self.follow(at + 2, base),
            Kind::Word(word) => {
                if base.is_empty() {
                    let name = if word == "self" {
                        Name::Everything
                    } else if self.mark(at + 1) == Some('!') && self.mark(at + 2) != Some('=') {
                        Name::Macro(word.clone())
                    } else {
                        Name::Item(word.clone())
                    };
                    self.uses.push(Use { line: token.line, name });
                }
                at + 1
            }
            Kind::Mark('{') => self.follow_group(at + 1, &base),
            Kind::Mark('*') => {
                if base.is_empty() {
                    self.uses.push(Use { line: token.line, name: Name::Everything });
                }
                at + 1
            }
            Kind::Mark(_) | Kind::Separator => at,
        }
    }

    /// Each branch of `{a, b::{c, d}, e}` is a path from `base`. Returns the place behind the closing brace.
    fn follow_group(&mut self, mut at: usize, base: &[String]) -> usize {
        let mut depth = 0;
        let mut branch_begins = true;
        while let Some(token) = self.tokens.get(at) {
            match &token.kind {
                Kind::Mark('}') if depth == 0 => return at + 1,
                Kind::Mark('}') => depth -= 1,
                Kind::Mark('{') if !branch_begins => depth += 1,
                Kind::Mark(',') if depth == 0 => branch_begins = true,
                Kind::Word(_) | Kind::Mark(_) | Kind::Separator if branch_begins => {
                    branch_begins = false;
                    let next = self.follow(at, base.to_vec());
                    at = next.max(at + 1);
                    continue;
                }
                Kind::Word(_) | Kind::Mark(_) | Kind::Separator => {}
            }
            at += 1;
        }
        at
    }

    fn word(&self, at: usize) -> Option<&str> {
        match &self.tokens.get(at)?.kind {
            Kind::Word(word) => Some(word),
            Kind::Separator | Kind::Mark(_) => None,
        }
    }

    fn mark(&self, at: usize) -> Option<char> {
        match self.tokens.get(at)?.kind {
            Kind::Mark(mark) => Some(mark),
            Kind::Separator | Kind::Word(_) => None,
        }
    }

    fn separator(&self, at: usize) -> bool {
        self.tokens.get(at).is_some_and(|token| token.kind == Kind::Separator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The items used, as `line name`, by source of module `module` (its parts divided by `/`).
    fn items(module: &str, source: &str) -> Vec<String> {
        let module: Vec<String> =
            module.split('/').filter(|part| !part.is_empty()).map(String::from).collect();
        let shown = |used: Use| match used.name {
            Name::Item(name) => format!("{} {name}", used.line),
            Name::Macro(name) => format!("{} {name}!", used.line),
            Name::Everything => format!("{} *", used.line),
        };
        uses(source, &module).into_iter().map(shown).collect()
    }

    #[test]
    fn crate_paths_in_imports_and_in_code() {
        let source = "use crate::outbox::Outbox;\nfn f() -> crate::home::Home { g::<crate::vet::Stage>(crate::LIMIT) }";
        assert_eq!(items("control", source), ["1 outbox", "2 home", "2 vet", "2 LIMIT"]);
    }

    #[test]
    fn groups_are_followed_branch_by_branch() {
        let source = "use crate::{\n  a,\n  b::{c, d::{e}},\n  f::g as h,\n};\nuse crate::i;";
        assert_eq!(items("x", source), ["2 a", "3 b", "4 f", "6 i"]);
        assert_eq!(items("x", "use {crate::a, std::{b, c}, super::d};"), ["1 a", "1 d"]);
        assert_eq!(items("x", "use crate::a::{b, c}; use crate::d;"), ["1 a", "1 d"]);
        assert_eq!(items("x/y", "use super::{z, super::a};"), ["1 a"]);
    }

    #[test]
    fn super_climbs_from_the_files_own_module() {
        assert_eq!(items("control", "use super::outbox;"), ["1 outbox"]);
        assert_eq!(items("control/stages", "use super::decide;"), [""; 0], "a sibling in the same room");
        assert_eq!(items("control/stages", "use super::super::outbox::Outbox;"), ["1 outbox"]);
        assert_eq!(items("control", "use self::super::outbox;"), ["1 outbox"]);
        assert_eq!(items("control", "fn f() { super::power::off() }"), ["1 power"]);
    }

    #[test]
    fn inline_modules_are_counted_in() {
        let source = "fn f() { { } }\nmod tests {\n use super::*;\n use super::super::vet;\n fn g() { if x { } }\n}\nuse super::run;";
        assert_eq!(items("control", source), ["4 vet", "7 run"]);
        assert_eq!(
            items("", "mod a { use super::b; mod c { use super::d; use super::super::e; } }"),
            ["1 b", "1 e"]
        );
    }

    #[test]
    fn globs_macros_and_visibility() {
        assert_eq!(items("x", "use crate::*;\nuse super::{self};"), ["1 *", "2 *"]);
        assert_eq!(items("x", "crate::check!(1); if crate::FLAG != 2 {}"), ["1 check!", "1 FLAG"]);
        assert_eq!(
            items("x/y", "pub(crate) fn f() {} pub(super) fn g() {} pub(in crate::x) fn h() {}"),
            ["1 x"]
        );
    }

    #[test]
    fn comments_and_strings_are_no_uses() {
        assert_eq!(
            items("x", "// crate::a\n/* super::b */ let s = \"crate::c\"; /// [`crate::d`]\n"),
            [""; 0]
        );
    }
}
