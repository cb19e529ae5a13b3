//! All that is known of a run in one archive, for whoever made its hardware: the report as a page and as JSON, the raw output of
//! tools, the log, and a list of all of it with sums that `sha256sum -c` checks.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use flate2::Compression;
use flate2::write::GzEncoder;
use groundcrew_protocol::ids::{RunId, Sha256Hex};
use groundcrew_protocol::operator::ArtifactView;
use groundcrew_protocol::stage::State;
use tar::{Builder, EntryType, Header};

use super::{Desk, logs};
use crate::api::{query, run_path};
use crate::output::{print, say_aside};

/// The list of all files with their sums, in the form of `sha256sum`.
const MANIFEST: &str = "SHA256SUMS";

/// Writes the archive. It is there whole or not at all.
pub(super) async fn write(desk: &Desk, run: &RunId, path: &Path) -> Result<()> {
    let doing = || format!("writing {}", path.display());
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder).with_context(doing)?;
    let mut bundle = Bundle::in_file(run, file.as_file_mut());
    let (json, report) = desk.api.report(run).await?;
    if !report.state.is_ended() && report.state != State::FailedHolding {
        say_aside(&format!("groundcrewctl: run {run} goes on: the archive holds what is known until now"));
    }
    bundle.add("report.html", &desk.api.report_page(run).await?).with_context(doing)?;
    bundle.add("report.json", &json).with_context(doing)?;
    let log = logs::write(desk, run, tempfile::tempfile().with_context(doing)?).await?;
    bundle.add_file("log.txt", log).with_context(doing)?;
    let listed = desk.api.get(&run_path(run, "/artifacts")).await?;
    for artifact in listed.parse::<Vec<ArtifactView>>()? {
        let ArtifactView { stage, attempt, name, sha256, .. } = &artifact;
        let (stage, attempt) = (stage.to_string(), attempt.0.to_string());
        let which = query(&[("stage", Some(&stage)), ("attempt", Some(&attempt)), ("name", Some(name))]);
        let content = desk.api.artifact(&run_path(run, &format!("/artifact{which}"))).await?;
        let found = Sha256Hex::of(&content);
        ensure!(
            found == *sha256,
            "the artifact {name} of {stage}, attempt {attempt}, has the sum {found}, expected {sha256}: it was damaged, and a \
             vendor is not to get it"
        );
        let place = format!("artifacts/{}-{attempt}/{}", plain(&stage), plain(name));
        bundle.add(&place, &content).with_context(doing)?;
    }
    bundle.end().with_context(doing)?;
    file.as_file().sync_all().with_context(doing)?;
    file.persist(path).with_context(doing)?;
    print(&format!("{}\n", path.display()))
}

/// A name that is one of a file anywhere.
fn plain(name: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let name: String = name.chars().map(|c| if is_plain(c) { c } else { '_' }).collect();
    name.trim_start_matches('.').to_owned()
}

/// An archive on its way: everything in one folder, packed.
struct Bundle<W: Write> {
    archive: Builder<GzEncoder<W>>,
    folder: String,
    places: BTreeSet<String>,
    manifest: String,
}

impl<W: Write> Bundle<W> {
    fn in_file(run: &RunId, file: W) -> Bundle<W> {
        Bundle {
            archive: Builder::new(GzEncoder::new(file, Compression::default())),
            folder: format!("groundcrew-{run}"),
            places: BTreeSet::new(),
            manifest: String::new(),
        }
    }

    fn add(&mut self, place: &str, content: &[u8]) -> std::io::Result<()> {
        let place = self.listed(place, &Sha256Hex::of(content));
        self.put(&place, content.len() as u64, content)
    }

    /// What may be too much for memory.
    fn add_file(&mut self, place: &str, (file, sum, bytes): (File, Sha256Hex, u64)) -> std::io::Result<()> {
        let place = self.listed(place, &sum);
        self.put(&place, bytes, file)
    }

    /// Puts a file on the list. Two that would have one name get two.
    fn listed(&mut self, place: &str, sum: &Sha256Hex) -> String {
        let mut own = place.to_owned();
        let mut number = 1;
        while !self.places.insert(own.clone()) {
            number += 1;
            own = format!("{place}-{number}");
        }
        self.manifest.push_str(&format!("{sum}  {own}\n"));
        own
    }

    fn put(&mut self, place: &str, bytes: u64, content: impl std::io::Read) -> std::io::Result<()> {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_size(bytes);
        header.set_mode(0o644);
        self.archive.append_data(&mut header, format!("{}/{place}", self.folder), content)
    }

    fn end(mut self) -> std::io::Result<()> {
        let manifest = std::mem::take(&mut self.manifest);
        self.put(MANIFEST, manifest.len() as u64, manifest.as_bytes())?;
        self.archive.into_inner()?.finish()?.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_one_name_gets_two_and_none_leads_elsewhere() {
        let run: RunId = "r-1".parse().unwrap();
        let mut packed = Vec::new();
        let mut bundle = Bundle::in_file(&run, &mut packed);
        for name in ["a/b", "a:b", "../../etc/passwd"] {
            bundle.add(&format!("artifacts/{}", plain(name)), name.as_bytes()).unwrap();
        }
        bundle.end().unwrap();
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(packed.as_slice()));
        let mut found = Vec::new();
        let mut manifest = String::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut content = String::new();
            std::io::Read::read_to_string(&mut entry, &mut content).unwrap();
            let path = entry.path().unwrap().display().to_string();
            if path.ends_with(MANIFEST) {
                manifest = content.clone();
            }
            found.push(path);
        }
        assert_eq!(
            found,
            [
                "groundcrew-r-1/artifacts/a_b",
                "groundcrew-r-1/artifacts/a_b-2",
                "groundcrew-r-1/artifacts/_.._etc_passwd",
                "groundcrew-r-1/SHA256SUMS"
            ]
        );
        assert!(manifest.contains(&format!("{}  artifacts/a_b-2\n", Sha256Hex::of(b"a:b"))), "{manifest}");
    }
}
