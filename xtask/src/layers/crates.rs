//! The arrows between crates: from the manifests, where a finding has a line, and from cargo's own trees, which know
//! what the manifests lead to.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::Finding;
use super::table::{CRATES, Crate, May, row};
use crate::cargo;

/// The feature with which tests put faults into durable writes, as cargo's tree prints it.
const FAULTS: &str = "groundcrew-durable feature \"faults\"";

/// Checks that every member of the workspace is in the table and uses only what it may.
pub fn check_manifests(root: &Path) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for folder in member_folders(root)? {
        let file = format!("{folder}/Cargo.toml");
        let manifest = fs::read_to_string(root.join(&file)).with_context(|| format!("reading {file}"))?;
        match CRATES.iter().find(|row| row.folder == folder) {
            Some(row) => findings.extend(check_manifest(row, &file, &manifest)),
            None => {
                let text = format!("the crate in {folder} is not in the table in xtask/src/layers/table.rs");
                findings.push(Finding { file, line: 1, text });
            }
        }
    }
    Ok(findings)
}

/// The folders with a manifest where the workspace keeps its members: each in `crates`, and those beside it.
fn member_folders(root: &Path) -> Result<Vec<String>> {
    let mut folders = Vec::new();
    for parent in ["", "crates/"] {
        let path = root.join(parent);
        let reading = || format!("reading the folder {}", path.display());
        for entry in fs::read_dir(&path).with_context(reading)? {
            let entry = entry.with_context(reading)?;
            if entry.path().join("Cargo.toml").is_file() {
                folders.push(format!("{parent}{}", entry.file_name().to_string_lossy()));
            }
        }
    }
    folders.sort();
    Ok(folders)
}

fn check_manifest(row: &Crate, file: &str, manifest: &str) -> Vec<Finding> {
    let refused = |(line, name): (usize, String)| {
        let text = refusal(row, &name)?;
        Some(Finding { file: file.to_string(), line, text })
    };
    dependencies(manifest).into_iter().filter_map(refused).collect()
}

/// Why a crate may not depend on another, if it may not. Itself it may: that is how tests turn a feature on.
fn refusal(own: &Crate, name: &str) -> Option<String> {
    row(name)?;
    if name == own.package {
        return None;
    }
    match own.may_use {
        May::Any => None,
        May::Only(allowed) if allowed.contains(&name) => None,
        May::Only([]) => Some(format!("{} uses {name}; it may use no crate of the workspace", own.package)),
        May::Only(allowed) => Some(format!("{} uses {name}; it may use {}", own.package, allowed.join(", "))),
    }
}

/// The packages that a manifest depends on, of every kind and for every platform, each with its line.
fn dependencies(manifest: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    // Whether the current section is a table of dependencies, or the long form of one.
    let (mut in_table, mut in_one) = (false, false);
    for (number, line) in manifest.lines().enumerate() {
        let line = line.trim();
        if let Some(header) = line.strip_prefix('[') {
            let header = header.split(']').next().unwrap_or_default().trim();
            let (parent, last) = header.rsplit_once('.').unwrap_or(("", header));
            in_table = last.ends_with("dependencies");
            in_one = parent.ends_with("dependencies");
            if in_one {
                found.push((number + 1, unquoted(last)));
            }
            continue;
        }
        if in_table && let Some(key) = line.split(['=', '.']).next() {
            found.push((number + 1, unquoted(key)));
        }
        if let Some(name) = renamed_package(line).filter(|_| in_table || in_one) {
            found.push((number + 1, name));
        }
    }
    found.retain(|(_, name)| !name.is_empty() && !name.starts_with('#'));
    found
}

/// `X` of `package = "X"`, which gives a dependency another name than its package has.
fn renamed_package(line: &str) -> Option<String> {
    let value = line.split_once("package")?.1.trim_start().strip_prefix('=')?;
    value.split('"').nth(1).map(String::from)
}

fn unquoted(text: &str) -> String {
    text.trim().trim_matches(['"', '\'']).to_string()
}

/// Checks what the dependencies of each crate lead to.
pub fn check_trees() -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for row in CRATES.iter().filter(|row| !row.never.is_empty()) {
        let tree = cargo::output(cargo::cargo().args([
            "tree",
            "--locked",
            "--package",
            row.package,
            "--edges",
            "normal",
            "--prefix",
            "none",
            "--format",
            "{p}",
        ]))?;
        findings.extend(check_tree(row, &tree));
    }
    for row in CRATES.iter().filter(|row| row.shipped) {
        let features = cargo::output(cargo::cargo().args([
            "tree",
            "--locked",
            "--package",
            row.package,
            "--edges",
            "normal,features",
            "--prefix",
            "none",
        ]))?;
        findings.extend(check_features(row, &features));
    }
    Ok(findings)
}

