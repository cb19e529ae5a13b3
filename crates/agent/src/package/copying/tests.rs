use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::fs::{CWD, FileType, Mode, Timespec, Timestamps, mknodat};

use super::*;
use crate::package::rooted::alone::{mount, with_own_mounts};

const COPY_DIR: &str = "/opt/skyhook/sample";
const CHANGED: i64 = 1_600_000_000;

struct Fixture {
    scratch: tempfile::TempDir,
    host: PathBuf,
    data: PathBuf,
    outside: PathBuf,
    root: Root,
}

fn fixture() -> Fixture {
    let scratch = tempfile::tempdir().unwrap();
    let folder = |name: &str| {
        let path = scratch.path().join(name);
        fs::create_dir(&path).unwrap();
        path
    };
    let (host, data, outside) = (folder("root"), folder("data"), folder("outside"));
    let root = Root::open(&host).unwrap();
    Fixture { scratch, host, data, outside, root }
}

impl Fixture {
    fn deliver(&self) -> Result<bool> {
        deliver(
            &self.root,
            Path::new(COPY_DIR),
            &self.data,
            &self.scratch.path().join("node-files"),
            &UNBOUNDED,
        )
    }

    fn copied(&self, name: &str) -> PathBuf {
        self.host.join("opt/skyhook/sample").join(name)
    }

    fn copy_root_dir(&self) -> Result<()> {
        copy_root_dir(&self.root, Path::new(COPY_DIR), &UNBOUNDED)
    }

    /// A file of the package that has been delivered.
    fn put_copied(&self, name: &str, text: &str) {
        put(&self.copied(name), text, 0o644);
    }
}

fn put(path: &Path, text: &str, mode: u32) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    age(path);
}

