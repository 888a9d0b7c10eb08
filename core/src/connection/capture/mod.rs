//! Captures: everything that a venue said, as it came, so that it can be replayed through the same protocol.
//!
//! A capture is a folder of files `SOURCE-NUMBER-TIME.jsonl.gz`, in order of their names: gzip, one JSON object a line, each
//! with
//! `at` (UTC nanoseconds, the `ts_recv` of its rows), `session` (counted from 1; 0 before the first connection) and `call`:
//!
//! | `call` | beside it | |
//! |---|---|---|
//! | `start` | `version`, `source` | the source began; a new protocol |
//! | `anew` | | the protocol panicked and was made anew |
//! | `discover` | | discovery began |
//! | `discovered` | `method`, `url`, `status`, `text` or `hex` | a reply to a request of the discovery |
//! | `open` | `url` | a connection is up |
//! | `subscribe`, `unsubscribe` | `channels` | the protocol was told to ask for them, to end them |
//! | `unended` | `channels` | the venue has not said in time that they have ended |
//! | `frame` | `text` or `hex` | a frame came |
//! | `sent` | `text` | a frame was sent |
//! | `wake` | | the timer that the protocol wished for |
//! | `closed` | `code`, `reason` | the venue closed the connection, or refused it |
//! | `end` | `why` | the session is over |
//! | `reply` | `method`, `url`, `status`, `text` or `hex`, `gaps` | a reply to a request for these gaps |
//! | `gaps` | `gaps`, `calls` | the protocol was asked so many times what to do about what was left of these gaps |
//! | `dropped` | `lines` | so many lines are missing here: the disk was too slow |
//!
//! These are the calls of the protocol with what they were called with, so a protocol, which reads no clock, does the same
//! again. Format 1 lacks `gaps`: there, a protocol that answers many gaps by one request may do other things.
//!
//! Secrets are left out: headers and request bodies, the values of keys in addresses, tokens in replies, and all of what the
//! protocol sends by [`Outbox::send_secret`](crate::protocol::Outbox::send_secret).
//!
//! A capture is never worth a row of the feed: when its disk is too slow lines are left out, and when it fails the capture
//! ends, both in words. A process that is killed loses what came in its last second: its file is cut, as one that was not
//! copied in full, and whoever reads it is told where.

mod line;
mod numbers;
mod reader;
mod redact;
mod writer;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    sync::{Notify, mpsc},
    task::JoinHandle,
    time::timeout,
};

pub use line::{Asked, Body, Event, Line};
pub use numbers::{Form, Long, Numbers, Place, numbers};
pub use reader::{Reader, read};

use crate::{Result, caught::text_of, config::CaptureConfig, protocol::Request, row::Timestamp, spool::disk::Disk};
use writer::Writer;

/// The format that this program writes. It reads all up to this one.
pub const VERSION: u32 = 2;

/// The driver's side of a capture: hands lines to a thread that may wait for the disk.
#[derive(Debug)]
pub(super) struct Capture {
    lines: mpsc::Sender<Line>,
    shared: Arc<Shared>,
    /// Lines that were left out since the last one that was not.
    dropped: u64,
    writer: JoinHandle<()>,
}

/// What both sides of the queue see.
#[derive(Debug, Default)]
struct Shared {
    waiting_bytes: AtomicUsize,
    /// Since when the writer is at its present piece of work.
    working_since: Mutex<Option<Instant>>,
    has_failed: AtomicBool,
    failure: Mutex<Option<String>>,
    failed: Notify,
}

impl Shared {
    /// Does a piece of work; one that hangs can be seen from outside.
    fn at_work<T>(&self, work: impl FnOnce() -> T) -> T {
        self.set_working_since(Some(Instant::now()));
        let done = work();
        self.set_working_since(None);
        done
    }

