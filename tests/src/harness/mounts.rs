//! Mounts that only a test and what it starts see.

use std::process::Command;

use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Runs a test in a thread with mounts of its own. They go with the thread, and so does whatever that has started.
pub fn in_own_mounts(body: impl FnOnce() + Send + 'static) {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test mounts a file system of its own: run it as root"
    );
    let body = || {
        // SAFETY: neither flag touches descriptors or memory; the thread ends with what it has of its own.
        unsafe { unshare_unsafe(UnshareFlags::FS | UnshareFlags::NEWNS) }
            .expect("root may have its own mounts");
        mount(&["--make-rprivate", "/"]);
        body();
    };
    std::thread::spawn(body).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

/// mount(8) with these arguments.
pub fn mount(arguments: &[&str]) {
    let status = Command::new("mount").args(arguments).status().expect("mount(8) can be started");
    assert!(status.success(), "mount {arguments:?}");
}
