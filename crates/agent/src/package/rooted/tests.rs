use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{RenameFlags, renameat_with};

use super::alone::{mount, with_own_mounts};
use super::*;

struct Fixture {
    _scratch: tempfile::TempDir,
    host: PathBuf,
    outside: PathBuf,
    root: Root,
}

fn fixture() -> Fixture {
    let scratch = tempfile::tempdir().unwrap();
    let (host, outside) = (scratch.path().join("root"), scratch.path().join("outside"));
    fs::create_dir(&host).unwrap();
    fs::create_dir(&outside).unwrap();
    let root = Root::open(&host).unwrap();
    Fixture { _scratch: scratch, host, outside, root }
}

fn path(text: &str) -> &Path {
    Path::new(text)
}

#[test]
fn paths_are_shown_as_the_mount_followed_by_the_path() {
    let root = |host: &str| Root { host: host.into(), ..fixture().root };
    assert_eq!(root("/mnt").host_path(path("/etc/x")).as_os_str(), "/mnt/etc/x");
    assert_eq!(root("/mnt").host_path(path("etc/x")).as_os_str(), "/mnt/etc/x");
    assert_eq!(root("/").host_path(path("/etc/x")).as_os_str(), "//etc/x");
}

#[test]
fn links_that_lead_to_each_other_are_a_clear_error() {
    let fixture = fixture();
    symlink("b", fixture.host.join("a")).unwrap();
    symlink("a", fixture.host.join("b")).unwrap();
    let error = fixture.root.read(path("/a"), 10).unwrap_err();
    assert!(matches!(error, Error::Links { .. }), "{error}");
    assert!(
        error
            .to_string()
            .ends_with("root/a: found more than 40 symbolic links on the way, expected at most that many")
    );
    assert!(matches!(fixture.root.write_whole(path("/a/x"), b"", 0o644), Err(Error::Links { .. })));
    assert!(matches!(fixture.root.create_folders(path("/b")), Err(Error::Links { .. })));
}

#[test]
fn a_path_too_deep_is_a_clear_error() {
    let fixture = fixture();
    let deep = "/d".repeat(walk::FOLDERS_MAX + 1);
    assert!(matches!(fixture.root.create_folders(path(&deep)), Err(Error::TooDeep { .. })));
    fixture.root.create_folders(path(&"/e".repeat(walk::FOLDERS_MAX))).unwrap();
}

#[test]
fn a_link_to_outside_is_followed_inside() {
    let fixture = fixture();
    fs::write(fixture.outside.join("flag"), "outside").unwrap();
    symlink(&fixture.outside, fixture.host.join("flags")).unwrap();
    symlink("../../../outside", fixture.host.join("up")).unwrap();
    assert_eq!(fixture.root.read(path("/flags/flag"), 10).unwrap(), None);
    fixture.root.write_whole(path("/flags/flag"), b"inside", 0o644).unwrap();
    fixture.root.write_whole(path("/up/flag"), b"up", 0o644).unwrap();
    assert_eq!(fixture.root.read(path("/flags/flag"), 10).unwrap().unwrap(), b"inside");
    assert_eq!(fs::read(fixture.outside.join("flag")).unwrap(), b"outside");
    let inside = fixture.host.join(fixture.outside.strip_prefix("/").unwrap()).join("flag");
    assert_eq!(fs::read(inside).unwrap(), b"inside");
    assert_eq!(fs::read(fixture.host.join("outside/flag")).unwrap(), b"up");
}