fn age(path: &Path) {
    let time = Timespec { tv_sec: CHANGED, tv_nsec: 5 };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn mode(path: &Path) -> u32 {
    path.symlink_metadata().unwrap().mode() & 0o7777
}

fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_package_arrives_with_modes_times_and_links_resolved() {
    let fixture = fixture();
    put(&fixture.data.join("config.json"), "{}", 0o640);
    put(&fixture.data.join("skyhook_dir/a.sh"), "#!/bin/sh\n", 0o4711);
    // As Kubernetes mounts a config map.
    put(&fixture.data.join("configmaps/..1/tuning.conf"), "x", 0o644);
    symlink("..1", fixture.data.join("configmaps/..data")).unwrap();
    symlink("..data/tuning.conf", fixture.data.join("configmaps/tuning.conf")).unwrap();
    symlink(fixture.data.join("config.json"), fixture.data.join("absolute")).unwrap();
    for folder in ["skyhook_dir", "configmaps", ""] {
        age(&fixture.data.join(folder));
    }
    set_mode(&fixture.data, 0o750);
    age(&fixture.data);
    assert!(fixture.deliver().unwrap());
    for (name, expected) in
        [("", 0o750), ("config.json", 0o640), ("skyhook_dir", 0o755), ("skyhook_dir/a.sh", 0o4711)]
    {
        let path = fixture.copied(name);
        let metadata = path.symlink_metadata().unwrap();
        assert_eq!((mode(&path), metadata.mtime(), metadata.mtime_nsec()), (expected, CHANGED, 5), "{name}");
    }
    for (name, text) in
        [("configmaps/tuning.conf", "x"), ("configmaps/..data/tuning.conf", "x"), ("absolute", "{}")]
    {
        assert!(fixture.copied(name).symlink_metadata().unwrap().is_file(), "{name}");
        assert_eq!(fs::read_to_string(fixture.copied(name)).unwrap(), text);
    }
    assert_eq!(mode(&fixture.host.join("opt/skyhook")), 0o755);
    assert_eq!(names(&fixture.host.join("opt/skyhook")), ["sample"]);
}

#[test]
fn what_is_there_is_not_delivered_again() {
    let fixture = fixture();
    put(&fixture.data.join("config.json"), "new", 0o644);
    fixture.put_copied("config.json", "old");
    assert!(!fixture.deliver().unwrap());
    assert_eq!(fs::read_to_string(fixture.copied("config.json")).unwrap(), "old");
}

#[test]
fn node_files_come_over_the_package() {
    let fixture = fixture();
    put(&fixture.data.join("configmaps/a"), "package", 0o644);
    put(&fixture.data.join("configmaps/b"), "package", 0o644);
    put(&fixture.scratch.path().join("node-files/configmaps/a"), "node", 0o600);
    put(&fixture.scratch.path().join("node-files/c"), "node", 0o600);
    fixture.deliver().unwrap();
    let text = |name| fs::read_to_string(fixture.copied(name)).unwrap();
    assert_eq!(
        (text("configmaps/a"), text("configmaps/b"), text("c")),
        ("node".into(), "package".into(), "node".into())
    );
}

#[test]
fn a_relative_copy_dir_is_refused() {
    let fixture = fixture();
    let error = deliver(&fixture.root, Path::new("opt/x"), &fixture.data, Path::new("/none"), &UNBOUNDED)
        .unwrap_err();
    assert_eq!(error.to_string(), r#"copy dir "opt/x": expected an absolute path"#);
    assert_eq!(names(&fixture.host), [""; 0]);
}

#[test]
fn what_cannot_be_copied_is_named_before_anything_is_copied() {
    type Spoil = fn(&Fixture);
    let cases: [(&str, Spoil); 6] = [
        ("found a fifo", |f| mknodat(CWD, f.data.join("bad"), FileType::Fifo, Mode::RUSR, 0).unwrap()),
        ("found a symbolic link to nothing in its tree", |f| symlink("none", f.data.join("bad")).unwrap()),
        ("found a symbolic link to nothing in its tree", |f| {
            symlink(&f.outside, f.data.join("bad")).unwrap()
        }),
        ("found a symbolic link to nothing in its tree", |f| {
            symlink("../outside", f.data.join("bad")).unwrap()
        }),
        ("found a symbolic link to a folder that holds it", |f| symlink(".", f.data.join("bad")).unwrap()),
        ("more than 40 symbolic links", |f| symlink("bad", f.data.join("bad")).unwrap()),
    ];
    for (expected, spoil) in cases {
        let fixture = fixture();
        put(&fixture.data.join("a"), "x", 0o644);
        spoil(&fixture);
        let error = fixture.deliver().unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains("data/bad"), "{error}");
        assert_eq!(names(&fixture.host), [""; 0], "{expected}");
    }
}

#[test]
fn a_half_copy_of_a_killed_process_is_never_taken_for_whole() {
    let fixture = fixture();
    put(&fixture.data.join("a"), "x", 0o644);
    put(&fixture.host.join("opt/skyhook/.groundcrew-copy-sample/half"), "x", 0o644);
    assert!(fixture.deliver().unwrap());
    assert_eq!(names(&fixture.host.join("opt/skyhook")), ["sample"]);
    assert_eq!(names(&fixture.copied("")), ["a"]);
}

/// Where the victim finds its fixture.
const VICTIM_VARIABLE: &str = "GROUNDCREW_TEST_DELIVER";
/// How often the victim is asked whether to end before it is killed.
const MOMENT_VARIABLE: &str = "GROUNDCREW_TEST_DELIVER_MOMENT";

#[test]
#[ignore = "run by the test below, in a process that is killed"]
fn victim() {
    let scratch = PathBuf::from(std::env::var_os(VICTIM_VARIABLE).unwrap());
    let moment: usize = std::env::var(MOMENT_VARIABLE).unwrap().parse().unwrap();
    let root = Root::open(&scratch.join("root")).unwrap();
    let asked = std::cell::Cell::new(0);
    let killed = || {
        asked.set(asked.get() + 1);
        if asked.get() > moment {
            let own = rustix::process::getpid();
            rustix::process::kill_process(own, rustix::process::Signal::KILL).unwrap();
        }
        false
    };
    let bounds = Bounds { stop: &killed, free_bytes_least: 0 };
    deliver(&root, Path::new(COPY_DIR), &scratch.join("data"), Path::new("/none"), &bounds).unwrap();
}

#[test]
fn killed_with_any_number_of_files_copied_the_next_call_makes_it_whole() {
    const FILES: usize = 5;
    let mut half = Vec::new();
    for moment in 0.. {
        let fixture = fixture();
        for number in 0..FILES {
            put(&fixture.data.join(format!("{number:02}")), &"x".repeat(number * 5000), 0o644);
        }
        let mut victim = Command::new(std::env::current_exe().unwrap());
        victim.args(["--exact", "package::copying::tests::victim", "--ignored"]);
        victim.env(VICTIM_VARIABLE, fixture.scratch.path()).env(MOMENT_VARIABLE, moment.to_string());
        let ended = victim.stdout(Stdio::null()).status().unwrap();
        let place = fixture.host.join("opt/skyhook");
        if ended.success() {
            break;
        }
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&ended), Some(9), "{moment}: {ended}");
        assert!(!fixture.copied("").exists(), "{moment}");
        let building = place.join(".groundcrew-copy-sample");
        if building.exists() {
            half.push(names(&building).iter().filter(|name| name.len() == 2).count());
        }
        assert!(fixture.deliver().unwrap(), "{moment}");
        assert_eq!(names(&place), ["sample"], "{moment}");
        let lengths: Vec<u64> = names(&fixture.copied(""))
            .iter()
            .map(|name| fixture.copied(name).metadata().unwrap().len())
            .collect();
        assert_eq!(lengths, [0, 5_000, 10_000, 15_000, 20_000], "{moment}");
    }
    half.dedup();
    assert_eq!(half, [0, 1, 2, 3, 4], "each number of files was left behind by some kill");
}

