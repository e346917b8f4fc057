//! Lines on their way to a file or to standard output.
//!
//! Whoever reads our standard output may stop reading, and disks stall. [`Lines`] takes lines without ever
//! waiting: they gather in memory up to a bound, a thread of their own writes them, and what finds no room is
//! counted.

use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Write};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tracing::{info, warn};

use crate::stats::Count;

/// Bytes that may wait. At 500 bytes a line, some 8000 lines: a second of heavy traffic.
const MAX_WAITING: usize = 4 * 1024 * 1024;

/// Pause before an output that says "not now" is tried again; ours is blocking, but whoever started us may have
/// switched it.
const RETRY: Duration = Duration::from_millis(10);

/// A destination for lines. A handle: clones write to the same place, and lines stay whole between them.
#[derive(Clone, Debug)]
pub struct Lines(Arc<Handle>);

/// Ends the thread when the last [`Lines`] is gone.
#[derive(Debug)]
struct Handle(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    dropped: Count,
    max_waiting: usize,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<u8>,
    writing: bool,
    closed: bool,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.changed.notify_all();
    }
}

impl Lines {
    /// Lines on standard output.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn stdout() -> io::Result<Self> {
        Self::to(io::stdout(), MAX_WAITING)
    }

    /// Lines at the end of the file at `path`, which is created where it is missing. A file that is rotated must
    /// be copied and truncated: it stays open.
    ///
    /// # Errors
    /// The file cannot be opened, or the thread not started.
    pub fn append(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.append(true).create(true);
        without_waiting(&mut options);
        let file = options.open(path).map_err(|error| {
            let path = path.display();
            io::Error::new(error.kind(), format!("cannot open {path} for appending: {error}"))
        })?;
        Self::to(file, MAX_WAITING)
    }

    /// Lines to `output`, of which at most `max_waiting` bytes wait for it.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn to(output: impl Write + Send + 'static, max_waiting: usize) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
            dropped: Count::default(),
            max_waiting,
        });
        let writer = Arc::clone(&shared);
        thread::Builder::new().name("lines".to_owned()).spawn(move || writer.run(output))?;
        Ok(Self(Arc::new(Handle(shared))))
    }

    /// Takes whole lines, or drops and counts all of them. Never waits for the output.
    pub fn offer(&self, lines: &[u8]) {
        let shared = &self.0.0;
        let mut state = shared.lock();
        if state.closed || state.waiting.len() + lines.len() > shared.max_waiting {
            return shared.dropped.add(count(lines));
        }
        state.waiting.extend_from_slice(lines);
        drop(state);
        shared.changed.notify_all();
    }

    /// Whether nothing waits and nothing is being written.
    pub fn is_idle(&self) -> bool {
        let state = self.0.0.lock();
        state.waiting.is_empty() && !state.writing
    }

    /// Lines that were dropped: no room, or the output failed.
    pub fn dropped(&self) -> u64 {
        self.0.0.dropped.value()
    }

    /// Takes no more lines, and waits at most `bound` until all taken so far are written. Returns whether they
    /// are; those that are not are counted as dropped.
    pub fn finish(&self, bound: Duration) -> bool {
        let shared = &self.0.0;
        let mut state = shared.lock();
        state.closed = true;
        shared.changed.notify_all();
        let busy = |state: &mut State| state.writing || !state.waiting.is_empty();
        let waited = shared.changed.wait_timeout_while(state, bound, busy);
        let (mut state, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        shared.dropped.add(count(&state.waiting));
        state.waiting.clear();
        !timeout.timed_out()
    }
}

/// What is written must be whole lines; all of it is taken at once, and no error ever comes of it.
impl Write for Lines {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        self.offer(lines);
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that is done under the lock can leave the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread: swaps buffers and writes, until closed and empty.
    fn run(&self, mut output: impl Write) {
        let mut chunk = Vec::new();
        let mut failing = false;
        let mut torn = false;
        loop {
            let idle = |state: &mut State| state.waiting.is_empty() && !state.closed;
            let woken = self.changed.wait_while(self.lock(), idle);
            let mut state = woken.unwrap_or_else(PoisonError::into_inner);
            if state.waiting.is_empty() {
                return;
            }
            chunk.clear();
            std::mem::swap(&mut state.waiting, &mut chunk);
            state.writing = true;
            drop(state);

            // A line that broke off in the middle must not swallow the next one.
            if torn {
                torn = write_all(&mut output, b"\n").is_err();
            }
            match write_all(&mut output, &chunk).and_then(|()| output.flush().map_err(|error| (0, error))) {
                Ok(()) => {
                    if failing {
                        info!("lines are written again");
                    }
                    failing = false;
                }
                Err((done, error)) => {
                    self.dropped.add(count(&chunk[done.min(chunk.len())..]));
                    torn |= done > 0 && chunk.get(done - 1) != Some(&b'\n');
                    // Said once, until it works again: the log may go the same way.
                    if !failing {
                        warn!(%error, "lines cannot be written and are dropped");
                    }
                    failing = true;
                }
            }
            self.lock().writing = false;
            self.changed.notify_all();
        }
    }
}

