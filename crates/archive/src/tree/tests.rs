//! Entries that are refused, and that no order of those that are taken leads out.

use super::*;
use proptest::prelude::*;

fn facts(kind: Kind, path: &str, target: &str) -> Facts {
    Facts { kind, path: path.into(), mode: 0o644, target: target.into() }
}

fn refusal(before: &[Facts], entry: Facts) -> String {
    let mut tree = Tree::default();
    before.iter().for_each(|entry| drop(tree.take(entry).unwrap()));
    tree.take(&entry).expect_err(&format!("{entry:?}")).to_string()
}

#[test]
fn what_could_leave_its_place_or_be_more_than_a_file_is_refused_by_name() {
    use Kind::{File, Folder, HardLink, Link, Other};
    let long = "x".repeat(NAME_BYTES_MAX + 1);
    let deep = vec!["d"; DEPTH_MAX + 1].join("/");
    let far = vec!["dddddddd"; 130].join("/");
    for (entry, wanted) in [
        (facts(File, "/etc/passwd", ""), "an absolute path"),
        (facts(Folder, "/", ""), "an absolute path"),
        (facts(File, "../a", ""), "\"..\""),
        (facts(File, "a/../../b", ""), "\"..\""),
        (facts(File, "a/..", ""), "\"..\""),
        (facts(File, "", ""), "the archive's top"),
        (facts(Link, "./", "a"), "the archive's top"),
        (facts(File, "a\0b", ""), "a NUL byte"),
        (facts(File, &long, ""), "a name of 256 bytes"),
        (facts(File, &deep, ""), "too many folders"),
        (facts(File, &far, ""), "a path of 1169 bytes"),
        (facts(Link, "a", ""), "a link to nothing"),
        (facts(Link, "a", "/etc"), "absolute target"),
        (facts(Link, "a", ".."), "leads out"),
        (facts(Link, "d/a", "../../b"), "leads out"),
        (facts(Link, "d/a", "b/../c"), "behind a name"),
        (facts(Link, "a", &long), "a name of 256 bytes"),
        (facts(HardLink, "a", "b"), "another name of \"b\""),
        (facts(HardLink, "a", "/etc/passwd"), "an absolute path"),
        (facts(HardLink, "a", "../b"), "\"..\""),
        (facts(Other("a device"), "a", ""), "a device"),
        (facts(Other("a file with holes"), "a", ""), "a file with holes"),
    ] {
        let said = refusal(&[], entry);
        assert!(said.contains(wanted), "{wanted}: {said}");
    }
}

#[test]
fn each_path_is_taken_once_and_leads_through_folders() {
    use Kind::{File, Folder, HardLink, Link};
    let (file, link) = (facts(File, "f", ""), facts(Link, "l", "d"));
    for (before, entry, wanted) in [
        (&file, facts(File, "./f", ""), "an entry before it has"),
        (&file, facts(Folder, "f/", ""), "an entry before it has"),
        (&file, facts(Link, "f", "x"), "an entry before it has"),
        (&file, facts(File, "f/x", ""), "through \"f\", a file"),
        (&link, facts(File, "l", ""), "an entry before it has"),
        (&link, facts(File, "l/x", ""), "through \"l\", a link"),
        (&link, facts(HardLink, "h", "l"), "another name of"),
        (&facts(Folder, "d", ""), facts(Folder, "d", ""), "an entry before it has"),
        (&facts(File, "d/x", ""), facts(File, "d", ""), "an entry before it has"),
    ] {
        let said = refusal(std::slice::from_ref(before), entry);
        assert!(said.contains(wanted) && said.contains("entry 2"), "{wanted}: {said}");
    }
    let mut tree = Tree::default();
    assert_eq!(tree.take(&facts(Folder, "./", "")), Ok(Take::Top));
    tree.take(&facts(File, "d/x", "")).unwrap();
    assert_eq!(
        tree.take(&facts(Folder, "d/", "")),
        Ok(Take::Folder("d".into())),
        "named after what is in it"
    );
    let hard = tree.take(&facts(HardLink, "d/y", "./d/x"));
    assert_eq!(hard, Ok(Take::HardLink("d/y".into(), "d/x".into())));
}

#[test]
fn a_mode_gives_nobody_another_identity_nor_anybody_else_a_right_to_write() {
    for (found, kept) in [(0o7777, 0o755), (0o4711, 0o711), (0o0, 0o600), (0o666, 0o644)] {
        let entry = Facts { mode: found, ..facts(Kind::File, "f", "") };
        assert_eq!(Tree::default().take(&entry), Ok(Take::File("f".into(), kept)), "{found:o}");
    }
}

#[test]
fn there_are_at_most_so_many_entries() {
    let mut tree = Tree::default();
    for number in 0..ENTRIES_MAX {
        tree.take(&facts(Kind::File, &number.to_string(), "")).unwrap();
    }
    let said = tree.take(&facts(Kind::File, "one-more", "")).unwrap_err().to_string();
    assert!(said.contains("more than 20000"), "{said}");
}

fn path() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "c", "..", "."]), 1..5)
        .prop_map(|parts| parts.join("/"))
}

fn entry() -> impl Strategy<Value = Facts> {
    let kind = prop::sample::select(vec![Kind::File, Kind::Folder, Kind::Link, Kind::Link, Kind::HardLink]);
    (kind, path(), path()).prop_map(|(kind, path, target)| facts(kind, &path, &target))
}

/// Puts into a folder what was taken, as whoever unpacks does.
fn place(top: &Path, take: &Take) {
    let parent = |path: &Path| std::fs::create_dir_all(top.join(path.parent().unwrap())).unwrap();
    match take {
        Take::Top => {}
        Take::Folder(path) => std::fs::create_dir_all(top.join(path)).unwrap(),
        Take::File(path, _) => {
            parent(path);
            std::fs::write(top.join(path), "x").unwrap();
        }
        Take::Link(path, target) => {
            parent(path);
            std::os::unix::fs::symlink(target, top.join(path)).unwrap();
        }
        Take::HardLink(path, target) => {
            parent(path);
            std::fs::hard_link(top.join(target), top.join(path)).unwrap();
        }
    }
}

proptest! {
    #[test]
    fn nothing_that_is_taken_leads_out(
        entries in prop::collection::vec(entry(), 1..25),
        looks in prop::collection::vec(path(), 1..20),
    ) {
        let outside = tempfile::tempdir().unwrap();
        // Names that a way out would find.
        for name in ["a", "b", "c"] {
            std::fs::create_dir_all(outside.path().join(name).join(name)).unwrap();
        }
        let top = outside.path().join("top");
        std::fs::create_dir(&top).unwrap();
        let mut tree = Tree::default();
        for entry in &entries {
            if let Ok(take) = tree.take(entry) {
                place(&top, &take);
            }
        }
        let top = top.canonicalize().unwrap();
        // Whatever is there, and whatever way through it somebody takes who climbs nowhere himself.
        let ways = looks.iter().filter(|look| !look.contains(".."));
        for way in ways.map(String::as_str).chain(entries.iter().filter_map(|entry| std::str::from_utf8(&entry.path).ok())) {
            if way.contains("..") {
                continue;
            }
            if let Ok(found) = top.join(way).canonicalize() {
                prop_assert!(found.starts_with(&top), "{way} leads to {found:?}");
            }
        }
    }
}
