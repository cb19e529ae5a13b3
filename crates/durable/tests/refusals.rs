//! What stands in a write's way: the wrong kind of file, another owner, a folder that takes nothing, a disk
//! that is full. The state is as before, and nothing is left over.

mod common;

use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::thread;

use common::{given_task, victim as victim_command};
use groundcrew_durable::Error;
use groundcrew_durable::json::{self, update_json};
use groundcrew_durable::records::{self, EndKind, RecordReader, RecordWriter};
use groundcrew_durable::whole::{
    LEFTOVER_PREFIX, Options, create_folder, read_bounded, remove, sweep_leftovers, sweep_leftovers_at,
    write_whole, write_whole_at,
};
use rustix::fs::{CWD, FlockOperation, Mode, flock, mkfifoat};
use rustix::process::{Resource, Rlimit, geteuid, setrlimit};
use rustix::thread::{Gid, Uid, set_thread_groups, set_thread_res_gid, set_thread_res_uid};

/// The user and group "nobody" of most systems; any that owns nothing here would do.
const NOBODY: u32 = 65534;
/// The largest file in the process that plays the full disk.
const FILE_BYTES_MAX: u64 = 8192;

fn write(path: &Path, bytes: &[u8]) -> groundcrew_durable::Result<()> {
    write_whole(path, bytes, &Options::default())
}

fn names_in(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn a_folder_that_is_held_is_written_to_and_swept_whatever_stands_at_its_path() {
    let home = tempfile::tempdir().unwrap();
    let (folder, moved) = (home.path().join("folder"), home.path().join("moved"));
    fs::create_dir(&folder).unwrap();
    let held = || fs::File::open(&folder).unwrap().into();
    let (first, second) = (held(), held());
    fs::rename(&folder, &moved).unwrap();
    fs::create_dir(&folder).unwrap();
    fs::write(moved.join(format!("{LEFTOVER_PREFIX}0123456789abcdef")), "left").unwrap();
    assert_eq!(sweep_leftovers_at(&first, &folder).unwrap().removed, 1);
    write_whole_at(first, &folder.join("file"), b"new", &Options::default()).unwrap();
    assert_eq!((names_in(&folder), names_in(&moved)), (vec![], vec!["file".to_owned()]));
    let refused = write_whole_at(second, Path::new("/"), b"", &Options::default());
    assert!(matches!(refused, Err(Error::NoFileName { .. })));
}

#[test]
fn the_mode_of_a_file_is_kept_and_that_of_a_new_one_is_exact() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("file");
    for kept in [0o600, 0o664, 0o400, 0o2755] {
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(kept)).unwrap();
        write_whole(&path, b"new", &Options { mode_for_new: 0o666 }).unwrap();
        assert_eq!((fs::read(&path).unwrap(), mode(&path)), (b"new".to_vec(), kept));
        let edit = |fields: &mut json::Fields| fields.insert("a".to_owned(), 1.into()).is_none();
        // Not fs::write, in which the kernel takes the set-id bits off unless root writes.
        write(&path, b"{}").unwrap();
        update_json(&path, &json::Options::default(), edit).unwrap();
        assert_eq!(mode(&path), kept);
        assert!(remove(&path).unwrap());
    }
    // Whatever the umask of this process: no usual one lets 0666 through.
    write_whole(&path, b"new", &Options { mode_for_new: 0o666 }).unwrap();
    assert_eq!(mode(&path), 0o666);
}

#[test]
fn what_is_no_file_is_named_and_left_alone() {
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name);
    fs::write(at("target"), "kept").unwrap();
    symlink("target", at("link")).unwrap();
    symlink("absent", at("dangling")).unwrap();
    fs::create_dir(at("folder")).unwrap();
    mkfifoat(CWD, at("fifo"), Mode::RUSR | Mode::WUSR).unwrap();
    let _listener = UnixListener::bind(at("socket")).unwrap();
    let before = names_in(home.path());

    for (name, kind) in [
        ("link", "a symbolic link"),
        ("dangling", "a symbolic link"),
        ("folder", "a folder"),
        ("fifo", "a fifo"),
        ("socket", "a socket"),
    ] {
        let path = at(name);
        let expected = format!("{} is {kind}, expected a regular file", path.display());
        let open_records = RecordWriter::open(&path, &records::Options::default());
        let answers = [
            write(&path, b"new").unwrap_err(),
            read_bounded(&path, 100).unwrap_err(),
            update_json(&path, &json::Options::default(), |_| true).unwrap_err(),
            RecordReader::open(&path, 100).unwrap_err(),
            open_records.unwrap_err(),
        ];
        for error in answers {
            assert!(matches!(&error, Error::NotAFile { .. }), "{name}: {error:?}");
            assert_eq!(error.to_string(), expected);
        }
    }
    assert_eq!(fs::read(at("target")).unwrap(), b"kept");
    let after: Vec<String> =
        names_in(home.path()).into_iter().filter(|name| !name.ends_with(".lock")).collect();
    assert_eq!(after, before);
    assert!(matches!(remove(&at("folder")), Err(Error::Io { doing: "removing", .. })));
}

