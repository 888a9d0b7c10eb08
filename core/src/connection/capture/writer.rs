//! The thread that writes a capture.

use std::{
    io::{self, Write},
    sync::{Arc, PoisonError, atomic::Ordering},
    time::{Duration, Instant, UNIX_EPOCH},
};

use flate2::{Compression, write::GzEncoder};
use tokio::sync::mpsc;

use super::{Line, Shared};
use crate::{
    config::CaptureConfig,
    row::Timestamp,
    spool::disk::{Disk, DiskFile},
};

/// Writes lines to files until there are no more, or the disk fails.
pub(super) struct Writer {
    disk: Arc<dyn Disk>,
    source: String,
    rotate_bytes: u64,
    rotate_every: Duration,
    file: Option<Open>,
    text: Vec<u8>,
}

/// The file that is being written.
struct Open {
    name: String,
    gzip: GzEncoder<End>,
    began: Instant,
    bytes: u64,
    flushed: Instant,
}

/// The end of a file.
struct End {
    file: Arc<dyn DiskFile>,
    at: u64,
}

impl Writer {
    pub(super) fn new(disk: Arc<dyn Disk>, source: String, config: &CaptureConfig) -> Self {
        let (rotate_bytes, rotate_every) = (config.rotate_bytes.0, config.rotate_every.0);
        Self { disk, source, rotate_bytes, rotate_every, file: None, text: Vec::new() }
    }

    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Line>, shared: &Shared) {
        while let Some(mut line) = queue.blocking_recv() {
            shared.waiting_bytes.fetch_sub(line.event.size(), Ordering::Relaxed);
            line.event.redact();
            if let Err(error) = self.write(&line, queue.is_empty()) {
                self.fail(&error, shared);
                return;
            }
        }
        if let Err(error) = self.close() {
            self.fail(&error, shared);
        }
    }

    fn write(&mut self, line: &Line, is_last: bool) -> io::Result<()> {
        let is_due = |open: &Open| open.bytes >= self.rotate_bytes || open.began.elapsed() >= self.rotate_every;
        if self.file.as_ref().is_some_and(is_due) {
            self.close()?;
        }
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(open(&*self.disk, &self.source, line.at)?),
        };
        self.text.clear();
        serde_json::to_writer(&mut self.text, line)?;
        self.text.push(b'\n');
        file.gzip.write_all(&self.text)?;
        file.bytes += self.text.len() as u64;
        // What is compressed can be read after a kill up to the last flush; a flush costs compression.
        if is_last && file.flushed.elapsed() >= FLUSH_EVERY {
            file.gzip.flush()?;
            file.flushed = Instant::now();
        }
        Ok(())
    }

    fn close(&mut self) -> io::Result<()> {
        let Some(file) = self.file.take() else { return Ok(()) };
        file.gzip.finish()?.file.sync_data()
    }

    fn fail(&self, error: &io::Error, shared: &Shared) {
        let name = self.file.as_ref().map_or("a new file", |file| &file.name);
        let place = self.disk.place();
        let text = format!("capture stopped: `{place}`, {name}: {error}; the feed goes on");
        *shared.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
        shared.has_failed.store(true, Ordering::Release);
        shared.failed.notify_one();
    }
}

fn open(disk: &dyn Disk, source: &str, at: Timestamp) -> io::Result<Open> {
    let since = Duration::from_nanos(u64::try_from(at.0).unwrap_or_default());
    // Colons are not allowed in names on every file system; the order of names is the order of times all the same.
    let time = humantime::format_rfc3339_nanos(UNIX_EPOCH + since).to_string().replace(':', "-");
    let name = format!("{source}-{time}.{SUFFIX}");
    let file = disk.create_new(&name)?;
    let gzip = GzEncoder::new(End { file, at: 0 }, Compression::fast());
    Ok(Open { name, gzip, began: Instant::now(), bytes: 0, flushed: Instant::now() })
}

impl Write for End {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_all_at(bytes, self.at)?;
        self.at += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(super) const SUFFIX: &str = "jsonl.gz";
const FLUSH_EVERY: Duration = Duration::from_secs(1);
