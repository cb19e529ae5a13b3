//! The tree of a live image, out of unpacked packages: the programs that are named, the libraries that these need, and the
//! kernel's modules.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::contents::{DATA, FILES, FOLDERS, KMOD_NAMES, MODULES, PROGRAMS};
use crate::debian::tools::tool;
use crate::{cargo, elf};

/// Debian's loader of dynamic programs, and where it looks, the last being a folder that `fio`'s own libraries name.
const LOADER: &str = "lib/x86_64-linux-gnu/ld-linux-x86-64.so.2";
const LIBRARIES: [&str; 3] =
    ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu/ceph"];

/// Makes the tree of everything but the modules.
pub fn settle(packages: &Path, tree: &Path) -> Result<()> {
    // As Debian has it: one folder under two names.
    for folder in ["bin", "sbin", "lib", "lib64"] {
        fs::create_dir_all(tree.join("usr").join(folder)).context("making the tree")?;
        symlink(format!("usr/{folder}"), tree.join(folder)).context("making the tree")?;
    }
    for (path, mode) in FOLDERS {
        let folder = tree.join(path);
        fs::create_dir_all(&folder).with_context(|| format!("making {path}"))?;
        set_mode(&folder, mode)?;
    }
    let mut wanted: BTreeSet<PathBuf> = DATA.iter().map(PathBuf::from).collect();
    for program in PROGRAMS {
        wanted.insert(PathBuf::from(program));
        wanted.extend(libraries(packages, program)?);
    }
    for path in wanted {
        copy(&packages.join(&path), &tree.join(&path))?;
    }
    copy(&packages.join(LOADER), &tree.join(LOADER))?;
    symlink("../lib/x86_64-linux-gnu/ld-linux-x86-64.so.2", tree.join("lib64/ld-linux-x86-64.so.2"))
        .context("linking the loader")?;
    for (path, mode, contents) in FILES {
        let file = tree.join(path);
        fs::create_dir_all(file.parent().unwrap_or(tree)).with_context(|| format!("writing {path}"))?;
        fs::write(&file, contents).with_context(|| format!("writing {path}"))?;
        set_mode(&file, mode)?;
    }
    for name in KMOD_NAMES {
        symlink("../bin/kmod", tree.join("sbin").join(name)).with_context(|| format!("linking {name}"))?;
    }
    // A shell that takes the programs of the image. busybox's own takes busybox's commands before any other.
    symlink("bash", tree.join("bin/sh")).context("linking the shell")?;
    name_busybox(tree)
}

/// The libraries that a program is loaded with, by their places in the packages.
pub fn libraries(packages: &Path, program: &str) -> Result<Vec<PathBuf>> {
    let bytes = fs::read(packages.join(program)).with_context(|| format!("reading {program}"))?;
    if elf::linkage(&bytes).with_context(|| format!("reading {program} as ELF"))?.is_static() {
        return Ok(Vec::new());
    }
    let places = LIBRARIES.map(|folder| packages.join(folder).display().to_string()).join(":");
    let mut ask = Command::new(packages.join(LOADER));
    ask.args(["--inhibit-cache", "--library-path", &places, "--list"]).arg(packages.join(program));
    let said = cargo::output(&mut ask)?;
    let mut found = Vec::new();
    for line in said.lines() {
        match library(line) {
            None => {}
            Some(path) => match Path::new(path).strip_prefix(packages) {
                Ok(path) => found.push(path.to_owned()),
                Err(_) => bail!("{program} needs {path}, which no package has"),
            },
        }
    }
    Ok(found)
}

/// The library of one line: `NAME => PATH (ADDRESS)`. What the kernel or the loader itself is, is none.
fn library(line: &str) -> Option<&str> {
    let found = line.split_once(" => ")?.1;
    Some(found.rsplit_once(" (").map_or(found, |(path, _)| path).trim())
}