#[test]
fn a_whole_write_keeps_mode_and_makes_folders_and_leaves_nothing_else() {
    let fixture = fixture();
    fixture.root.write_whole(path("/a/b/new"), b"1", 0o640).unwrap();
    let new = fixture.host.join("a/b/new");
    assert_eq!(new.metadata().unwrap().mode() & 0o7777, 0o640);
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
    fixture.root.write_whole(path("/a/b/new"), b"22", 0o640).unwrap();
    assert_eq!((fs::read(&new).unwrap(), new.metadata().unwrap().mode() & 0o7777), (b"22".to_vec(), 0o755));
    assert_eq!(fixture.root.names_in(path("/a/b")).unwrap(), ["new"]);
    fs::write(new.with_file_name(".groundcrew-tmp-0123456789abcdef"), "left").unwrap();
    assert_eq!(fixture.root.sweep(path("/a/b")).unwrap().removed, 1);
    assert_eq!(fixture.root.names_in(path("/a/b")).unwrap(), ["new"]);
    let error = fixture.root.write_whole(path("/a/b"), b"", 0o644).unwrap_err();
    assert!(error.to_string().ends_with("root/a/b: found a folder, expected a regular file"), "{error}");
}

#[test]
fn a_fifo_is_refused_and_cannot_make_anything_hang() {
    let fixture = fixture();
    rustix::fs::mknodat(CWD, fixture.host.join("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    for refused in [
        fixture.root.read(path("/fifo"), 10).map(drop),
        fixture.root.write_whole(path("/fifo"), b"", 0o644),
        fixture.root.make_executable(path("/fifo")).map(drop),
    ] {
        let error = refused.unwrap_err();
        assert!(error.to_string().ends_with("found a fifo, expected a regular file"), "{error}");
    }
}

#[test]
fn a_read_is_bounded_and_a_missing_file_is_none() {
    let fixture = fixture();
    fs::write(fixture.host.join("file"), "12345").unwrap();
    assert_eq!(fixture.root.read(path("/file"), 5).unwrap().unwrap(), b"12345");
    assert!(matches!(fixture.root.read(path("/file"), 4), Err(Error::TooLarge { bytes_max: 4, .. })));
    for missing in ["/none", "/none/file", "/file/below", "/none/../file/"] {
        assert_eq!(fixture.root.read(path(missing), 5).unwrap(), None, "{missing}");
        assert!(!fixture.root.exists(path(missing)).unwrap(), "{missing}");
    }
}

#[test]
fn a_new_file_is_never_one_that_exists_nor_what_a_link_leads_to() {
    let fixture = fixture();
    let mut file = fixture.root.create_new(path("/logs/a")).unwrap().unwrap();
    file.write_all(b"x").unwrap();
    assert!(fixture.root.create_new(path("/logs/a")).unwrap().is_none());
    symlink("b-target", fixture.host.join("logs/b")).unwrap();
    assert!(fixture.root.create_new(path("/logs/b")).unwrap().is_none());
    assert!(!fixture.host.join("logs/b-target").exists());
    assert!(matches!(fixture.root.create_new(path("/logs/..")), Err(Error::BadName { .. })));
}

#[test]
fn removing_and_renaming_mean_the_link_itself() {
    let fixture = fixture();
    fs::write(fixture.host.join("file"), "1").unwrap();
    symlink("file", fixture.host.join("link")).unwrap();
    fixture.root.rename(path("/link"), path("/moved")).unwrap();
    assert_eq!(fixture.root.metadata(path("/moved"), Link::Keep).unwrap().unwrap().kind, FileType::Symlink);
    assert_eq!(
        fixture.root.metadata(path("/moved"), Link::Follow).unwrap().unwrap().kind,
        FileType::RegularFile
    );
    assert!(fixture.root.remove(path("/moved")).unwrap());
    assert!(!fixture.root.remove(path("/moved")).unwrap());
    assert!(fixture.host.join("file").exists());
    assert!(fixture.root.rename(path("/none"), path("/x")).is_err());
}

#[test]
fn execute_bits_are_added_to_the_others() {
    let fixture = fixture();
    let file = fixture.host.join("step");
    fs::write(&file, "").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o4640)).unwrap();
    assert!(fixture.root.make_executable(path("/step")).unwrap());
    assert_eq!(file.metadata().unwrap().mode() & 0o7777, 0o4751);
    assert!(!fixture.root.make_executable(path("/none")).unwrap());
}

