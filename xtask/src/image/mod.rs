//! `cargo xtask image`: the live image that machines are vetted in, a kernel and one initramfs, from Debian's packages and
//! our static agent.
//!
//! ```text
//!   guest/live/base.cpio.zst   tools, libraries, modules: made once (`debian::Kit`) and shared with the tests
//!   + own.cpio.zst             the agent as /init, its settings, the manifest: made every time
//!   = initramfs.img            the kernel unpacks one archive after the other
//! ```
//!
//! The same packages, agent and settings give the same bytes.

mod contents;
mod newc;
mod tree;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::debian::tools::tool;
use crate::debian::{Kit, bootstrap, only_entry};
use crate::{cargo, packages, release};
use newc::Archive;

/// How hard zstd tries: four times the effort for a tenth less is not worth a minute.
const LEVEL: &str = "-12";

/// zstd, by its place in the packages.
const PACKER: &str = "usr/bin/zstd";

/// What an image is made of, in a file beside it and in itself.
const MANIFEST: &str = "manifest";

/// What `cargo xtask image` was asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Where the image goes; `target/image` unless told.
    pub out: Option<PathBuf>,
    /// Another agent than the one that is built here.
    pub agent: Option<PathBuf>,
    /// The orchestrator and the pins of its certificate.
    pub pin: Option<Pin>,
    /// Settings of the agent, as its environment has them.
    pub set: Vec<(String, String)>,
}

/// An orchestrator that an image trusts, whatever the kernel command line says.
#[derive(Debug, PartialEq, Eq)]
pub struct Pin {
    pub url: String,
    pub fingerprints: String,
}

impl Pin {
    /// From `URL,SHA256[,SHA256..]`. What it says is checked by its form alone: that a URL leads somewhere, and whose the
    /// certificate is, shows when a machine boots.
    pub fn parse(text: &str) -> Result<Pin, String> {
        let expected = || format!("found {text:?}, expected https://HOST[:PORT],SHA256[,SHA256]");
        let (url, fingerprints) = text.split_once(',').ok_or_else(expected)?;
        let is_sha256 = |one: &str| {
            let digits = one.bytes().filter(|byte| *byte != b':');
            digits.clone().count() == 64 && digits.clone().all(|byte| byte.is_ascii_hexdigit())
        };
        let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic());
        if !url.starts_with("https://") || !is_plain || !fingerprints.split(',').all(is_sha256) {
            return Err(expected());
        }
        Ok(Pin { url: url.to_owned(), fingerprints: fingerprints.to_owned() })
    }
}

/// A setting, from `NAME=VALUE`, the name being that of the agent's variable.
pub fn setting(text: &str) -> Result<(String, String), String> {
    let fits = |name: &str| {
        name.strip_prefix("GROUNDCREW_")
            .is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_'))
    };
    match text.split_once('=') {
        Some((name, value)) if fits(name) && !value.contains(['\n', '\0']) => {
            Ok((name.to_owned(), value.to_owned()))
        }
        Some(_) | None => {
            Err(format!("found {text:?}, expected a variable of the agent, as in GROUNDCREW_ALLOW_POWER=no"))
        }
    }
}