/// busybox under every name that nothing better has.
fn name_busybox(tree: &Path) -> Result<()> {
    let said = cargo::output(Command::new(tree.join("bin/busybox")).arg("--list"))?;
    let is_there = |name: &str| ["bin", "sbin"].iter().any(|folder| tree.join(folder).join(name).exists());
    for name in said.lines().filter(|name| !is_there(name)) {
        symlink("busybox", tree.join("bin").join(name)).with_context(|| format!("linking {name}"))?;
    }
    Ok(())
}

/// Adds the modules of a kernel, from the tree in which it was unpacked.
pub fn add_modules(tools: &Path, kernel: &str, tree: &Path) -> Result<()> {
    let beneath = format!("lib/modules/{kernel}");
    let from = tools.join(&beneath);
    cargo::run(tool(tools, "bin/kmod", "depmod").arg("-b").arg(tools).arg(kernel))?;
    let text = fs::read_to_string(from.join("modules.dep")).context("reading modules.dep")?;
    let needs = needs(&text);
    for wanted in MODULES {
        let place = format!("kernel/{wanted}");
        ensure!(needs.keys().any(|module| is_beneath(module, &place)), "the kernel has no module {place}");
    }
    let roots = MODULES.map(|module| format!("kernel/{module}"));
    let to = tree.join(&beneath);
    for module in closure(&needs, |module| roots.iter().any(|root| is_beneath(module, root))) {
        copy(&from.join(module), &to.join(module))?;
    }
    for list in ["modules.order", "modules.builtin", "modules.builtin.modinfo"] {
        copy(&from.join(list), &to.join(list))?;
    }
    cargo::run(tool(tools, "bin/kmod", "depmod").arg("-b").arg(tree).arg(kernel))
}

/// What each module needs, all of it, from `modules.dep`: `MODULE: MODULE..`.
fn needs(text: &str) -> BTreeMap<&str, Vec<&str>> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(module, needed)| (module, needed.split_whitespace().collect()))
        .collect()
}

fn closure<'t>(
    needs: &BTreeMap<&'t str, Vec<&'t str>>,
    is_wanted: impl Fn(&str) -> bool,
) -> BTreeSet<&'t str> {
    let wanted = needs.iter().filter(|(module, _)| is_wanted(module));
    wanted.flat_map(|(module, needed)| needed.iter().chain([module])).copied().collect()
}

/// True for a module in that folder, and for that very module.
fn is_beneath(module: &str, place: &str) -> bool {
    Path::new(module).starts_with(place)
}

/// Copies what a path leads to, which may be a link beside it.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    let saying = || format!("copying {} to {}", from.display(), to.display());
    fs::create_dir_all(to.parent().unwrap_or(to)).with_context(saying)?;
    fs::copy(from, to).map(drop).with_context(saying)
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .with_context(|| format!("setting the mode of {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_is_told_from_what_is_no_file() {
        assert_eq!(library("\tlibc.so.6 => /r/lib/libc.so.6 (0x00007f)"), Some("/r/lib/libc.so.6"));
        assert_eq!(library("\tlinux-vdso.so.1 (0x00007ffc)"), None);
        assert_eq!(library("\tlibx.so => not found"), Some("not found"));
    }

    #[test]
    fn modules_come_with_what_they_need() {
        let text = "kernel/drivers/ata/ahci.ko: kernel/drivers/ata/libahci.ko kernel/lib/a.ko\n\
                    kernel/drivers/ata/libahci.ko:\nkernel/drivers/atabad.ko:\nkernel/lib/a.ko:\nkernel/lib/b.ko:\n";
        let needs = needs(text);
        let found = |place: &str| -> Vec<&str> {
            closure(&needs, |module| is_beneath(module, place)).into_iter().collect()
        };
        let all = ["kernel/drivers/ata/ahci.ko", "kernel/drivers/ata/libahci.ko", "kernel/lib/a.ko"];
        assert_eq!(found("kernel/drivers/ata"), all);
        assert_eq!(found("kernel/lib/b.ko"), ["kernel/lib/b.ko"]);
        assert_eq!(found("kernel/lib/none.ko"), [""; 0]);
    }
}
