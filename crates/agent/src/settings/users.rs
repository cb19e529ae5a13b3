//! Users of this machine as /etc/passwd lists them: a static binary has no other name service.

use std::path::{Path, PathBuf};

use groundcrew_durable::whole::read_bounded;

/// The list of users.
pub const PASSWD: &str = "/etc/passwd";
/// A list with ten thousand users is not so long.
const PASSWD_BYTES_MAX: u64 = 1024 * 1024;

/// A user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// What they are called.
    pub name: String,
    /// Their number.
    pub uid: u32,
    /// The number of their group.
    pub gid: u32,
    /// Their home.
    pub home: PathBuf,
}

/// The first user of the list (passwd(5)) whom this fits. A list that cannot be read names nobody.
pub fn find(passwd: &Path, fits: impl Fn(&User) -> bool) -> Option<User> {
    let bytes = read_bounded(passwd, PASSWD_BYTES_MAX).ok()??;
    let text = String::from_utf8_lossy(&bytes);
    let mut users = text.lines().filter_map(parsed);
    users.find(fits)
}

fn parsed(line: &str) -> Option<User> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, _password, uid, gid, _comment, home, _shell] = fields[..] else { return None };
    Some(User { name: name.to_owned(), uid: uid.parse().ok()?, gid: gid.parse().ok()?, home: home.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_name_and_number_and_a_broken_line_is_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("passwd");
        std::fs::write(
            &path,
            "root:x:0:0:root:/root:/bin/sh\nbroken:x:1\nann:x:many:7::/a:/bin/sh\nann:x:1000:1001::/home/ann:\n",
        )
        .unwrap();
        let ann = find(&path, |user| user.name == "ann").unwrap();
        assert_eq!((ann.uid, ann.gid, ann.home.as_path()), (1000, 1001, Path::new("/home/ann")));
        assert_eq!(find(&path, |user| user.uid == 0).unwrap().name, "root");
        assert_eq!(find(&path, |user| user.name == "broken"), None);
        assert_eq!(find(&folder.path().join("none"), |_| true), None);
    }
}