/// A pipe that nobody reads is an error, and not waited for.
fn without_waiting(options: &mut OpenOptions) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed());
    }
    #[cfg(not(unix))]
    let _ = options;
}

/// Writes everything, or says how much went out before the error.
fn write_all(output: &mut impl Write, bytes: &[u8]) -> Result<(), (usize, io::Error)> {
    let mut done = 0;
    while done < bytes.len() {
        match output.write(&bytes[done..]) {
            Ok(0) => return Err((done, ErrorKind::WriteZero.into())),
            Ok(more) => done += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(RETRY),
            Err(error) => return Err((done, error)),
        }
    }
    Ok(())
}

fn count(lines: &[u8]) -> u64 {
    lines.iter().filter(|byte| **byte == b'\n').count() as u64
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};

    use super::*;

    /// Longer than any test may take; reached only where one would hang.
    const PATIENCE: Duration = Duration::from_secs(20);

    /// An output that tells what it is given and takes what it is told to, or fails.
    struct Scripted {
        seen: Sender<Vec<u8>>,
        answers: Receiver<io::Result<usize>>,
    }

    impl Write for Scripted {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.seen.send(bytes.to_vec());
            self.answers.recv().unwrap_or(Ok(bytes.len())).map(|taken| taken.min(bytes.len()))
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn scripted(max_waiting: usize) -> (Lines, Receiver<Vec<u8>>, Sender<io::Result<usize>>) {
        let (seen, watched) = channel();
        let (tell, answers) = channel();
        (Lines::to(Scripted { seen, answers }, max_waiting).unwrap(), watched, tell)
    }

    #[test]
    fn an_output_that_stalls_costs_lines_and_never_time() {
        let (lines, watched, tell) = scripted(8);
        lines.offer(b"one\n");
        assert_eq!(watched.recv_timeout(PATIENCE).unwrap(), b"one\n", "the writer holds the first line");
        lines.offer(b"two\nsix\n");
        lines.offer(b"lost\nlost\n");
        assert_eq!(lines.dropped(), 2);
        drop(tell);
        assert!(lines.finish(PATIENCE));
        assert_eq!(watched.recv_timeout(PATIENCE).unwrap(), b"two\nsix\n");
        assert_eq!(lines.dropped(), 2);
    }

    #[test]
    fn finish_gives_up_on_an_output_that_hangs() {
        let (lines, watched, _tell) = scripted(100);
        lines.offer(b"stuck\n");
        watched.recv_timeout(PATIENCE).unwrap();
        lines.offer(b"waits\n");
        assert!(!lines.finish(Duration::from_millis(1)));
        lines.offer(b"late\n");
        assert_eq!(lines.dropped(), 2, "the one that waited and the one that came late");
    }

    #[test]
    fn a_line_torn_by_an_error_does_not_swallow_the_next() {
        let (lines, watched, tell) = scripted(100);
        tell.send(Ok(6)).unwrap();
        tell.send(Err(ErrorKind::StorageFull.into())).unwrap();
        tell.send(Err(ErrorKind::Interrupted.into())).unwrap();
        lines.offer(b"one\ntwo\nsix\n");
        assert_eq!(watched.recv_timeout(PATIENCE).unwrap(), b"one\ntwo\nsix\n");
        assert_eq!(watched.recv_timeout(PATIENCE).unwrap(), b"o\nsix\n");
        lines.offer(b"new\n");
        assert_eq!(watched.recv_timeout(PATIENCE).unwrap(), b"\n");
        drop(tell);
        assert_eq!(watched.recv_timeout(PATIENCE).unwrap(), b"\n", "the interrupted write again");
        assert_eq!(watched.recv_timeout(PATIENCE).unwrap(), b"new\n");
        assert!(lines.finish(PATIENCE));
        assert_eq!(lines.dropped(), 2);
    }

    #[test]
    fn the_thread_ends_with_the_last_handle() {
        let (lines, watched, tell) = scripted(100);
        drop(tell);
        let other = lines.clone();
        drop(lines);
        other.offer(b"last\n");
        drop(other);
        assert_eq!(watched.recv_timeout(PATIENCE).unwrap(), b"last\n");
        assert_eq!(watched.recv_timeout(PATIENCE), Err(RecvTimeoutError::Disconnected));
    }

    #[test]
    fn a_file_is_appended_to_and_a_missing_folder_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        std::fs::write(&path, "old\n").unwrap();
        let lines = Lines::append(&path).unwrap();
        lines.offer(b"new\n");
        assert!(lines.finish(PATIENCE));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "old\nnew\n");

        let error = Lines::append(&folder.path().join("no/access.log")).unwrap_err().to_string();
        assert!(error.contains("no/access.log"), "{error}");
    }
}