#[test]
fn a_copy_that_another_process_builds_is_left_alone() {
    let fixture = fixture();
    put(&fixture.data.join("a"), "x", 0o644);
    let building = Path::new("/opt/skyhook/.groundcrew-copy-sample");
    let _lock = fixture.root.try_lock(building).unwrap().unwrap();
    assert!(matches!(fixture.deliver(), Err(Error::Busy { .. })));
    assert!(fixture.root.exists(building).unwrap());
}

#[test]
fn a_copy_dir_that_is_a_link_to_outside_is_made_inside() {
    let fixture = fixture();
    put(&fixture.data.join("a"), "x", 0o644);
    fs::create_dir_all(fixture.host.join("opt")).unwrap();
    symlink(&fixture.outside, fixture.host.join("opt/skyhook")).unwrap();
    assert!(fixture.deliver().unwrap());
    assert_eq!(names(&fixture.outside), [""; 0]);
    assert_eq!(fixture.root.read(Path::new("/opt/skyhook/sample/a"), 10).unwrap().unwrap(), b"x");
}

/// Recorded case 49, mended: the host's folders keep their modes.
#[test]
fn root_dir_never_changes_the_mode_of_a_folder_that_the_host_has() {
    let fixture = fixture();
    fixture.put_copied("root_dir/etc/sample.d/10-sample.conf", "installed by root_dir\n");
    put(&fixture.copied("root_dir/tmp/dropped"), "x\n", 0o600);
    symlink("sample.d/10-sample.conf", fixture.copied("root_dir/etc/link")).unwrap();
    fs::create_dir(fixture.host.join("tmp")).unwrap();
    set_mode(&fixture.host.join("tmp"), 0o1777);
    set_mode(&fixture.copied("root_dir/tmp"), 0o700);
    set_mode(&fixture.copied("root_dir"), 0o750);
    set_mode(&fixture.copied("root_dir/etc/sample.d"), 0o711);
    age(&fixture.copied("root_dir/etc/sample.d"));
    set_mode(&fixture.host, 0o755);
    fixture.copy_root_dir().unwrap();
    assert_eq!((mode(&fixture.host), mode(&fixture.host.join("tmp"))), (0o755, 0o1777));
    assert_eq!(mode(&fixture.host.join("tmp/dropped")), 0o600);
    let made = fixture.host.join("etc/sample.d");
    assert_eq!((mode(&made), made.metadata().unwrap().mtime()), (0o711, CHANGED));
    let link = fixture.host.join("etc/link");
    assert!(link.symlink_metadata().unwrap().is_file());
    assert_eq!(fs::read_to_string(link).unwrap(), "installed by root_dir\n");
}