#[test]
fn one_at_a_time_holds_the_lock_of_a_folder() {
    let fixture = fixture();
    let lock = fixture.root.try_lock(path("/etc/skyhook")).unwrap().unwrap();
    assert!(fixture.root.try_lock(path("/etc/skyhook")).unwrap().is_none());
    drop(lock);
    assert!(fixture.root.try_lock(path("/etc/skyhook")).unwrap().is_some());
}

/// A folder that is exchanged with a link to outside, again and again, while files are written through it.
#[test]
fn a_folder_swapped_for_a_link_never_leads_out() {
    let fixture = fixture();
    let (folder, link) = (fixture.host.join("swapped"), fixture.host.join("link"));
    fs::create_dir(&folder).unwrap();
    symlink(&fixture.outside, &link).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let swapper = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                renameat_with(CWD, &folder, CWD, &link, RenameFlags::EXCHANGE).unwrap();
            }
        });
        for number in 0..500 {
            let name = format!("/swapped/{number}");
            fixture.root.write_whole(path(&name), b"x", 0o644).unwrap();
            assert!(fixture.root.create_new(path(&format!("{name}.log"))).unwrap().is_some());
        }
        done.store(true, Ordering::Relaxed);
        swapper.join().unwrap();
    });
    assert_eq!(fs::read_dir(&fixture.outside).unwrap().count(), 0);
}

#[test]
fn a_mount_below_the_root_belongs_to_it_and_a_mounted_file_is_written_in_place() {
    let fixture = fixture();
    fs::create_dir(fixture.host.join("mnt")).unwrap();
    for file in [fixture.host.join("resolv.conf"), fixture.outside.join("resolv.conf")] {
        fs::write(file, "old and longer than the new one").unwrap();
    }
    with_own_mounts(|| {
        mount(&["-t", "tmpfs", "-o", "size=64k", "tmpfs", fixture.host.join("mnt").to_str().unwrap()]);
        let file = fixture.host.join("resolv.conf");
        mount(&["--bind", fixture.outside.join("resolv.conf").to_str().unwrap(), file.to_str().unwrap()]);
        let root = Root::open(&fixture.host).unwrap();
        root.write_whole(path("/mnt/../mnt/x"), b"in the mount", 0o644).unwrap();
        assert_eq!(fs::read(fixture.host.join("mnt/x")).unwrap(), b"in the mount");
        root.write_whole(path("/resolv.conf"), b"new", 0o644).unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"new");
        assert_eq!(root.names_in(path("/")).unwrap(), ["mnt", "resolv.conf"]);
    });
    assert_eq!(fs::read_dir(fixture.host.join("mnt")).unwrap().count(), 0);
}

#[test]
fn a_read_only_or_full_file_system_is_named_and_what_stood_there_stays() {
    let fixture = fixture();
    with_own_mounts(|| {
        let host = fixture.host.to_str().unwrap();
        mount(&["-t", "tmpfs", "-o", "size=64k", "tmpfs", host]);
        let root = Root::open(&fixture.host).unwrap();
        root.write_whole(path("/flag"), b"old", 0o644).unwrap();
        let full = root.write_whole(path("/flag"), &vec![1; 128 << 10], 0o644).unwrap_err();
        assert!(full.system().is_some_and(|source| is_errno(source, Errno::NOSPC)), "{full}");
        assert!(full.to_string().contains(host), "{full}");
        assert_eq!(root.names_in(path("/")).unwrap(), ["flag"]);
        assert_eq!(root.read(path("/flag"), 10).unwrap().unwrap(), b"old");
        mount(&["-o", "remount,ro", host]);
        for refused in [
            root.write_whole(path("/flag"), b"new", 0o644),
            root.create_folders(path("/folder")),
            root.create_new(path("/log")).map(drop),
            root.remove(path("/flag")).map(drop),
        ] {
            let error = refused.unwrap_err();
            assert!(error.system().is_some_and(|source| is_errno(source, Errno::ROFS)), "{error}");
        }
        assert_eq!(root.read(path("/flag"), 10).unwrap().unwrap(), b"old");
    });
}