    fn set_working_since(&self, since: Option<Instant>) {
        *self.working_since.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    fn hangs(&self) -> bool {
        let since = *self.working_since.lock().unwrap_or_else(PoisonError::into_inner);
        since.is_some_and(|since| since.elapsed() > LONGEST_WORK)
    }

    /// Says, once, why it has ended before the feed.
    fn fail(&self, why: String) {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
        self.has_failed.store(true, Ordering::Release);
        self.failed.notify_one();
    }
}

impl Capture {
    /// Begins a capture of a source, on a disk that may have to be waited for. Files are made when there is something to write.
    pub(super) fn start(
        disk: impl FnOnce() -> Result<Arc<dyn Disk>> + Send + 'static,
        source: &str,
        config: &CaptureConfig,
        at: Timestamp,
    ) -> Self {
        let (lines, queue) = mpsc::channel(MOST_WAITING);
        let shared = Arc::new(Shared::default());
        let (theirs, name, config) = (Arc::clone(&shared), source.to_owned(), config.clone());
        let writer = tokio::task::spawn_blocking(move || {
            let ended = catch_unwind(AssertUnwindSafe(|| match theirs.at_work(disk) {
                Ok(disk) => Writer::new(disk, name, &config).run(queue, &theirs),
                Err(error) => theirs.fail(format!("no capture: {}; the feed goes on", error.chain())),
            }));
            if let Err(panic) = ended {
                theirs.fail(format!("capture stopped: it panicked: {}; the feed goes on", text_of(&*panic)));
            }
        });
        let mut capture = Self { lines, shared, dropped: 0, writer };
        capture.write(at, 0, Event::Start { version: VERSION, source: source.to_owned() });
        capture
    }

    /// Hands over a line. Never waits: a line for which there is no room is left out, and the next one says so.
    pub(super) fn write(&mut self, at: Timestamp, session: u64, event: Event) {
        if self.shared.has_failed.load(Ordering::Relaxed) {
            return;
        }
        if self.dropped > 0 && self.hand_over(Line { at, session, event: Event::Dropped { lines: self.dropped } }) {
            self.dropped = 0;
        }
        if self.dropped > 0 || !self.hand_over(Line { at, session, event }) {
            self.dropped += 1;
        }
    }

    fn hand_over(&self, line: Line) -> bool {
        let size = line.event.size();
        if self.shared.waiting_bytes.load(Ordering::Relaxed) + size > MOST_WAITING_BYTES {
            return false;
        }
        self.shared.waiting_bytes.fetch_add(size, Ordering::Relaxed);
        let is_taken = self.lines.try_send(line).is_ok();
        if !is_taken {
            self.shared.waiting_bytes.fetch_sub(size, Ordering::Relaxed);
        }
        is_taken
    }

    /// Completes once when the capture has ended before the feed.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(super) async fn failed(&self) {
        self.shared.failed.notified().await;
    }

    /// Returns why the capture has ended before the feed, or does not go on.
    pub(super) fn trouble(&self) -> Option<String> {
        if self.shared.has_failed.load(Ordering::Acquire) {
            return self.shared.failure.lock().unwrap_or_else(PoisonError::into_inner).clone();
        }
        let hangs =
            "capture held up: its disk does not answer; the feed goes on, and what there is no room for is left out";
        self.shared.hangs().then(|| hangs.to_owned())
    }

    /// Writes what waits, and ends.
    pub(super) async fn finish(self) {
        let Self { lines, writer, dropped, .. } = self;
        let end = async move {
            if dropped > 0 {
                let missing = Line { at: Timestamp::now(), session: 0, event: Event::Dropped { lines: dropped } };
                // A writer that has failed has said so.
                drop(lines.send(missing).await);
            }
            drop(lines);
            writer.await
        };
        if timeout(LAST_WRITE, end).await.is_err() {
            tracing::warn!("the end of a capture could not be written in time");
        }
    }
}

/// Returns what a capture says of a request.
pub(super) fn asked(request: &Request) -> Asked {
    let method = if request.body.is_some() { "POST" } else { "GET" };
    Asked { method: method.to_owned(), url: redact::address(&request.url) }
}

const MOST_WAITING: usize = 8_192;
const MOST_WAITING_BYTES: usize = 64 << 20;
const LAST_WRITE: Duration = Duration::from_secs(5);
/// A piece of work that takes longer is shown: the disk hangs.
const LONGEST_WORK: Duration = Duration::from_secs(10);
