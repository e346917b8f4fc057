//! The built program in a process of its own: started, listened to, signalled, and killed when dropped.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::PATIENCE;
use super::page::Page;

/// How the program is to be started.
pub struct Start {
    command: Command,
}

/// The program, running.
pub struct Program {
    child: Child,
    stdout: Stream,
    stderr: Stream,
    /// The lines of its log that have been read.
    log: Mutex<Vec<String>>,
    /// Where it passes requests on.
    pub address: SocketAddr,
    /// Where its pages are.
    pub admin: SocketAddr,
}

/// A program that has ended, and what it had to say.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    /// What nobody had read of standard output.
    pub stdout: Vec<String>,
    /// Its whole log.
    pub stderr: Vec<String>,
}

impl Ended {
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }
}

impl Start {
    /// The program with these arguments, and nothing of our own environment.
    pub fn new<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tracecar"));
        command.args(arguments);
        Self::of(command)
    }

    /// `run` before `upstream`, on free ports and with a service name.
    pub fn before(upstream: &str) -> Self {
        let here = "127.0.0.1:0";
        Self::new(["run", "--to", upstream, "--listen", here, "--admin", here, "--service", "under-test"])
    }

    /// The same with room for that many descriptors only.
    pub fn cramped(upstream: &str, descriptors: u32) -> Self {
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("ulimit -n {descriptors}; exec \"$0\" \"$@\""));
        command.arg(env!("CARGO_BIN_EXE_tracecar"));
        let here = "127.0.0.1:0";
        command.args(["run", "--to", upstream, "--listen", here, "--admin", here, "--service", "under-test"]);
        Self::of(command)
    }

    /// A command that runs the program, somewhere else or as somebody else.
    pub fn by(mut command: Command) -> Self {
        // Whoever is to start it has to be found.
        let path = std::env::var_os("PATH").unwrap_or_default();
        command.env_clear().env("PATH", path);
        Self::piped(command)
    }

    fn of(mut command: Command) -> Self {
        command.env_clear();
        Self::piped(command)
    }

    fn piped(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self { command }
    }

    pub fn env(mut self, name: &str, value: impl AsRef<str>) -> Self {
        self.command.env(name, value.as_ref());
        self
    }

    /// Runs it to its end, which is expected at once.
    pub fn end(mut self) -> Ended {
        let mut child = self.command.spawn().expect("it can be started");
        let stdout = Stream::of(child.stdout.take().expect("it is piped"));
        let stderr = Stream::of(child.stderr.take().expect("it is piped"));
        let ended = ended(&mut child, &stdout, &stderr, PATIENCE);
        if ended.is_none() {
            let _ = child.kill();
        }
        ended.expect("it ends by itself")
    }

    /// Runs it, and waits until it listens.
    pub fn run(self) -> Program {
        // Made before it is waited for, so that it is killed if it does not listen.
        let mut program = self.begin();
        program.address = program.announced("passing requests on", "listen=");
        program.admin = program.announced("metrics and health", "admin=");
        program
    }

    /// Runs it, and waits for nothing: where it will listen is the caller's to know.
    pub fn begin(mut self) -> Program {
        let mut child = self.command.spawn().expect("it can be started");
        let stdout = Stream::of(child.stdout.take().expect("it is piped"));
        let stderr = Stream::of(child.stderr.take().expect("it is piped"));
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        Program { child, stdout, stderr, log: Mutex::default(), address: nowhere, admin: nowhere }
    }
}

impl Program {
    /// Its process id.
    #[allow(dead_code, reason = "the long suite uses it")]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// One page of the admin port; the status is in its head.
    pub fn page(&self, path: &str) -> super::origin::Message {
        super::page::read(self.admin, path)
    }

    pub fn metrics(&self) -> Page {
        Page::of(self.admin)
    }

    /// The next line on standard output.
    pub fn line(&self) -> String {
        self.stdout.0.recv_timeout(PATIENCE).expect("a line on standard output")
    }

    /// Waits for the next line of its log that holds `part`; those before it are passed over.
    pub fn logs(&self, part: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let next = self.stderr.0.recv_timeout(deadline.saturating_duration_since(Instant::now()));
            let mut log = self.log.lock().expect("nobody panics with it");
            let Ok(line) = next else { panic!("no line with {part:?} after {log:#?}") };
            log.push(line.clone());
            if line.contains(part) {
                return line;
            }
        }
    }

    pub fn terminate(&self) {
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(id, Signal::TERM).expect("it runs");
    }

    /// Waits until it has ended.
    pub fn ended(self) -> Ended {
        self.ended_within(PATIENCE)
    }

    /// Waits until it has ended, for at most `bound`.
    pub fn ended_within(mut self, bound: Duration) -> Ended {
        let Self { child, stdout, stderr, log, .. } = &mut self;
        let ended = ended(child, stdout, stderr, bound);
        let mut ended = ended.unwrap_or_else(|| panic!("it has not ended within {bound:?}"));
        let log = std::mem::take(log.get_mut().expect("nobody panics with it"));
        ended.stderr.splice(..0, log);
        ended
    }

    /// The address that its log announces.
    pub fn announced(&self, message: &str, field: &str) -> SocketAddr {
        let line = self.logs(message);
        let rest = line.split(field).nth(1).unwrap_or_else(|| panic!("{field} in {line:?}"));
        rest.split_whitespace().next().and_then(|address| address.parse().ok()).expect("an address")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Both streams are read to their ends: that the process has ended too is a matter of moments then.
fn ended(child: &mut Child, stdout: &Stream, stderr: &Stream, bound: Duration) -> Option<Ended> {
    let deadline = Instant::now() + bound;
    let stdout = stdout.rest(deadline)?;
    let stderr = stderr.rest(deadline)?;
    Some(Ended { status: child.wait().expect("it is ours"), stdout, stderr })
}

/// Lines of a stream, read by a thread so that the program never waits for us.
struct Stream(Receiver<String>);

impl Stream {
    fn of(stream: impl Read + Send + 'static) -> Self {
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stream).lines() {
                let Ok(line) = line else { return };
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self(lines)
    }

    fn rest(&self, deadline: Instant) -> Option<Vec<String>> {
        let mut lines = Vec::new();
        loop {
            match self.0.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => lines.push(line),
                Err(RecvTimeoutError::Disconnected) => return Some(lines),
                Err(RecvTimeoutError::Timeout) => return None,
            }
        }
    }
}

/// A configuration file that goes away with this.
pub struct File {
    _folder: tempfile::TempDir,
    pub path: PathBuf,
}

impl File {
    pub fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder for temporary files");
        let path = folder.path().join("tracecar.yaml");
        std::fs::write(&path, text).expect("it is writable");
        Self { _folder: folder, path }
    }

    pub fn name(&self) -> &str {
        self.path.to_str().expect("temporary folders have plain names")
    }
}
