//! Packages on their way to the orchestrator's store by groundcrewctl, through a kill, a backup and a restore.

use std::path::Path;
use std::process::{Command, Output};

use groundcrew_protocol::ids::Sha256Hex;
use groundcrew_protocol::operator::{PackageList, PackageView};
use groundcrew_tests::harness::{Server, binary};

/// Bytes of the package's one large file: many parts of what is sent and written at a time.
const LARGE: usize = 5_000_000;

pub(super) fn ctl(server: &Server, words: &[&str]) -> Output {
    let mut command = Command::new(binary("groundcrewctl"));
    command.args(["--url", server.url(), "--fpr", server.fingerprint(), "--token", server.token().as_str()]);
    command.args(words).env_clear().output().expect("the binary can be started")
}

#[track_caller]
pub(super) fn said(output: &Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[track_caller]
pub(super) fn refusal(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Packs a package as an operator does.
fn pack(folder: &Path, archive: &Path, text: &str) {
    std::fs::create_dir_all(folder.join("skyhook_dir")).unwrap();
    let config = r#"{"package_name": "tuning", "package_version": "1.0.0"}"#;
    std::fs::write(folder.join("config.json"), config).unwrap();
    std::fs::write(folder.join("skyhook_dir/one.sh"), text).unwrap();
    pack_with_noise(folder, archive);
}

/// Packs a folder, with a large file in it that no packing makes small.
pub(super) fn pack_with_noise(folder: &Path, archive: &Path) {
    let mut state = 1_u32;
    let noise = (0..LARGE).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    });
    std::fs::write(folder.join("large"), noise.collect::<Vec<_>>()).unwrap();
    let mut tar = Command::new("tar");
    let packed = tar.arg("-C").arg(folder).arg("-czf").arg(archive).arg(".").status();
    assert!(packed.expect("tar comes with every system").success());
}

#[test]
fn a_package_is_put_once_and_is_there_after_a_kill_and_after_a_restore() {
    let mut server = Server::start();
    let (folder, archive, other) = (server.beside("tuning"), server.beside("a.tgz"), server.beside("b.tgz"));
    pack(&folder, &archive, "#!/bin/sh\n");
    pack(&folder, &other, "#!/bin/sh\nexit 1\n");
    let file = archive.to_str().unwrap();
    let content = std::fs::read(&archive).unwrap();
    assert!(content.len() > LARGE / 2, "{} bytes are sent in one part", content.len());
    let sum = Sha256Hex::of(&content);

    let put = ["package", "put", "tuning", "1.0.0", file];
    assert_eq!(said(&ctl(&server, &put)), format!("Package tuning 1.0.0, SHA-256 {sum}\n"));
    assert_eq!(said(&ctl(&server, &put)), format!("Package tuning 1.0.0, SHA-256 {sum}\n"), "the same again");
    let refused = refusal(&ctl(&server, &["package", "put", "tuning", "1.0.0", other.to_str().unwrap()]));
    assert!(refused.contains(sum.as_str()) && refused.contains("never changes"), "{refused}");
    let refused = refusal(&ctl(&server, &["package", "put", "tuning", "2", file]));
    assert!(refused.contains("expected tuning 2 as in the path"), "{refused}");

    let (data, backup) = (server.data(), server.beside("backup"));
    let (data, backup) = (data.to_str().unwrap(), backup.to_str().unwrap());
    assert!(server.command(&["backup", "--data", data, backup]).status.success());
    said(&ctl(&server, &["package", "delete", "tuning", "1.0.0"]));
    assert_eq!(said(&ctl(&server, &["package", "list"])), "No packages.\n");
    server.kill();
    let broken = server.data().join("packages/upload-broken");
    std::fs::write(&broken, "half").unwrap();
    server.start_again(&[]);
    assert!(!broken.exists(), "what an upload left behind when the server was killed is still there");
    assert!(server.stop().success());
    let restored = server.command(&["restore", "--data", data, "--force", backup]);
    assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
    server.start_again(&[]);
    let list: PackageList =
        serde_json::from_str(&said(&ctl(&server, &["--json", "package", "list"]))).unwrap();
    let shown: PackageView =
        serde_json::from_str(&said(&ctl(&server, &["--json", "package", "show", "tuning", "1.0.0"])))
            .unwrap();
    assert_eq!((list.packages.as_slice(), &shown.sha256), (&[shown.clone()][..], &sum));
    let kept = std::fs::read(server.data().join("packages").join(sum.as_str())).unwrap();
    assert!(kept == content, "the file is another one");
}