#[test]
fn a_reading_has_a_limit_and_absence_is_no_error() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("file");
    assert_eq!(read_bounded(&path, 3).unwrap(), None);
    assert_eq!(read_bounded(&home.path().join("no/such/folder"), 3).unwrap(), None);
    assert!(!remove(&path).unwrap());
    write(&path, b"abc").unwrap();
    assert_eq!(read_bounded(&path, 3).unwrap(), Some(b"abc".to_vec()));
    assert!(matches!(read_bounded(&path, 2), Err(Error::TooLarge { bytes_max: 2, .. })));
    // A file below /proc says that it is empty, and one below a file cannot be.
    assert!(matches!(read_bounded(Path::new("/proc/self/status"), 10), Err(Error::TooLarge { .. })));
    assert!(matches!(
        read_bounded(&path.join("below"), 10),
        Err(Error::Io { doing: "opening the folder", .. })
    ));
    assert!(matches!(write(&path.join("below"), b""), Err(Error::Io { doing: "opening the folder", .. })));
    for nameless in ["/", "..", ""] {
        assert!(matches!(write(Path::new(nameless), b""), Err(Error::NoFileName { .. })), "{nameless}");
    }
}

#[test]
fn folders_are_made_with_those_above_them_and_existing_ones_stay() {
    let home = tempfile::tempdir().unwrap();
    let deep = home.path().join("a/b/c");
    create_folder(&deep, 0o700).unwrap();
    create_folder(&deep, 0o755).unwrap();
    assert_eq!(mode(&deep), 0o700);
    let file = home.path().join("file");
    write(&file, b"").unwrap();
    assert!(matches!(create_folder(&file, 0o700), Err(Error::NotAFolder { found: "a regular file", .. })));
    assert!(matches!(create_folder(&file.join("below"), 0o700), Err(Error::Io { .. })));
}

#[test]
fn a_sweep_removes_what_dead_writers_left_and_nothing_else() {
    let home = tempfile::tempdir().unwrap();
    let leftover = |digits: &str| home.path().join(format!("{LEFTOVER_PREFIX}{digits}"));
    for digits in ["0123456789abcdef", "ffffffffffffffff"] {
        fs::write(leftover(digits), "half").unwrap();
    }
    let strangers = ["0123456789abcde", "0123456789abcdef0", "0123456789ABCDEF", "0123456789abcdeg", "keep"];
    for digits in strangers {
        fs::write(leftover(digits), "mine").unwrap();
    }
    symlink(home.path().join("elsewhere"), leftover("0000000000000001")).unwrap();
    fs::create_dir(leftover("0000000000000002")).unwrap();
    mkfifoat(CWD, leftover("0000000000000003"), Mode::RUSR).unwrap();
    let living = fs::File::create(leftover("0000000000000004")).unwrap();
    flock(&living, FlockOperation::LockExclusive).unwrap();

    let swept = sweep_leftovers(home.path()).unwrap();
    assert_eq!((swept.removed, swept.in_use), (2, 1));
    assert_eq!(names_in(home.path()).len(), strangers.len() + 4);
    // Unlocked, not only closed: a child that another test starts may have a copy at this moment.
    flock(&living, FlockOperation::Unlock).unwrap();
    assert_eq!(sweep_leftovers(home.path()).unwrap().removed, 1);
    assert!(matches!(sweep_leftovers(&home.path().join("absent")), Err(Error::Io { .. })));
}

