//! Random trees and random paths: a [`Root`] reaches what a process with that root would reach, and nothing else.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::alone::in_chroot;
use super::*;

/// What stands in a random tree. Names come from a few letters, so that paths and links often meet something.
#[derive(Debug, Clone)]
enum Thing {
    Folder(String),
    File(String),
    Link(String, String),
}

/// What stands in every tree, so that most paths lead somewhere.
const FOLDERS: [&str; 5] = ["a/b/c", "a/c", "b/a", "b/c", "c/a/b"];
const FILES: [&str; 5] = ["d", "a/d", "a/b/d", "b/a/d", "c/a/d"];

fn name() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "a", "b", "b", "c", "d", "l", "l", "m"]).prop_map(str::to_owned)
}

/// A link's own place: a name that is free, in a folder that may well be there.
fn place() -> impl Strategy<Value = String> {
    let folder = prop::sample::select(vec!["", "a/", "b/", "a/b/", "a/b/c/", "c/a/", "l/", "a/l/"]);
    (folder, prop::sample::select(vec!["l", "m"])).prop_map(|(folder, name)| format!("{folder}{name}"))
}

fn path() -> impl Strategy<Value = String> {
    let part = prop_oneof![6 => name(), 2 => Just("..".to_owned()), 1 => Just(".".to_owned()), 1 => Just(String::new())];
    let ends = (any::<bool>(), prop::sample::select(vec!["", "", "", "/", "/."]));
    (prop::collection::vec(part, 1..6), ends).prop_map(|(parts, (absolute, end))| {
        let slash = if absolute { "/" } else { "" };
        let text = format!("{slash}{}{end}", parts.join("/"));
        if text.is_empty() { ".".to_owned() } else { text }
    })
}

/// A link's target: as any path, or one that names a file outside by the path that the host knows.
fn target() -> impl Strategy<Value = String> {
    prop_oneof![6 => path(), 1 => Just("../../../../outside/secret".to_owned()), 1 => Just("@OUTSIDE@/secret".to_owned()),
        1 => Just("@OUTSIDE@/new".to_owned())]
}

fn thing() -> impl Strategy<Value = Thing> {
    prop_oneof![
        2 => path().prop_map(Thing::Folder),
        1 => path().prop_map(Thing::File),
        3 => (place(), target()).prop_map(|(at, to)| Thing::Link(at, to)),
    ]
}

/// A path to be tried: any, or one over a link's place.
fn tried() -> impl Strategy<Value = String> {
    let over_a_link = (place(), path()).prop_map(|(link, rest)| format!("{link}/{rest}"));
    prop_oneof![2 => path(), 1 => place(), 3 => over_a_link]
}

struct Fixture {
    _scratch: tempfile::TempDir,
    root: PathBuf,
    outside: PathBuf,
}

/// Builds the tree from within, so that its links cannot lead the builder out either.
fn build(things: &[Thing]) -> Fixture {
    let scratch = tempfile::tempdir().unwrap();
    let (root, outside) = (scratch.path().join("root"), scratch.path().join("outside"));
    fs::create_dir(&root).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "secret").unwrap();
    in_chroot(&root, || {
        FOLDERS.iter().for_each(|folder| fs::create_dir_all(folder).unwrap());
        FILES.iter().for_each(|file| fs::write(file, file).unwrap());
        for thing in things {
            // Whether it succeeds depends on what is there already; both are good trees.
            let _either_way = match thing {
                Thing::Folder(path) => fs::create_dir_all(path),
                Thing::File(path) => {
                    fs::File::create_new(path).and_then(|mut file| file.write_all(path.as_bytes()))
                }
                Thing::Link(path, to) => {
                    let to = to.replace("@OUTSIDE@", outside.to_str().unwrap());
                    std::os::unix::fs::symlink(to, path)
                }
            };
        }
    });
    Fixture { _scratch: scratch, root, outside }
}

type Identity = (u64, u64);

