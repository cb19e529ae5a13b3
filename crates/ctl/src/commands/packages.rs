//! Packages that the orchestrator stores.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;

use anyhow::{Context, Result, bail};
use groundcrew_protocol::ids::{Sha256Hex, Sha256Sum};
use groundcrew_protocol::limits::PACKAGE_BYTES_MAX;
use groundcrew_protocol::operator::{PackageList, PackageView};

use super::{Desk, page};
use crate::api::{Answer, encoded, query};
use crate::arguments::{PackageArgument, PackageCommand};
use crate::{tables, words};

/// Bytes that are hashed at a time.
const PART_BYTES: usize = 256 * 1024;

/// Does one command about packages.
pub(super) async fn run(desk: &Desk, command: PackageCommand) -> Result<()> {
    match command {
        PackageCommand::List(part) => {
            let answer = desk.api.get(&format!("/api/v1/packages{}", page(&part, &[]))).await?;
            let text = |answer: &Answer| {
                Ok(tables::packages(&answer.parse::<PackageList>()?, &desk.reader, words::now()))
            };
            desk.show(&answer, text)
        }
        PackageCommand::Put { name, version, file } => {
            put(desk, &PackageArgument { name, version }, &file).await
        }
        PackageCommand::Show(package) => {
            let answer = desk.api.get(&path_of(&package)).await?;
            show(desk, &answer)
        }
        PackageCommand::Delete(package) => {
            let name = format!("{} {}", package.name, package.version);
            desk.delete(&path_of(&package), "package", &name).await
        }
    }
}

fn path_of(package: &PackageArgument) -> String {
    format!("/api/v1/packages/{}/{}", package.name, encoded(package.version.as_str()))
}

fn show(desk: &Desk, answer: &Answer) -> Result<()> {
    desk.show(answer, |answer| {
        let package: PackageView = answer.parse()?;
        Ok(format!("Package {} {}, SHA-256 {}\n", package.name, package.version, package.sha256))
    })
}

/// Stores a file. What is stored under the name is looked at before, so that nobody sends gigabytes in vain.
async fn put(desk: &Desk, package: &PackageArgument, path: &Path) -> Result<()> {
    let doing = || format!("reading {}", path.display());
    let mut file = File::open(path).with_context(doing)?;
    let (sha256, bytes) = sum_of(&mut file).with_context(doing)?;
    if bytes > PACKAGE_BYTES_MAX {
        bail!("{} has {bytes} bytes, and a package has at most {PACKAGE_BYTES_MAX}", path.display());
    }
    if let Some(answer) = desk.api.find(&path_of(package)).await? {
        let stored: PackageView = answer.parse()?;
        if stored.sha256 == sha256 {
            return show(desk, &answer);
        }
        bail!(
            "package {} {} is stored with SHA-256 {}, and {} has {sha256}: what a version holds never changes; give it \
             another version, or delete the one that is stored",
            stored.name,
            stored.version,
            stored.sha256,
            path.display()
        );
    }
    file.rewind().with_context(doing)?;
    let place = path_of(package) + &query(&[("sha256", Some(sha256.as_str()))]);
    let answer = desk.api.put_file(&place, file, bytes).await?;
    show(desk, &answer)
}

fn sum_of(file: &mut File) -> std::io::Result<(Sha256Hex, u64)> {
    let (mut sum, mut bytes, mut part) = (Sha256Sum::default(), 0, vec![0; PART_BYTES]);
    loop {
        let read = file.read(&mut part)?;
        if read == 0 {
            return Ok((sum.of_all(), bytes));
        }
        sum.add(&part[..read]);
        bytes += read as u64;
    }
}
