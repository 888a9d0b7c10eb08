//! The thread that writes a capture.

use std::{
    io::{self, Write},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant, UNIX_EPOCH},
};

use flate2::{Compression, write::GzEncoder};
use tokio::{runtime::Handle, sync::mpsc, time::timeout};

use super::{Line, Shared};
use crate::{
    caught::meet,
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
    /// The number of the last file.
    number: Option<u64>,
    text: Vec<u8>,
}

/// The file that is being written.
struct Open {
    name: String,
    gzip: GzEncoder<End>,
    began: Instant,
    bytes: u64,
    flushed: Instant,
    is_flushed: bool,
}

/// The end of a file.
struct End {
    file: Arc<dyn DiskFile>,
    at: u64,
}

impl Writer {
    pub(super) fn new(disk: Arc<dyn Disk>, source: String, config: &CaptureConfig) -> Self {
        let (rotate_bytes, rotate_every) = (config.rotate_bytes.0, config.rotate_every.0);
        Self { disk, source, rotate_bytes, rotate_every, file: None, number: None, text: Vec::new() }
    }

    /// Writes until the queue is closed, on a thread of the runtime's that may wait.
    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Line>, shared: &Shared) {
        let runtime = Handle::current();
        loop {
            let written = match runtime.block_on(async { timeout(FLUSH_EVERY, queue.recv()).await }) {
                Ok(Some(mut line)) => {
                    shared.waiting_bytes.fetch_sub(line.event.size(), Ordering::Relaxed);
                    line.event.redact();
                    shared.at_work(|| self.write(&line))
                }
                Ok(None) => break,
                Err(_) => shared.at_work(|| self.flush()),
            };
            if let Err(error) = written {
                self.fail(&error, shared);
                return;
            }
        }
        if let Err(error) = self.close() {
            self.fail(&error, shared);
        }
    }

    fn write(&mut self, line: &Line) -> io::Result<()> {
        meet("the capture");
        let is_due = |open: &Open| open.bytes >= self.rotate_bytes || open.began.elapsed() >= self.rotate_every;
        if self.file.as_ref().is_some_and(is_due) {
            self.close()?;
        }
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let number = match self.number {
                    Some(number) => number + 1,
                    None => next_number(&self.disk.list()?, &self.source),
                };
                self.number = Some(number);
                self.file.insert(open(&*self.disk, &self.source, number, line.at)?)
            }
        };
        self.text.clear();
        serde_json::to_writer(&mut self.text, line)?;
        self.text.push(b'\n');
        file.gzip.write_all(&self.text)?;
        file.bytes += self.text.len() as u64;
        file.is_flushed = false;
        if file.flushed.elapsed() >= FLUSH_EVERY { self.flush() } else { Ok(()) }
    }

    /// Makes what was written readable after a kill: what is compressed can be read up to the last flush. A flush costs
    /// compression.
    fn flush(&mut self) -> io::Result<()> {
        let Some(file) = self.file.as_mut().filter(|file| !file.is_flushed) else { return Ok(()) };
        file.gzip.flush()?;
        (file.flushed, file.is_flushed) = (Instant::now(), true);
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
        shared.fail(text);
    }
}

/// Returns the number of a source's next file. The order of the names is the order of the numbers: a clock may be set back.
fn next_number(names: &[String], source: &str) -> u64 {
    let number = |name: &String| name.strip_prefix(source)?.strip_prefix('-')?.get(..DIGITS)?.parse::<u64>().ok();
    names.iter().filter_map(number).max().unwrap_or(0) + 1
}

fn open(disk: &dyn Disk, source: &str, number: u64, at: Timestamp) -> io::Result<Open> {
    let since = Duration::from_nanos(u64::try_from(at.0).unwrap_or_default());
    // Colons are not allowed in names on every file system.
    let time = humantime::format_rfc3339_seconds(UNIX_EPOCH + since).to_string().replace(':', "-");
    let name = format!("{source}-{number:0DIGITS$}-{time}.{SUFFIX}");
    let file = disk.create_new(&name)?;
    let gzip = GzEncoder::new(End { file, at: 0 }, Compression::fast());
    Ok(Open { name, gzip, began: Instant::now(), bytes: 0, flushed: Instant::now(), is_flushed: true })
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
const DIGITS: usize = 8;