/// Every path below a folder with what stands there, links as links.
fn snapshot(top: &Path) -> Vec<(PathBuf, u64, String)> {
    let mut found = Vec::new();
    let mut folders = vec![top.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let metadata = path.symlink_metadata().unwrap();
            let text = if metadata.is_file() { fs::read_to_string(&path).unwrap() } else { String::new() };
            if metadata.is_dir() {
                folders.push(path.clone());
            }
            found.push((path, metadata.ino(), text));
        }
    }
    found.sort();
    found
}

fn reached(root: &Root, path: &str, last: Last) -> Option<Identity> {
    match root.walk(Path::new(path), last, Absent::Report) {
        Ok(Reached::Folder { folder, .. }) => {
            let stat = rustix::fs::fstat(folder).unwrap();
            Some((stat.st_dev, stat.st_ino))
        }
        Ok(Reached::Other { stat, .. }) => Some((stat.st_dev, stat.st_ino)),
        Ok(Reached::Missing { .. }) | Err(_) => None,
    }
}

fn identity(found: io::Result<fs::Metadata>) -> Option<Identity> {
    found.ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_path_leads_where_it_leads_a_process_with_that_root(
        things in prop::collection::vec(thing(), 0..14),
        paths in prop::collection::vec(tried(), 8..40),
    ) {
        let fixture = build(&things);
        let expected: Vec<_> = in_chroot(&fixture.root, || {
            let both = |path: &String| (identity(fs::metadata(path)), identity(fs::symlink_metadata(path)));
            paths.iter().map(both).collect()
        });
        let root = Root::open(&fixture.root).unwrap();
        for (path, (followed, kept)) in paths.iter().zip(expected) {
            prop_assert_eq!(reached(&root, path, Last::Follow), followed, "{} in {:?}", path, things);
            prop_assert_eq!(reached(&root, path, Last::Keep), kept, "{} kept in {:?}", path, things);
            let read = root.read(Path::new(path), 1 << 20);
            if let Ok(Some(bytes)) = read {
                prop_assert_ne!(bytes, b"secret".to_vec());
            }
        }
    }

    #[test]
    fn what_is_written_is_found_by_a_process_with_that_root_and_never_lies_outside(
        things in prop::collection::vec(thing(), 0..14),
        paths in prop::collection::vec(tried(), 1..8),
    ) {
        let fixture = build(&things);
        let outside = snapshot(&fixture.outside);
        let root = Root::open(&fixture.root).unwrap();
        for (number, path) in paths.iter().enumerate() {
            let text = format!("written {number}");
            if root.write_whole(Path::new(path), text.as_bytes(), 0o644).is_ok() {
                let read = in_chroot(&fixture.root, || fs::read_to_string(path));
                prop_assert_eq!(read.ok(), Some(text), "{} in {:?}", path, things);
            }
            let folder = format!("{path}/made");
            if root.create_folders(Path::new(&folder)).is_ok() {
                prop_assert!(in_chroot(&fixture.root, || Path::new(&folder).is_dir()), "{} in {:?}", folder, things);
            }
            let log = format!("{path}/log");
            if let Ok(Some(mut file)) = root.create_new(Path::new(&log)) {
                file.write_all(b"line").unwrap();
                let read = in_chroot(&fixture.root, || fs::read_to_string(&log));
                prop_assert_eq!(read.ok(), Some("line".to_owned()), "{} in {:?}", log, things);
            }
            let before = reached(&root, path, Last::Keep);
            if root.remove(Path::new(path)).is_ok_and(|removed| removed) {
                prop_assert!(before.is_some());
                prop_assert_eq!(identity(in_chroot(&fixture.root, || fs::symlink_metadata(path))), None);
            }
        }
        prop_assert_eq!(snapshot(&fixture.outside), outside);
        let scratch = fixture.root.parent().unwrap();
        prop_assert_eq!(fs::read_dir(scratch).unwrap().count(), 2);
    }
}