/// Builds the image, and says where it is and what it weighs.
///
/// # Errors
/// When this is not root, a mirror does not give what is needed, or something cannot be written.
pub fn run(options: &Options) -> Result<()> {
    packages::ensure(packages::Need::Dist)?;
    let live = {
        let kit = Kit::open()?;
        prepare_base(&kit, &kit.tools()?)?
    };
    let agent = match &options.agent {
        Some(agent) => agent.clone(),
        None => {
            let (package, binary) = release::SHIPPED[0];
            let built = release::build_static(package, binary, release::AGENT_PROFILE)?;
            release::refuse_faults(&built)?;
            built
        }
    };
    let out = match &options.out {
        Some(out) => out.clone(),
        None => cargo::target_folder()?.join("image"),
    };
    fs::create_dir_all(&out).with_context(|| format!("making {}", out.display()))?;
    let manifest = format!("{}{}", sums(&[&agent], "agent ")?, read(&live.join(MANIFEST))?);
    let own = out.join("own.cpio.zst");
    let mut archive = pack(&live, &own)?;
    let bytes = fs::read(&agent).with_context(|| format!("reading {}", agent.display()))?;
    let write = |archive: &mut Archive<_>| {
        archive.file("init", 0o755, &bytes)?;
        archive.file("etc/groundcrew/image.env", 0o600, settings(options).as_bytes())?;
        archive.file("etc/groundcrew/manifest", 0o644, manifest.as_bytes())
    };
    write(&mut archive.archive).context("packing the agent")?;
    archive.finish()?;
    let image = out.join("initramfs.img");
    let mut whole = fs::read(live.join("base.cpio.zst")).context("reading the base")?;
    whole.extend(fs::read(&own).context("reading the packed agent")?);
    fs::write(&image, whole).with_context(|| format!("writing {}", image.display()))?;
    fs::remove_file(&own).context("removing the packed agent")?;
    let kernel = out.join("vmlinuz");
    fs::copy(live.join("vmlinuz"), &kernel).context("copying the kernel")?;
    fs::write(out.join(MANIFEST), &manifest).context("writing the manifest")?;
    fs::write(out.join("SHA256SUMS"), sums(&[&kernel, &image, &out.join(MANIFEST)], "")?)
        .context("writing the sums")?;
    for file in [&kernel, &image] {
        let size = fs::metadata(file).context("looking at the image")?.len();
        println!("{}: {:.1} MB", file.display(), size as f64 / 1e6);
    }
    Ok(())
}

/// The agent's settings: what every live image has, what the builder says, and the pins, which nothing beats.
fn settings(options: &Options) -> String {
    let mut text = String::from("# Settings of the agent, which beat the kernel command line.\n");
    let given = options.set.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let pin = options.pin.iter();
    let pins =
        pin.flat_map(|pin| [("GROUNDCREW_URL", pin.url.as_str()), ("GROUNDCREW_FPR", &pin.fingerprints)]);
    for (name, value) in contents::SETTINGS.into_iter().chain(given).chain(pins) {
        text += &format!("{name}={value}\n");
    }
    text
}

/// Prepares what every image shares, from the unpacked tools. Where it is.
///
/// # Errors
/// As [`run`].
pub fn prepare_base(kit: &Kit, tools: &Path) -> Result<PathBuf> {
    kit.part("live", RECIPE, |new| make_base(tools, new))
}

/// Changes whenever something does that the base is made by.
const RECIPE: &str = concat!(
    include_str!("mod.rs"),
    include_str!("contents.rs"),
    include_str!("newc.rs"),
    include_str!("tree.rs"),
    include_str!("files/prepare.sh"),
    include_str!("files/lease.sh"),
    include_str!("files/sshd_config")
);

/// Makes it, in `new`.
fn make_base(tools: &Path, new: &Path) -> Result<()> {
    let kernel = only_entry(&tools.join("lib/modules"))?;
    let unpacked = new.join("root");
    bootstrap::unpack("extract", &contents::PACKAGES, &[], &unpacked)?;
    let tree = new.join("tree");
    tree::settle(&unpacked, &tree)?;
    tree::add_modules(tools, &kernel, &tree)?;
    fs::copy(tools.join(format!("boot/vmlinuz-{kernel}")), new.join("vmlinuz"))
        .context("copying the kernel")?;
    fs::write(new.join(MANIFEST), manifest(&kernel, &unpacked, &tree)?).context("writing the manifest")?;
    // The packer stays: every image needs it for the agent.
    for path in tree::libraries(&unpacked, PACKER)?.into_iter().chain([PACKER.into()]) {
        tree::copy(&unpacked.join(&path), &new.join("packer").join(&path))?;
    }
    let mut archive = pack(new, &new.join("base.cpio.zst"))?;
    // The kernel opens it for its first process before anything is mounted.
    archive.archive.tree(&tree)?;
    archive.archive.device("dev/console", 0o600, (5, 1)).context("packing /dev/console")?;
    archive.archive.device("dev/null", 0o666, (1, 3)).context("packing /dev/null")?;
    archive.finish()?;
    for folder in [unpacked, tree] {
        fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))?;
    }
    Ok(())
}