#[test]
fn root_dir_follows_the_hosts_links_inside_and_replaces_files_whole() {
    let fixture = fixture();
    fixture.put_copied("root_dir/lib/x.so", "new");
    fixture.put_copied("root_dir/out/x", "new");
    fixture.put_copied("root_dir/out-file", "new");
    fs::create_dir_all(fixture.host.join("usr/lib")).unwrap();
    symlink("usr/lib", fixture.host.join("lib")).unwrap();
    symlink(&fixture.outside, fixture.host.join("out")).unwrap();
    fs::write(fixture.outside.join("file"), "old").unwrap();
    symlink(fixture.outside.join("file"), fixture.host.join("out-file")).unwrap();
    put(&fixture.host.join("usr/lib/x.so"), "old and longer", 0o600);
    put(&fixture.host.join("usr/lib/.groundcrew-tmp-0123456789abcdef"), "left by a killed agent", 0o600);
    fixture.copy_root_dir().unwrap();
    let standing = fixture.host.join("usr/lib/x.so");
    assert_eq!((fs::read_to_string(&standing).unwrap(), mode(&standing)), ("new".to_owned(), 0o644));
    assert!(fixture.host.join("lib").is_symlink());
    assert_eq!(names(&fixture.host.join("usr/lib")), ["x.so"]);
    assert_eq!(names(&fixture.outside), ["file"]);
    assert_eq!(fs::read_to_string(fixture.outside.join("file")).unwrap(), "old");
    assert_eq!(fixture.root.read(Path::new("/out/x"), 10).unwrap().unwrap(), b"new");
    // The second time nothing is written.
    let inode = standing.metadata().unwrap().ino();
    fixture.copy_root_dir().unwrap();
    assert_eq!(standing.metadata().unwrap().ino(), inode);
    // Of the same size and time, but not the same.
    fs::write(&standing, "xxx").unwrap();
    age(&standing);
    fixture.copy_root_dir().unwrap();
    assert_eq!(fs::read_to_string(&standing).unwrap(), "new");
}