/// Runs `task` without any privilege: in a thread of another user where the tests run as root, since Linux
/// keeps credentials for each thread, and otherwise as we are.
fn unprivileged<T: Send>(task: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let run = || {
            if geteuid().is_root() {
                set_thread_groups(&[]).unwrap();
                let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
                set_thread_res_gid(gid, gid, gid).unwrap();
                set_thread_res_uid(uid, uid, uid).unwrap();
            }
            task()
        };
        scope.spawn(run).join().unwrap()
    })
}

#[test]
fn a_folder_that_takes_nothing_leaves_the_old_file() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("file");
    write_whole(&path, b"old", &Options { mode_for_new: 0o666 }).unwrap();
    fs::set_permissions(home.path(), Permissions::from_mode(0o555)).unwrap();
    let error = unprivileged(|| write(&path, b"new")).unwrap_err();
    let removal = unprivileged(|| remove(&path)).unwrap_err();
    fs::set_permissions(home.path(), Permissions::from_mode(0o755)).unwrap();

    assert!(error.to_string().starts_with("creating the temporary file "), "{error}");
    for error in [error, removal] {
        let Error::Io { source, .. } = error else { panic!("{error:?}") };
        assert_eq!(source.kind(), ErrorKind::PermissionDenied);
    }
    assert_eq!(fs::read(&path).unwrap(), b"old");
    assert_eq!(names_in(home.path()), ["file"]);
}

#[test]
fn the_owner_is_kept_or_the_write_is_refused() {
    // A test that was not run is no test that passed.
    assert!(
        geteuid().is_root(),
        "run this test as root: only root can make a file that belongs to somebody else"
    );
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("file");
    fs::set_permissions(home.path(), Permissions::from_mode(0o777)).unwrap();
    fs::write(&path, "old").unwrap();
    chown(&path, Some(1234), Some(5678)).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o6755)).unwrap();

    let error = unprivileged(|| write(&path, b"new")).unwrap_err();
    assert!(matches!(&error, Error::OwnerNotKept { uid: 1234, gid: 5678, .. }), "{error:?}");
    assert_eq!(fs::read(&path).unwrap(), b"old");
    assert_eq!(names_in(home.path()), ["file"]);

    write(&path, b"new").unwrap();
    let stat = fs::metadata(&path).unwrap();
    assert_eq!((stat.uid(), stat.gid(), mode(&path)), (1234, 5678, 0o6755));
}

#[test]
#[ignore = "run by the test below, in a process whose disk is full"]
fn victim() {
    let Some((_, folder)) = given_task() else { return };
    let limit = Some(FILE_BYTES_MAX);
    setrlimit(Resource::Fsize, Rlimit { current: limit, maximum: limit }).unwrap();
    let path = folder.join("file");
    let large = vec![b'x'; FILE_BYTES_MAX as usize + 1];
    let error = write(&path, &large).unwrap_err();
    assert!(error.to_string().starts_with("writing "), "{error}");
    assert_eq!(fs::read(&path).unwrap(), b"old");

    // The first record fits, the second does in part and is taken back, the third fits again.
    let (mut writer, _) = RecordWriter::open(&folder.join("records"), &records::Options::default()).unwrap();
    let after_first = writer.append(&large[..5000]).unwrap();
    let error = writer.append(&large[..5000]).unwrap_err();
    assert!(error.to_string().starts_with("appending a record to "), "{error}");
    assert_eq!(writer.bytes(), after_first);
    writer.append(b"small").unwrap();
    writer.sync().unwrap();
}

#[test]
fn a_full_disk_leaves_the_old_file_and_whole_records() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("file");
    write(&path, b"old").unwrap();
    // A limit on the size of files stands for the disk: writes end short and then fail, as with ENOSPC.
    let before = ["env", "--ignore-signal=XFSZ"];
    let output = victim_command(&before, "full", home.path()).output().unwrap();
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("1 passed"), "{said}");
    assert_eq!(names_in(home.path()), ["file", "records"]);

    let records: PathBuf = home.path().join("records");
    let mut reader = RecordReader::open(&records, 1 << 20).unwrap().unwrap();
    assert_eq!(reader.next_record().unwrap().map(<[u8]>::len), Some(5000));
    assert_eq!(reader.next_record().unwrap(), Some(&b"small"[..]));
    assert_eq!(reader.next_record().unwrap(), None);
    assert_eq!(reader.end().map(|end| end.kind), Some(EndKind::Clean));
}
