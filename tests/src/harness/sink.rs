//! Whom an orchestrator tells of shutdowns: an HTTP server on loopback that keeps what it is told, or behaves as badly as a test
//! wants.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, listen, socket_with};
use serde_json::Value;

use super::eventually;

/// A part of every address, and of what stands in every header Authorization, that must never be shown.
pub const SECRET: &str = "T0SECRET";

/// Connections that wait to be taken: more than any test makes at a time.
const WAITING_MAX: i32 = 128;

/// How it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answers {
    /// It takes what it is told.
    Well,
    /// It refuses every connection.
    Refuses,
    /// It takes connections, and never answers.
    Never,
    /// It answers with this status.
    With(u16),
    /// It answers with the first byte, and no more.
    Slowly,
    /// It takes what it is told, with an answer whose body has no end.
    Endlessly,
}

/// A sink.
#[derive(Debug)]
pub struct Sink {
    address: SocketAddr,
    told: Arc<Mutex<Vec<Value>>>,
    /// Of one that refuses: bound, so that nobody else is given the port, and not listening.
    refuses: Option<OwnedFd>,
}

impl Sink {
    /// One that answers so.
    pub fn that(answers: Answers) -> Sink {
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None);
        let socket = socket.expect("the system has sockets");
        bind(&socket, &SocketAddr::from(([127, 0, 0, 1], 0))).expect("loopback has a free port");
        let address = getsockname(&socket).expect("it is bound");
        let address = SocketAddr::try_from(address).expect("it is of IPv4");
        let mut sink = Sink { address, told: Arc::default(), refuses: Some(socket) };
        if answers != Answers::Refuses {
            sink.listen(answers);
        }
        sink
    }

    /// Lets one that refused take what it is told, from now on.
    pub fn comes_back(&mut self) {
        self.listen(Answers::Well);
    }

    fn listen(&mut self, answers: Answers) {
        let socket = self.refuses.take().expect("it refuses until it listens");
        listen(&socket, WAITING_MAX).expect("a bound socket can listen");
        let listener = TcpListener::from(socket);
        let told = self.told.clone();
        // It ends with the test's process.
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let told = told.clone();
                std::thread::spawn(move || answer(&mut stream, answers, &told));
            }
        });
    }

    /// Its part of the settings.
    pub fn settings(&self, name: &str, kind: &str, more: &str) -> String {
        let address = self.address;
        format!(
            "[[sink]]\nname = \"{name}\"\nkind = \"{kind}\"\nurl = \"http://{address}/services/{SECRET}\"\n\
             authorization = \"Bearer {SECRET}\"\n{more}\n"
        )
    }

    /// What it was told, in the order in which it came.
    pub fn told(&self) -> Vec<Value> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until it was told so much.
    pub fn wait_for(&self, count: usize) -> Vec<Value> {
        eventually("what a sink is told", || Some(self.told()).filter(|told| told.len() >= count))
    }
}

fn answer(stream: &mut TcpStream, answers: Answers, told: &Mutex<Vec<Value>>) {
    let Some(body) = read_body(stream) else { return };
    let head = match answers {
        Answers::Refuses => return,
        Answers::Never => String::new(),
        Answers::Slowly => "H".to_owned(),
        Answers::With(status) => {
            format!(
                "HTTP/1.1 {status} {SECRET}\r\nlocation: http://127.0.0.1:1/{SECRET}\r\ncontent-length: 0\r\n\r\n"
            )
        }
        Answers::Well => "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_owned(),
        Answers::Endlessly => "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_owned(),
    };
    if matches!(answers, Answers::Well | Answers::Endlessly) {
        told.lock().unwrap_or_else(PoisonError::into_inner).push(body);
    }
    let mut goes_on = stream.write_all(head.as_bytes()).is_ok();
    while answers == Answers::Endlessly && goes_on {
        goes_on = stream.write_all(b"4\r\nmore\r\n").is_ok();
    }
    // Until whoever asked has gone.
    let _gone = stream.read(&mut [0; 1]);
}

/// The body of a request; nothing where whoever asked went away before it was whole.
fn read_body(stream: &mut TcpStream) -> Option<Value> {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let count = stream.read(&mut buffer).ok().filter(|count| *count > 0)?;
        bytes.extend_from_slice(&buffer[..count]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length =
            head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        if body.len() >= length.unwrap_or(0) {
            return Some(serde_json::from_str(body).expect("a sink is told JSON"));
        }
    }
}