/// What an image says of itself: its kernel, the packages that its parts are of, and the sum of each file.
fn manifest(kernel: &str, unpacked: &Path, tree: &Path) -> Result<String> {
    let mut text = format!("kernel {kernel}\n");
    for package in bootstrap::packages_of(unpacked)? {
        text += &format!("package {package}\n");
    }
    let mut files = Vec::new();
    list(tree, &mut files)?;
    let names: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
    Ok(text + &sums(&names, "file ")?.replace(&format!("{}/", tree.display()), "/"))
}

fn list(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let saying = || format!("listing {}", folder.display());
    let entries: std::io::Result<Vec<_>> = fs::read_dir(folder).with_context(saying)?.collect();
    let mut paths: Vec<PathBuf> = entries.with_context(saying)?.iter().map(fs::DirEntry::path).collect();
    paths.sort();
    for path in paths {
        if path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            list(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

/// The SHA-256 of files, a line each as `sha256sum` says it, behind a word.
fn sums(files: &[&Path], word: &str) -> Result<String> {
    let said = cargo::output(Command::new("sha256sum").arg("--").args(files))?;
    Ok(said.lines().map(|line| format!("{word}{line}\n")).collect())
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}

/// An archive that goes through zstd into a file.
struct Packing {
    archive: Archive<std::io::BufWriter<std::process::ChildStdin>>,
    zstd: std::process::Child,
}

fn pack(live: &Path, file: &Path) -> Result<Packing> {
    let mut command = tool(&live.join("packer"), PACKER, "zstd");
    let arguments = ["-q", "-f", "-T0", LEVEL, "-o"].map(OsString::from);
    command.args(arguments).arg(file).stdin(Stdio::piped());
    let mut zstd = command.spawn().context("starting zstd")?;
    let out = zstd.stdin.take().context("zstd has no standard input")?;
    Ok(Packing { archive: Archive::new(std::io::BufWriter::new(out)), zstd })
}

impl Packing {
    fn finish(mut self) -> Result<()> {
        drop(self.archive.finish().context("packing")?);
        let status = self.zstd.wait().context("waiting for zstd")?;
        ensure!(status.success(), "zstd ended with {status}");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA: &str = "0123456789abcdef0123456789ABCDEF0123456789abcdef0123456789abcdef";

    #[test]
    fn a_pin_is_a_url_and_sums() {
        let pin = Pin::parse(&format!("https://a:8443,{SHA},{SHA}")).unwrap();
        assert_eq!((pin.url.as_str(), pin.fingerprints), ("https://a:8443", format!("{SHA},{SHA}")));
        let colons: Vec<&str> =
            SHA.as_bytes().chunks(2).map(|two| std::str::from_utf8(two).unwrap()).collect();
        assert!(Pin::parse(&format!("https://a,{}", colons.join(":"))).is_ok());
        for wrong in [
            "https://a".to_owned(),
            format!("http://a,{SHA}"),
            format!("https://a,{SHA},"),
            format!("https://a,{}", &SHA[1..]),
            format!("https://a\nGROUNDCREW_TOKEN=x,{SHA}"),
        ] {
            assert!(Pin::parse(&wrong).unwrap_err().contains("expected https://"), "{wrong}");
        }
    }

    #[test]
    fn a_setting_is_a_variable_of_the_agent() {
        let set = |text: &str| setting(text).ok().map(|(name, value)| format!("{name}|{value}"));
        assert_eq!(set("GROUNDCREW_ALLOW_POWER=no").as_deref(), Some("GROUNDCREW_ALLOW_POWER|no"));
        assert_eq!(set("GROUNDCREW_URL=https://a?b=c").as_deref(), Some("GROUNDCREW_URL|https://a?b=c"));
        for wrong in ["PATH=/tmp", "GROUNDCREW_URL", "GROUNDCREW_url=x", "GROUNDCREW_A=x\nGROUNDCREW_B=y"] {
            assert_eq!(set(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn pins_come_last_and_so_beat_everything() {
        let pin = Pin::parse(&format!("https://a,{SHA}")).unwrap();
        let set = vec![("GROUNDCREW_URL".to_owned(), "https://b".to_owned())];
        let text = settings(&Options { pin: Some(pin), set, ..Options::default() });
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[lines.len() - 3..],
            ["GROUNDCREW_URL=https://b", "GROUNDCREW_URL=https://a", &format!("GROUNDCREW_FPR={SHA}"),]
        );
        assert!(lines.contains(&"GROUNDCREW_CLOCK=hello"), "{text}");
    }
}