fn check_tree(row: &Crate, tree: &str) -> Vec<Finding> {
    let mut packages: Vec<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    packages.sort_unstable();
    packages.dedup();
    packages.retain(|package| row.never.iter().any(|never| is_of_family(package, never)));
    let finding = |package: &str| {
        let show = format!("cargo tree -p {} -e normal -i {package}", row.package);
        finding_in(row, format!("the dependencies of {} lead to {package} (`{show}` shows how)", row.package))
    };
    packages.into_iter().map(finding).collect()
}

fn is_of_family(package: &str, family: &str) -> bool {
    package.strip_prefix(family).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

fn check_features(row: &Crate, features: &str) -> Option<Finding> {
    let text = format!("{} is shipped and would be built with {FAULTS}", row.package);
    features.lines().any(|line| line.starts_with(FAULTS)).then(|| finding_in(row, text))
}

fn finding_in(row: &Crate, text: String) -> Finding {
    Finding { file: format!("{}/Cargo.toml", row.folder), line: 1, text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(package: &str, manifest: &str) -> Vec<String> {
        let row = row(package).unwrap();
        check_manifest(row, "Cargo.toml", manifest).iter().map(Finding::to_string).collect()
    }

    #[test]
    fn arrows_of_the_table_are_good() {
        let manifest = "[package]\nname = \"groundcrew-agent\"\n[dependencies]\ngroundcrew-client.workspace = true\n\
                        serde.workspace = true\n[dev-dependencies]\ngroundcrew-durable = { workspace = true }\n";
        assert_eq!(findings("groundcrew-agent", manifest), [""; 0]);
        assert_eq!(
            findings("groundcrew-tests", "[dependencies]\ngroundcrew-orchestrator.workspace = true"),
            [""; 0]
        );
        let own_feature =
            "[dev-dependencies]\ngroundcrew-durable = { path = \".\", features = [\"faults\"] }";
        assert_eq!(findings("groundcrew-durable", own_feature), [""; 0]);
    }

    #[test]
    fn arrows_beyond_the_table_are_found_in_every_spelling() {
        let none =
            "Cargo.toml:2: groundcrew-protocol uses groundcrew-durable; it may use no crate of the workspace";
        for manifest in [
            "[dependencies]\ngroundcrew-durable.workspace = true",
            "[dependencies]\ngroundcrew-durable = { path = \"../durable\" }",
            "[dependencies]\n\"groundcrew-durable\" = { path = \"../durable\" }",
            "[dev-dependencies]\ngroundcrew-durable.workspace = true",
            "[build-dependencies]\ngroundcrew-durable.workspace = true",
            "[target.'cfg(unix)'.dependencies]\ngroundcrew-durable.workspace = true",
            "[dependencies]\nfiles = { package = \"groundcrew-durable\", path = \"../durable\" }",
            "\n[dependencies.groundcrew-durable]\npath = \"../durable\"",
            "[dependencies.files]\npackage = \"groundcrew-durable\"",
        ] {
            assert_eq!(findings("groundcrew-protocol", manifest), [none], "{manifest}");
        }
        let agent =
            findings("groundcrew-agent", "[dependencies]\n\ngroundcrew-orchestrator.workspace = true");
        assert!(
            agent[0].starts_with("Cargo.toml:3: groundcrew-agent uses groundcrew-orchestrator; it may use")
        );
    }

    #[test]
    fn what_is_no_dependency_is_no_arrow() {
        let manifest = "[package]\nname = \"groundcrew-durable\"\n[features]\ngroundcrew-durable = []\n\
                        [dependencies]\n# groundcrew-durable.workspace = true\n";
        assert_eq!(findings("groundcrew-protocol", manifest), [""; 0]);
    }

    #[test]
    fn a_forbidden_package_in_the_tree_is_found() {
        let agent = row("groundcrew-agent").unwrap();
        let good = "groundcrew-agent v0.1.0 (/x)\ntokio v1.0.0\nserde v1.0.0 (*)\nkubera v0.1.0\n";
        assert_eq!(check_tree(agent, good), []);
        let bad = format!("{good}sqlx-core v0.9.0\nsqlx-core v0.9.0 (*)\naxum v0.8.0\n");
        let texts: Vec<String> = check_tree(agent, &bad).iter().map(Finding::to_string).collect();
        assert_eq!(texts.len(), 2, "{texts:?}");
        assert!(
            texts[0]
                .starts_with("crates/agent/Cargo.toml:1: the dependencies of groundcrew-agent lead to axum")
        );
        assert!(texts[1].contains("lead to sqlx-core"), "{texts:?}");
    }

    #[test]
    fn a_shipped_binary_with_faults_is_found() {
        let agent = row("groundcrew-agent").unwrap();
        let good = "groundcrew-durable feature \"default\"\ngroundcrew-durable v0.1.0 (/x)\n";
        assert_eq!(check_features(agent, good), None);
        assert!(check_features(agent, &format!("{good}{FAULTS}\n")).is_some());
    }

    #[test]
    fn the_table_names_only_crates_that_it_has() {
        for own in CRATES {
            if let May::Only(allowed) = own.may_use {
                assert!(allowed.iter().all(|name| row(name).is_some()), "{}", own.package);
            }
        }
    }
}
