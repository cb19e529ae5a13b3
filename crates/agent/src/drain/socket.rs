//! The socket in the agent's home: made by the agent, opened by `groundcrew drain`.
//!
//! A unix address holds 107 bytes and a home may lie deeper: both sides then name it through a descriptor on the home.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Mode, fchmod};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};

use super::http::parse_answer;

/// Its name in the home.
pub const FILE_NAME: &str = "agent.sock";
/// Longest path that fits a unix address on every system, with room for its end.
const ADDRESS_BYTES_MAX: usize = 100;
/// Those who may wait to be accepted.
const BACKLOG: i32 = 16;
/// Longest answer that is read: a status takes a hundredth of it.
const ANSWER_BYTES_MAX: u64 = 256 * 1024;

/// A path for a unix address, and what it needs to be open.
fn address(home: &Path) -> io::Result<(PathBuf, Option<File>)> {
    let path = home.join(FILE_NAME);
    if path.as_os_str().len() <= ADDRESS_BYTES_MAX {
        return Ok((path, None));
    }
    let folder = File::open(home)?;
    Ok((PathBuf::from(format!("/proc/self/fd/{}/{FILE_NAME}", folder.as_raw_fd())), Some(folder)))
}

/// Makes the socket, with mode 0600 from its first moment. What an earlier agent left is replaced: the lock of the home says
/// that there is no other.
///
/// # Errors
/// Those of the system.
pub fn listen_in(home: &Path) -> io::Result<UnixListener> {
    let (path, _open) = address(home)?;
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // Linux gives the file the mode of the socket, so that it never has a wider one.
    fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    bind(&socket, &SocketAddrUnix::new(&path)?)?;
    listen(&socket, BACKLOG)?;
    Ok(UnixListener::from(socket))
}

/// Asks the agent whose home this is. Status and body of its answer.
///
/// # Errors
/// Where no agent answers within `limit`.
pub fn ask(home: &Path, method: &str, path: &str, body: &str, limit: Duration) -> io::Result<(u16, Vec<u8>)> {
    let (address, _open) = address(home)?;
    let mut stream = UnixStream::connect(address)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )?;
    let mut bytes = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes)?;
    let (status, body) = parse_answer(&bytes)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the agent's answer is no HTTP"))?;
    Ok((status, body.to_vec()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn the_socket_is_its_owners_alone_also_in_a_home_with_a_long_name() {
        let folder = tempfile::tempdir().unwrap();
        for home in [folder.path().to_owned(), folder.path().join("x".repeat(120))] {
            std::fs::create_dir_all(&home).unwrap();
            std::fs::write(home.join(FILE_NAME), "what an earlier agent left").unwrap();
            let listener = listen_in(&home).unwrap();
            let mode = std::fs::symlink_metadata(home.join(FILE_NAME)).unwrap().mode();
            assert_eq!(mode & 0o7777, 0o600);
            listener.set_nonblocking(false).unwrap();
            let asks = std::thread::spawn(move || ask(&home, "GET", "/", "", Duration::from_secs(60)));
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = [0; 5];
            stream.read_exact(&mut asked).unwrap();
            assert_eq!(&asked, b"GET /");
            stream.write_all(&super::super::http::answer(200, "{}")).unwrap();
            // Closed with its request unread, the kernel would take the answer back.
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            assert_eq!(asks.join().unwrap().unwrap(), (200, b"{}".to_vec()));
        }
        assert!(ask(&folder.path().join("nowhere"), "GET", "/", "", Duration::from_secs(1)).is_err());
    }
}
