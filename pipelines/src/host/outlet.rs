//! The way of the log's lines out of the process: on a thread of its own, so that a terminal that is stopped, a pipe that
//! nobody reads or a disk that hangs holds up nothing but the log.
//!
//! No crate: that of `tracing` brings nine others with it, and says nothing of a line that cannot be written.

use std::{
    io::{self, Write},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use tracing_subscriber::fmt::MakeWriter;

/// Where lines are put.
#[derive(Debug, Clone)]
pub(super) struct Outlet {
    queue: SyncSender<Work>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    left_out: AtomicU64,
    at_work: Mutex<AtWork>,
}

/// What the thread is at.
#[derive(Debug, Default)]
struct AtWork {
    /// When the line came up that is being written.
    since: Option<Instant>,
    /// Why the last line could not be written.
    failure: Option<String>,
}

#[derive(Debug)]
enum Work {
    Line(Vec<u8>),
    /// All before it is written.
    Written(Sender<()>),
}

/// What is wrong with the log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Trouble {
    /// Lines that had no room, since the process began.
    pub(super) left_out: u64,
    /// For how long the line at the front has been being written.
    pub(super) stuck: Duration,
    /// Why the last line could not be written.
    pub(super) failure: Option<String>,
}

impl Outlet {
    /// Starts the thread that writes.
    pub(super) fn start(target: impl Write + Send + 'static) -> io::Result<Self> {
        let (queue, work) = sync_channel(LINES);
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        thread::Builder::new().name("log".to_owned()).spawn(move || of_thread.write(target, &work))?;
        Ok(Self { queue, shared })
    }

    /// Returns what is wrong.
    pub(super) fn trouble(&self) -> Trouble {
        let at_work = self.shared.at_work();
        Trouble {
            left_out: self.shared.left_out.load(Relaxed),
            stuck: at_work.since.map_or(Duration::ZERO, |since| since.elapsed()),
            failure: at_work.failure.clone(),
        }
    }

    /// Waits until all lines so far are written, but no longer than this.
    pub(super) fn finish(&self, longest: Duration) {
        let (written, all) = channel();
        if self.queue.try_send(Work::Written(written)).is_ok() {
            // Who does not read the log misses its end.
            all.recv_timeout(longest).unwrap_or_default();
        }
    }

    fn put(&self, line: &[u8]) {
        if self.queue.try_send(Work::Line(line.to_vec())).is_err() {
            self.shared.left_out.fetch_add(1, Relaxed);
        }
    }
}

impl Shared {
    fn at_work(&self) -> std::sync::MutexGuard<'_, AtWork> {
        self.at_work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, mut target: impl Write, work: &Receiver<Work>) {
        let mut is_torn = false;
        while let Ok(work) = work.recv() {
            match work {
                Work::Written(all) => drop(all.send(())),
                Work::Line(line) => {
                    self.at_work().since = Some(Instant::now());
                    let mended = if is_torn { target.write_all(b"\n") } else { Ok(()) };
                    let written = mended.and_then(|()| target.write_all(&line)).and_then(|()| target.flush());
                    // What was begun before it failed is half a line.
                    is_torn = written.is_err();
                    let failure = written.err().map(|error| error.to_string());
                    *self.at_work() = AtWork { since: None, failure };
                }
            }
        }
    }
}

impl<'o> MakeWriter<'o> for Outlet {
    type Writer = &'o Self;

    fn make_writer(&'o self) -> &'o Self {
        self
    }
}

/// A line a call, as the layer of `tracing` writes them.
impl Write for &Outlet {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.put(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Trouble {
    /// Returns what to say, if anything is wrong now; `before` is what was left out when it was last looked.
    pub(super) fn text(&self, before: u64) -> Option<String> {
        if let Some(failure) = &self.failure {
            return Some(format!("the log cannot be written: {failure}; it is tried again with each line"));
        }
        let lost = self.left_out - before;
        if lost > 0 {
            return Some(format!("nobody reads the log: {lost} more lines were left out, {} in all", self.left_out));
        }
        (self.stuck > LONG).then(|| {
            format!("nobody reads the log: a line has waited for {} s; the feed goes on", self.stuck.as_secs())
        })
    }
}

/// So many lines wait at most.
const LINES: usize = 8 << 10;
/// A line that takes longer is stuck.
const LONG: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes what it is let write, and fails when told so.
    struct Gate {
        open: Receiver<io::Result<usize>>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let most = self.open.recv().unwrap_or(Ok(usize::MAX))?;
            let length = bytes.len().min(most);
            self.written.lock().unwrap().extend_from_slice(&bytes[..length]);
            Ok(length)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    type Written = Arc<Mutex<Vec<u8>>>;

    fn gated() -> (Outlet, Sender<io::Result<usize>>, Written) {
        let (open, gate) = channel();
        let written = Arc::new(Mutex::new(Vec::new()));
        let outlet = Outlet::start(Gate { open: gate, written: Arc::clone(&written) }).unwrap();
        (outlet, open, written)
    }

    #[test]
    fn a_log_that_nobody_reads_holds_nobody_up_and_what_is_left_out_is_counted() {
        let (outlet, open, written) = gated();
        for _ in 0..LINES + 100 {
            outlet.put(b"line\n");
        }
        // One may be with the thread already.
        let left_out = outlet.trouble().left_out;
        assert!((99..=100).contains(&left_out), "{left_out}");
        assert!(outlet.trouble().text(0).unwrap().contains("lines were left out"));
        outlet.finish(Duration::from_millis(1));
        drop(open);
        loop {
            outlet.finish(Duration::from_secs(60));
            if outlet.trouble().stuck.is_zero()
                && written.lock().unwrap().len() as u64 >= (LINES as u64 + 100 - left_out) * 5
            {
                break;
            }
        }
        assert_eq!(outlet.trouble().text(left_out), None);
    }

    #[test]
    fn a_log_that_cannot_be_written_is_said_and_goes_on_at_the_begin_of_a_line() {
        let (outlet, open, written) = gated();
        outlet.put(b"one\n");
        open.send(Ok(2)).unwrap();
        open.send(Err(io::Error::from(io::ErrorKind::StorageFull))).unwrap();
        outlet.finish(Duration::from_secs(60));
        let said = outlet.trouble().text(0).unwrap();
        assert!(said.starts_with("the log cannot be written: ") && said.contains("space"), "{said}");
        drop(open);
        outlet.put(b"two\n");
        outlet.finish(Duration::from_secs(60));
        assert_eq!(String::from_utf8(written.lock().unwrap().clone()).unwrap(), "on\ntwo\n");
        assert_eq!(outlet.trouble(), Trouble::default());
    }
}
