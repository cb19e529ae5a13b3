//! The arrows between the modules of a crate: down the table, never up.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::Finding;
use super::paths::{Name, Use, uses};
use super::table::{CRATES, Crate};

/// Checks every crate of the table.
pub fn check(root: &Path) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for row in CRATES {
        for file in sources(&root.join(row.folder).join("src"))? {
            let path = file.strip_prefix(root).expect("the file was found beneath the root");
            let source = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
            let inside = path.strip_prefix(row.folder).expect("the file was found in the crate's folder");
            let inside = inside.strip_prefix("src").expect("only src was searched");
            findings.extend(check_file(row, &path.to_string_lossy(), &module_path(inside), &source));
        }
    }
    Ok(findings)
}

/// All `.rs` files beneath a folder, in order.
fn sources(folder: &Path) -> Result<Vec<PathBuf>> {
    let reading = || format!("reading the folder {}", folder.display());
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder).with_context(reading)? {
        entries.push(entry.with_context(reading)?.path());
    }
    entries.sort();
    let mut files = Vec::new();
    for path in entries {
        if path.is_dir() {
            files.extend(sources(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(files)
}

/// The module that a file is, from its path inside `src`: empty for the roots (lib.rs, main.rs and bin/).
///
/// A file `NAME_tests.rs` is the module `tests` of `NAME`, whose file gives its path.
fn module_path(inside: &Path) -> Vec<String> {
    let mut parts: Vec<String> =
        inside.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    let is_root = parts.first().is_some_and(|first| first == "bin")
        || parts.len() == 1 && matches!(parts[0].as_str(), "lib" | "main");
    if is_root {
        return Vec::new();
    }
    parts.pop_if(|last| last == "mod");
    let tested = parts.last().and_then(|last| last.strip_suffix("_tests")).map(String::from);
    if let Some(tested) = tested {
        parts.pop();
        parts.extend([tested, "tests".to_string()]);
    }
    parts
}

/// Holds one file against its crate's row. The roots may use every module; they stand above the table.
fn check_file(row: &Crate, file: &str, module: &[String], source: &str) -> Vec<Finding> {
    let finding = |line, text| Finding { file: file.to_string(), line, text };
    let Some(own) = module.first() else { return Vec::new() };
    let Some(own_place) = place(row, own) else {
        return vec![finding(1, format!("module `{own}` of {} has no layer: {ADD}", row.package))];
    };
    let judged = |used: Use| {
        let text = judge(row, own, own_place, &used.name)?;
        Some(finding(used.line, text))
    };
    uses(source, module).into_iter().filter_map(judged).collect()
}

const ADD: &str = "add it to the table in xtask/src/layers/table.rs";

fn place(row: &Crate, module: &str) -> Option<usize> {
    row.modules.iter().position(|name| *name == module)
}

/// What is wrong with a module using a name beneath its crate's root, if anything is.
fn judge(row: &Crate, own: &str, own_place: usize, name: &Name) -> Option<String> {
    let name = match name {
        Name::Item(name) => name,
        Name::Macro(_) => return None,
        Name::Everything => {
            return Some(format!("`{own}` uses the whole root of {}: name the module instead", row.package));
        }
    };
    match place(row, name) {
        Some(place) if place < own_place => {
            Some(format!("`{own}` uses `{name}`, which lies above it in {}", row.package))
        }
        Some(_) => None,
        None => Some(format!(
            "`{own}` uses `crate::{name}`, which is no module in the table of {}: name the module that it lives in, or {ADD}",
            row.package
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::table::May;

    const ROW: Crate = Crate {
        package: "sample",
        folder: "crates/sample",
        may_use: May::Any,
        never: &[],
        shipped: false,
        modules: &["top", "middle", "bottom"],
    };

    fn findings(file: &str, source: &str) -> Vec<String> {
        let module = module_path(Path::new(file));
        check_file(&ROW, file, &module, source).iter().map(Finding::to_string).collect()
    }

    #[test]
    fn files_are_modules() {
        let path = |file| module_path(Path::new(file)).join("/");
        assert_eq!(path("lib.rs"), "");
        assert_eq!(path("main.rs"), "");
        assert_eq!(path("bin/tool.rs"), "");
        assert_eq!(path("run.rs"), "run");
        assert_eq!(path("run/mod.rs"), "run");
        assert_eq!(path("run/decide.rs"), "run/decide");
        assert_eq!(path("run/tool_tests.rs"), "run/tool/tests");
        assert_eq!(path("tables_tests.rs"), "tables/tests");
        assert_eq!(path("run/main.rs"), "run/main", "only the outermost main.rs is a root");
    }

    #[test]
    fn arrows_down_within_and_from_the_root_are_good() {
        assert_eq!(
            findings("top.rs", "use crate::middle::A; use crate::bottom::B; use crate::top::C;"),
            [""; 0]
        );
        assert_eq!(
            findings("middle/deep.rs", "use super::x; use crate::middle::y; use super::super::bottom;"),
            [""; 0]
        );
        assert_eq!(findings("main.rs", "use crate::top; use crate::Anything;"), [""; 0]);
        assert_eq!(
            findings("bottom.rs", "// use crate::top;\nfn f() { crate::log!(\"crate::top\") }"),
            [""; 0]
        );
    }

    #[test]
    fn arrows_up_are_found_with_file_and_line() {
        assert_eq!(
            findings("bottom.rs", "\nuse crate::{\n    middle::A,\n};"),
            ["bottom.rs:3: `bottom` uses `middle`, which lies above it in sample"]
        );
        assert_eq!(
            findings("middle/deep.rs", "use super::super::top::X;"),
            ["middle/deep.rs:1: `middle` uses `top`, which lies above it in sample"]
        );
        assert_eq!(
            findings("middle.rs", "#[cfg(test)]\nmod tests {\n    use super::super::top;\n}"),
            ["middle.rs:3: `middle` uses `top`, which lies above it in sample"]
        );
    }

    #[test]
    fn what_the_table_does_not_know_is_found() {
        let unknown = findings("attic.rs", "use crate::top;");
        assert_eq!(unknown, [format!("attic.rs:1: module `attic` of sample has no layer: {ADD}")]);
        let item = findings("bottom.rs", "fn f() -> crate::Error {}");
        assert!(
            item[0].starts_with("bottom.rs:1: `bottom` uses `crate::Error`, which is no module"),
            "{item:?}"
        );
        let everything = findings("bottom.rs", "use crate::*;");
        assert!(everything[0].contains("the whole root"), "{everything:?}");
    }
}
