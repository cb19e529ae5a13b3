//! For tests: a thread with a root or with mounts of its own. Needs root; without it the test fails and says so.

use std::path::Path;
use std::process::Command;

use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Fails the test where this process may not have mounts and roots of its own.
pub(crate) fn require_root() {
    let is_root = rustix::process::geteuid().is_root();
    assert!(is_root, "TEST needs root: it has mounts or a root of its own");
}

/// Runs `body` in a thread whose root is `root`.
pub(crate) fn in_chroot<T: Send>(root: &Path, body: impl FnOnce() -> T + Send) -> T {
    require_root();
    in_thread(UnshareFlags::FS, || {
        rustix::process::chroot(root).unwrap();
        rustix::process::chdir("/").unwrap();
        body()
    })
}

/// Runs `body` in a thread whose mounts nobody else sees.
pub(crate) fn with_own_mounts<T: Send>(body: impl FnOnce() -> T + Send) -> T {
    require_root();
    in_thread(UnshareFlags::FS | UnshareFlags::NEWNS, || {
        mount(&["--make-rprivate", "/"]);
        body()
    })
}

/// mount(8) in the mounts of the calling thread.
pub(crate) fn mount(arguments: &[&str]) {
    let status = Command::new("mount").args(arguments).status().unwrap();
    assert!(status.success(), "mount {arguments:?}: {status}");
}

fn in_thread<T: Send>(flags: UnshareFlags, body: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // SAFETY: neither flag touches descriptors or memory; the thread ends with what it has of its own.
            unsafe { unshare_unsafe(flags) }.unwrap();
            body()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