#[test]
fn root_dir_reads_nothing_outside_and_never_replaces_what_is_no_file() {
    let fixture = fixture();
    fs::write(fixture.outside.join("secret"), "secret").unwrap();
    fixture.put_copied("root_dir/a", "x");
    symlink(fixture.outside.join("secret"), fixture.copied("root_dir/b")).unwrap();
    let error = fixture.copy_root_dir().unwrap_err().to_string();
    assert!(error.contains("root_dir/b: found a symbolic link to nothing in its tree"), "{error}");
    assert!(!fixture.host.join("a").exists());
    fs::remove_file(fixture.copied("root_dir/b")).unwrap();
    mknodat(CWD, fixture.host.join("a"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    let error = fixture.copy_root_dir().unwrap_err().to_string();
    assert!(error.ends_with("root/a: found a fifo, expected a regular file"), "{error}");
}

#[test]
fn a_package_without_root_dir_copies_nothing() {
    let fixture = fixture();
    fixture.put_copied("config.json", "{}");
    fixture.copy_root_dir().unwrap();
    assert_eq!(names(&fixture.host), ["opt"]);
}

#[test]
fn missing_config_files_are_named_wherever_the_package_lies() {
    let fixture = fixture();
    put(&fixture.data.join("configmaps/tuning.conf"), "x", 0o644);
    fs::write(fixture.outside.join("secret"), "").unwrap();
    symlink(fixture.outside.join("secret"), fixture.data.join("configmaps/secret")).unwrap();
    let expected = ["tuning.conf", "absent.conf", "secret"];
    let data = Root::open_tree(&fixture.data).unwrap();
    assert_eq!(missing_config_files(&data, Path::new("/"), expected).unwrap(), ["absent.conf", "secret"]);
    fs::remove_file(fixture.data.join("configmaps/secret")).unwrap();
    fixture.deliver().unwrap();
    let missing = missing_config_files(&fixture.root, Path::new(COPY_DIR), expected).unwrap();
    assert_eq!(missing, ["absent.conf", "secret"]);
}

fn copy_resolv(root: &Root, source: &Path) {
    Resolv::read(root, source).unwrap().copy(root).unwrap();
}

/// Recorded case 51: content only, the mode stays.
#[test]
fn resolv_conf_keeps_its_mode_and_is_followed_inside() {
    let fixture = fixture();
    let source = fixture.data.join("resolv.conf");
    put(&source, "nameserver 192.0.2.53\n", 0o600);
    copy_resolv(&fixture.root, &source);
    let resolv = fixture.host.join("etc/resolv.conf");
    assert_eq!(mode(&resolv), 0o644);
    put(&resolv, "nameserver 192.0.2.1\n", 0o755);
    copy_resolv(&fixture.root, &source);
    assert_eq!((fs::read(&resolv).unwrap(), mode(&resolv)), (b"nameserver 192.0.2.53\n".to_vec(), 0o755));
    for target in [fixture.outside.join("resolv.conf"), PathBuf::from("../../../outside/resolv.conf")] {
        fs::write(fixture.outside.join("resolv.conf"), "old").unwrap();
        fs::remove_file(&resolv).unwrap();
        symlink(&target, &resolv).unwrap();
        copy_resolv(&fixture.root, &source);
        assert!(resolv.is_symlink());
        assert_eq!(fs::read(fixture.outside.join("resolv.conf")).unwrap(), b"old");
        let inside = fixture.root.read(Path::new(RESOLV_CONF), 100).unwrap().unwrap();
        assert_eq!(inside, b"nameserver 192.0.2.53\n");
    }
    let error = Resolv::read(&fixture.root, &fixture.data.join("none")).unwrap_err().to_string();
    assert!(error.starts_with("opening "), "{error}");
    fs::remove_file(&resolv).unwrap();
    fs::create_dir(&resolv).unwrap();
    let error = Resolv::read(&fixture.root, &source).unwrap_err().to_string();
    assert!(error.ends_with("/etc/resolv.conf: found a folder, expected a regular file"), "{error}");
}

#[test]
fn a_full_disk_leaves_no_half_package_and_no_half_file() {
    let fixture = fixture();
    put(&fixture.data.join("a"), "small", 0o644);
    put(&fixture.data.join("b"), &"large".repeat(60_000), 0o644);
    with_own_mounts(|| {
        mount(&["-t", "tmpfs", "-o", "size=128k,mode=755", "tmpfs", fixture.host.to_str().unwrap()]);
        let root = Root::open(&fixture.host).unwrap();
        let error =
            deliver(&root, Path::new(COPY_DIR), &fixture.data, Path::new("/none"), &UNBOUNDED).unwrap_err();
        assert!(matches!(error, Error::NoRoom { wanted: 300_005, .. }), "{error}");
        assert!(!root.exists(Path::new(COPY_DIR)).unwrap());
        fs::write(fixture.data.join("b"), "fits").unwrap();
        assert!(deliver(&root, Path::new(COPY_DIR), &fixture.data, Path::new("/none"), &UNBOUNDED).unwrap());
        assert_eq!(names(&fixture.host.join("opt/skyhook")), ["sample"]);
        assert_eq!(names(&fixture.copied("")), ["a", "b"]);
    });
}

/// A folder with so many bytes in a file, to which so many links lead.
fn with_links(fixture: &Fixture, bytes: usize, links: usize) {
    put(&fixture.data.join("large/file"), &"x".repeat(bytes), 0o644);
    for number in 0..links {
        symlink("large", fixture.data.join(format!("link{number}"))).unwrap();
    }
}

#[test]
fn links_count_as_what_they_are_copied_as_before_anything_is_copied() {
    let fixture = fixture();
    with_links(&fixture, 1 << 20, 99);
    with_own_mounts(|| {
        mount(&["-t", "tmpfs", "-o", "size=8m,mode=755", "tmpfs", fixture.host.to_str().unwrap()]);
        let root = Root::open(&fixture.host).unwrap();
        let deliver = |least| {
            let bounds = Bounds { stop: &|| false, free_bytes_least: least };
            deliver(&root, Path::new(COPY_DIR), &fixture.data, Path::new("/none"), &bounds)
        };
        let error = deliver(0).unwrap_err();
        assert!(matches!(error, Error::NoRoom { wanted: 104_857_600, least: 0, .. }), "{error}");
        assert_eq!(names(&fixture.host.join("opt/skyhook")), [""; 0]);
        for number in 2..99 {
            fs::remove_file(fixture.data.join(format!("link{number}"))).unwrap();
        }
        let error = deliver(6 << 20).unwrap_err().to_string();
        assert!(
            error.contains("expected 3145728 ") && error.contains("and 6291456 more that stay free"),
            "{error}"
        );
        assert!(deliver(4 << 20).unwrap());
        assert_eq!(names(&fixture.host.join("opt/skyhook/sample")), ["large", "link0", "link1"]);
    });
}

/// Tries with bounds that end it at the first question, then at the second, until it is no longer ended.
fn ended_at_any_moment<T>(copy: impl Fn(&Bounds<'_>) -> Result<T>, look: impl Fn(usize)) -> usize {
    for moment in 0.. {
        let asked = std::cell::Cell::new(0);
        let stop = || {
            asked.set(asked.get() + 1);
            asked.get() > moment
        };
        let done = copy(&Bounds { stop: &stop, free_bytes_least: 0 });
        look(moment);
        match done {
            Ok(_) => return moment,
            Err(error) => assert!(matches!(error, Error::Stopped { .. }), "{moment}: {error}"),
        }
    }
    unreachable!("a copy asks less often than numbers go")
}

#[test]
fn a_package_whose_copying_ends_on_request_is_not_there_and_leaves_nothing() {
    let fixture = fixture();
    with_links(&fixture, 20_000, 2);
    let place = fixture.host.join("opt/skyhook");
    let moments = ended_at_any_moment(
        |bounds| deliver(&fixture.root, Path::new(COPY_DIR), &fixture.data, Path::new("/none"), bounds),
        |moment| assert!(!place.exists() || names(&place).iter().all(|name| name == "sample"), "{moment}"),
    );
    // Each of the six that are listed and placed, and each read of a file.
    assert!(moments > 18, "{moments}");
    assert_eq!(names(&fixture.copied("")), ["large", "link0", "link1"]);
}

#[test]
fn files_of_the_host_are_as_they_were_or_as_they_are_to_be_when_their_copying_ends_on_request() {
    let fixture = fixture();
    put(&fixture.copied("root_dir/etc/one"), &"1".repeat(20_000), 0o644);
    put(&fixture.copied("root_dir/etc/two"), &"2".repeat(20_000), 0o644);
    put(&fixture.host.join("etc/two"), "the host's", 0o644);
    let moments = ended_at_any_moment(
        |bounds| copy_root_dir(&fixture.root, Path::new(COPY_DIR), bounds),
        |moment| {
            let two = fs::read_to_string(fixture.host.join("etc/two")).unwrap();
            assert!(two == "the host's" || two == "2".repeat(20_000), "{moment}");
            let beside = names(&fixture.host.join("etc"));
            assert!(beside.iter().all(|name| name == "one" || name == "two"), "{moment}: {beside:?}");
        },
    );
    assert!(moments > 10, "{moments}");
    assert_eq!(fs::read_to_string(fixture.host.join("etc/one")).unwrap(), "1".repeat(20_000));
}
