//! What stands in a home before and after: what was left by agents that were killed, archives that are not taken, disks
//! without room, and packages that nobody uses. The connection is tried by the walks.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use groundcrew_client::PinSet;
use proptest::prelude::*;

use super::*;
use crate::package::rooted::alone::{mount, with_own_mounts};

/// A home, and a store that has nobody to ask.
struct Bench {
    home: tempfile::TempDir,
    said: Mutex<Vec<String>>,
    cancel: Cancel,
    free_bytes_least: u64,
    of_run: Vec<Sha256Hex>,
}

impl Bench {
    fn new() -> Bench {
        Bench {
            // Where a sync waits for nobody else's writes.
            home: tempfile::tempdir_in("/dev/shm").unwrap(),
            said: Mutex::default(),
            cancel: Cancel::new().unwrap(),
            free_bytes_least: 0,
            of_run: Vec::new(),
        }
    }

    fn folder(&self, wanted: &Wanted) -> PathBuf {
        self.home.path().join("packages").join(wanted.name.as_str()).join(wanted.version.as_str())
    }

    /// Puts an archive where all of it has come.
    fn fetched(&self, archive: &[u8]) -> Wanted {
        let wanted = wanted("tuning", archive);
        let folder = self.folder(&wanted);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(format!("fetched-{}", wanted.sha256)), archive).unwrap();
        wanted
    }

    fn provide_until(&self, wanted: &Wanted, deadline: Instant) -> Result<PathBuf, FetchError> {
        // Nothing listens there: what needs the orchestrator waits until the deadline.
        let url = "https://127.0.0.1:1".parse().unwrap();
        let orchestrator = Orchestrator::new(url, PinSet::new([]), None, "r-test".parse().unwrap());
        let mut store = Store::new(orchestrator, self.home.path(), self.of_run.clone());
        store.free_bytes_least = self.free_bytes_least;
        let say = |_level, text| self.said.lock().unwrap().push(text);
        let around = Around { cancel: &self.cancel, deadline, say: &say, show: &|_, _| {} };
        store.provide(wanted, &around)
    }

    fn provide(&self, wanted: &Wanted) -> Result<PathBuf, FetchError> {
        self.provide_until(wanted, Instant::now() + Duration::from_secs(3_600))
    }

    /// Names in the folder of a package's version.
    fn names(&self, wanted: &Wanted) -> Vec<String> {
        let entries = fs::read_dir(self.folder(wanted)).into_iter().flatten();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn wanted(name: &str, archive: &[u8]) -> Wanted {
    let (name, version) = (name.parse().unwrap(), "1.0.0+b".parse().unwrap());
    Wanted { name, version, sha256: Sha256Hex::of(archive) }
}

/// A tar archive, entry by entry: type, path, mode, and content or target.
fn archive(entries: &[(u8, &str, u32, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (kind, path, mode, text) in entries {
        let is_file = *kind == b'0';
        let mut header = [0_u8; 512];
        let mut put = |at: usize, text: &[u8]| header[at..at + text.len()].copy_from_slice(text);
        put(0, path.as_bytes());
        put(100, format!("{mode:07o}").as_bytes());
        put(124, format!("{:011o}", if is_file { text.len() } else { 0 }).as_bytes());
        put(136, b"00000000000");
        put(148, b"        ");
        put(156, &[*kind]);
        if !is_file {
            put(157, text.as_bytes());
        }
        put(257, b"ustar\x0000");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        bytes.extend(header);
        if is_file {
            bytes.extend(text.as_bytes());
            bytes.resize(bytes.len().next_multiple_of(512), 0);
        }
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

fn sample() -> Vec<u8> {
    archive(&[
        (b'0', "config.json", 0o644, "{}"),
        (b'5', "skyhook_dir", 0o700, ""),
        (b'0', "skyhook_dir/one.sh", 0o6755, "#!/bin/sh\n"),
        (b'2', "latest", 0o777, "skyhook_dir/one.sh"),
        (b'1', "again", 0o644, "config.json"),
        (b'0', "deep/below/file", 0o000, "x"),
    ])
}

/// What lies in a folder, by path: the mode and the content, or the target of a link.
fn tree(top: &Path) -> BTreeMap<String, (u32, String)> {
    let (mut found, mut open) = (BTreeMap::new(), vec![top.to_owned()]);
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let metadata = path.symlink_metadata().unwrap();
            let name = path.strip_prefix(top).unwrap().to_str().unwrap().to_owned();
            let mode = metadata.permissions().mode() & 0o7777;
            if metadata.is_symlink() {
                found.insert(name, (0, fs::read_link(&path).unwrap().to_str().unwrap().to_owned()));
            } else if metadata.is_dir() {
                found.insert(name, (mode, "folder".to_owned()));
                open.push(path);
            } else {
                found.insert(name, (mode, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found
}

fn expected() -> BTreeMap<String, (u32, String)> {
    let entry = |path: &str, mode, text: &str| (path.to_owned(), (mode, text.to_owned()));
    BTreeMap::from([
        entry("config.json", 0o644, "{}"),
        entry("again", 0o644, "{}"),
        entry("skyhook_dir", 0o755, "folder"),
        entry("skyhook_dir/one.sh", 0o755, "#!/bin/sh\n"),
        entry("latest", 0, "skyhook_dir/one.sh"),
        entry("deep", 0o755, "folder"),
        entry("deep/below", 0o755, "folder"),
        entry("deep/below/file", 0o600, "x"),
    ])
}

/// What an agent that was killed at some step may have left.
#[derive(Debug, Clone, Copy)]
enum Left {
    /// All of the archive.
    Fetched,
    /// Half of what is unpacked besides.
    HalfUnpacked,
    /// The whole package, and its archive still.
    Unpacked,
    /// The whole package alone.
    Package,
}

#[test]
fn whenever_an_agent_was_killed_the_next_try_ends_with_the_same_package() {
    for left in [Left::Fetched, Left::HalfUnpacked, Left::Unpacked, Left::Package] {
        let bench = Bench::new();
        let wanted = bench.fetched(&sample());
        let folder = bench.folder(&wanted);
        let (fetched, unpacking, package) = (
            folder.join(format!("fetched-{}", wanted.sha256)),
            folder.join(format!("unpacking-{}", wanted.sha256)),
            folder.join(format!("package-{}", wanted.sha256)),
        );
        match left {
            Left::Fetched => {}
            Left::HalfUnpacked => {
                fs::create_dir_all(unpacking.join("skyhook_dir")).unwrap();
                fs::write(unpacking.join("config.json"), "{").unwrap();
                fs::write(unpacking.join("skyhook_dir/other"), "left over").unwrap();
            }
            Left::Unpacked | Left::Package => {
                assert_eq!(bench.provide(&wanted).unwrap(), package);
                if matches!(left, Left::Unpacked) {
                    fs::write(&fetched, sample()).unwrap();
                }
            }
        }
        assert_eq!(bench.provide(&wanted).unwrap(), package, "{left:?}");
        assert_eq!(tree(&package), expected(), "{left:?}");
        assert_eq!(bench.names(&wanted), [format!("package-{}", wanted.sha256)], "{left:?}");
    }
}

#[test]
fn a_package_that_is_here_is_used_without_asking_anybody() {
    let bench = Bench::new();
    let wanted = bench.fetched(&sample());
    let package = bench.provide(&wanted).unwrap();
    assert!(bench.said.lock().unwrap()[0].contains("is unpacked: 6 entries, 15 bytes"), "{:?}", bench.said);
    fs::write(package.join("mark"), "").unwrap();
    assert_eq!(bench.provide(&wanted).unwrap(), package);
    assert!(package.join("mark").exists(), "it was unpacked again");
    assert!(bench.said.lock().unwrap().last().unwrap().contains("is here already"));
}

#[test]
fn an_archive_that_is_hostile_torn_or_too_large_leaves_nothing_and_nothing_outside() {
    // A size that octal digits cannot say, in the form that is for those.
    let mut huge = archive(&[(b'0', "a", 0o644, "")]);
    huge[124..136].copy_from_slice(&[&[0x80, 0, 0, 0][..], &((8_u64 << 30) + 1).to_be_bytes()].concat());
    huge[148..156].copy_from_slice(b"        ");
    let sum: u32 = huge[..512].iter().map(|byte| u32::from(*byte)).sum();
    huge[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    for (content, word) in [
        (archive(&[(b'0', "../../../../outside", 0o644, "x")]), "\"..\""),
        (archive(&[(b'0', "/outside", 0o644, "x")]), "absolute"),
        (archive(&[(b'2', "out", 0o777, "../.."), (b'0', "out/outside", 0o644, "x")]), "leads out"),
        (archive(&[(b'2', "in", 0o777, "a"), (b'0', "in/outside", 0o644, "x")]), "a link"),
        (archive(&[(b'1', "passwd", 0o644, "../../../../../etc/passwd")]), "\"..\""),
        (archive(&[(b'4', "disk", 0o644, "")]), "a device"),
        (archive(&[(b'0', "a", 0o644, "1"), (b'0', "a", 0o644, "2")]), "each path once"),
        (huge, "more bytes in its files"),
        (sample()[..1024].to_vec(), "cut short"),
        (b"#!/bin/sh\n".to_vec(), "no tar archive"),
        (Vec::from(&[0x28, 0xb5, 0x2f, 0xfd, 0, 0][..]), "cannot be read"),
    ] {
        let bench = Bench::new();
        let wanted = bench.fetched(&content);
        let error = crate::errors::chain(&bench.provide(&wanted).unwrap_err());
        assert!(error.contains(word) && error.contains("archive"), "{word}: {error}");
        assert_eq!(bench.names(&wanted), Vec::<String>::new(), "{word}");
        let everything: Vec<_> = tree(bench.home.path()).into_keys().collect();
        assert_eq!(everything, ["packages", "packages/tuning", "packages/tuning/1.0.0+b"], "{word}");
    }
}

#[test]
fn what_is_packed_is_unpacked_whatever_packed_it() {
    let packed = zstd_of(&sample());
    let bench = Bench::new();
    let wanted = bench.fetched(&packed);
    assert_eq!(tree(&bench.provide(&wanted).unwrap()), expected());
}

/// A zstd frame that holds bytes as they are (RFC 8878, sections 3.1.1 and 3.1.1.2.2).
fn zstd_of(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap();
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0xa0];
    frame.extend(length.to_le_bytes());
    frame.extend(&((length << 3) | 1).to_le_bytes()[..3]);
    frame.extend(bytes);
    frame
}

#[test]
fn a_disk_without_room_is_named_and_gets_back_what_was_taken() {
    with_own_mounts(|| {
        let content = archive(&[(b'0', "large", 0o644, &"x".repeat(400_000))]);
        for (size, least, word) in
            [("1200k", 1_000_000, "bytes free at"), ("600k", 0, "bytes free at"), ("1200k", 0, "")]
        {
            let bench = Bench { free_bytes_least: least, ..Bench::new() };
            let home = bench.home.path().to_str().unwrap();
            mount(&["-t", "tmpfs", "-o", &format!("size={size},mode=700"), "tmpfs", home]);
            let wanted = bench.fetched(&content);
            match bench.provide(&wanted) {
                Ok(_) => assert_eq!(word, ""),
                Err(error) => {
                    assert!(!word.is_empty() && error.to_string().contains(word), "{size} {least}: {error}");
                    assert!(error.to_string().contains(home), "{error}");
                    assert_eq!(bench.names(&wanted), Vec::<String>::new(), "{size} {least}");
                }
            }
            mount_off(home);
        }
    });
}

fn mount_off(at: &str) {
    let status = std::process::Command::new("umount").arg(at).status().unwrap();
    assert!(status.success());
}

#[test]
fn a_file_system_that_runs_full_under_way_is_named_and_emptied() {
    with_own_mounts(|| {
        let bench = Bench::new();
        let home = bench.home.path().to_str().unwrap();
        // Room for every byte and for too few names.
        mount(&["-t", "tmpfs", "-o", "size=8m,nr_inodes=12,mode=700", "tmpfs", home]);
        let names: Vec<String> = (0..20).map(|number| format!("file-{number}")).collect();
        let entries: Vec<_> = names.iter().map(|name| (b'0', name.as_str(), 0o644, "x")).collect();
        let wanted = bench.fetched(&archive(&entries));
        let error = crate::errors::chain(&bench.provide(&wanted).unwrap_err());
        assert!(error.contains("No space left on device") && error.contains("file-"), "{error}");
        assert_eq!(bench.names(&wanted), Vec::<String>::new());
        mount_off(home);
    });
}

#[test]
fn a_stage_that_ends_leaves_what_has_come_for_the_next_try() {
    let bench = Bench::new();
    let content = sample();
    let wanted = self::wanted("tuning", &content);
    let folder = bench.folder(&wanted);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(format!("fetched-{}", wanted.sha256)), &content[..700]).unwrap();
    let late = bench.provide_until(&wanted, Instant::now()).unwrap_err();
    assert!(matches!(late, FetchError::Late { .. }) && late.to_string().contains("700 bytes"), "{late}");
    bench.cancel.ask();
    assert!(matches!(bench.provide(&wanted), Err(FetchError::Stopped)));
    assert_eq!(bench.names(&wanted), [format!("fetched-{}", wanted.sha256)]);
}

#[test]
fn a_stage_that_ends_while_it_looks_at_what_has_come_keeps_it() {
    let bench = Bench::new();
    let wanted = bench.fetched(&sample());
    let fetched = bench.folder(&wanted).join(format!("fetched-{}", wanted.sha256));
    bench.cancel.ask();
    let opened = |deadline| {
        let around = Around { cancel: &bench.cancel, deadline, say: &|_, _| {}, show: &|_, _| {} };
        part::Part::open(fetched.clone(), &around).map(|part| part.bytes())
    };
    let later = Instant::now() + Duration::from_secs(3_600);
    assert!(matches!(opened(later), Err(FetchError::Stopped)));
    assert_eq!(fs::read(&fetched).unwrap(), sample());
}

#[test]
fn a_stage_that_ends_while_it_unpacks_keeps_the_archive_whatever_is_in_it() {
    let names: Vec<String> = (0..50).map(|number| format!("folder-{number}")).collect();
    let of = |kind, text| names.iter().map(|name| (kind, name.as_str(), 0o755, text)).collect::<Vec<_>>();
    for content in [archive(&of(b'0', "x")), archive(&of(b'5', "")), archive(&of(b'2', "nothing")), sample()]
    {
        let bench = Bench::new();
        let wanted = bench.fetched(&content);
        let places = Places::in_home(bench.home.path());
        let place = places.of(&wanted).unwrap();
        // Asked as soon as it is known to have begun.
        let show = |_fraction, activity: String| {
            if activity == "unpacking" {
                bench.cancel.ask()
            }
        };
        let deadline = Instant::now() + Duration::from_secs(3_600);
        let around = Around { cancel: &bench.cancel, deadline, say: &|_, _| {}, show: &show };
        let error = unpack::unpack(&place, 0, &around).unwrap_err();
        assert!(matches!(error, FetchError::Stopped), "{error}");
        assert_eq!(bench.names(&wanted), [format!("fetched-{}", wanted.sha256)]);
        // Nobody asks the next one.
        let cancel = Cancel::new().unwrap();
        let around = Around { cancel: &cancel, deadline, say: &|_, _| {}, show: &|_, _| {} };
        unpack::unpack(&place, 0, &around).unwrap();
        assert_eq!(bench.names(&wanted), [format!("package-{}", wanted.sha256)]);
    }
}

#[test]
fn packages_that_no_run_names_go_but_for_those_that_were_used_last() {
    let mut bench = Bench::new();
    let day = |number: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(number * 86_400);
    let mut all = Vec::new();
    for number in 0..OTHERS_KEPT_MAX as u64 + 3 {
        let other = wanted(&format!("p{number}"), format!("archive {number}").as_bytes());
        let package = bench.folder(&other).join(format!("package-{}", other.sha256));
        fs::create_dir_all(package.join("full")).unwrap();
        fs::File::open(&package).unwrap().set_modified(day(number)).unwrap();
        all.push((other, package));
    }
    // What was never finished goes, whatever its age; what is no name of ours stays.
    let (first, _) = &all[0];
    for name in ["fetched-", "leaving-", "unpacking-"] {
        let path = bench.folder(first).join(format!("{name}{}", first.sha256));
        if name == "fetched-" { fs::write(path, "half").unwrap() } else { fs::create_dir(path).unwrap() }
    }
    let copy = bench.home.path().join("packages/tuning-1.0.0/groundcrew-r-1-0/unpacking");
    fs::create_dir_all(&copy).unwrap();
    // The oldest is this run's.
    bench.of_run = vec![first.sha256.clone()];
    let wanted = bench.fetched(&sample());
    bench.of_run.push(wanted.sha256.clone());
    let package = bench.provide(&wanted).unwrap();
    let stays: Vec<bool> = all.iter().map(|(_, package)| package.join("full").is_dir()).collect();
    assert_eq!(stays, [true, false, false, true, true, true, true]);
    assert!(package.is_dir() && copy.is_dir());
    assert!(!bench.home.path().join("packages/p1").exists(), "an empty folder is left of what went");
    // This run's own are not touched: they are gone on with.
    assert_eq!(bench.names(first).len(), 4);
    let said = bench.said.lock().unwrap();
    assert_eq!(said.iter().filter(|line| line.starts_with("removed ")).count(), 2, "{said:?}");
}

proptest! {
    /// However an archive is damaged, there is the package or nothing, and nothing outside its folder.
    #[test]
    fn a_damaged_archive_is_all_or_nothing(at in 0_usize..6000, byte in any::<u8>(), cut in 0_usize..8000) {
        let mut content = sample();
        let length = content.len();
        content[at % length] = byte;
        content.truncate(cut.min(length).max(1));
        let bench = Bench::new();
        let wanted = bench.fetched(&content);
        let names = match bench.provide(&wanted) {
            Ok(_) => vec![format!("package-{}", wanted.sha256)],
            Err(_) => Vec::new(),
        };
        prop_assert_eq!(bench.names(&wanted), names);
        let outside = fs::read_dir(bench.home.path()).unwrap().count();
        prop_assert_eq!(outside, 1);
    }
}
