//! A sink of your own, in a crate of your own: `cargo run -p own-sink -- run eth.toml`, with `[sink.pages]`.
//!
//! Each chunk becomes a file, which gets its name when it is whole: `OFFSET-BOOT-SPOOL.jsonl`, after the position that it ends
//! at. So the newest name is the position, and a chunk that is written twice is one file. `tests/contract.rs` runs the
//! contract of sinks on it.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidegate::{
    Error, Result,
    catalog::Component,
    chunk::{Chunk, JsonRows, Part},
    sink::{Guarantee, Sink, SinkContext, Written},
    spool::{Boot, SpoolPosition},
};

/// Writes a file for each chunk: exactly once.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PagesConfig {
    /// The folder; each pipeline has one of its own in it.
    pub folder: PathBuf,
}

impl Component for PagesConfig {
    const TYPE: &'static str = "pages";
    const EXAMPLE: &'static str = "folder = \"pages\"";
    type Built = Box<dyn Sink>;

    fn build(&self) -> Result<Self::Built> {
        Ok(Box::new(Pages { folder: self.folder.clone(), open: None }))
    }
}

struct Pages {
    folder: PathBuf,
    open: Option<Open>,
}

/// What holds from one opening to the next.
struct Open {
    folder: PathBuf,
    tables: Vec<String>,
    spool: u64,
    at: SpoolPosition,
    /// Keeps others out; also a write that was given up and goes on holds it.
    lock: Arc<File>,
}

#[async_trait::async_trait]
impl Sink for Pages {
    async fn open(&mut self, cx: &SinkContext) -> Result<Vec<(Part, SpoolPosition)>> {
        self.open = None;
        let folder = self.folder.join(&cx.owner.pipeline).join(&cx.owner.sink);
        // Where rows are known, a folder that is not there was moved away: it is not made anew.
        if cx.known.is_some() && !folder.exists() {
            return Ok(Vec::new());
        }
        fs::create_dir_all(&folder).map_err(|error| failed("make", &folder, error))?;
        let lock = lock(&folder)?;
        let newest = newest(&folder)?;
        if let Some((_, spool)) = newest
            && spool != cx.owner.spool
        {
            return Err(Error::permanent(format!("`{}` was written from another spool", folder.display())));
        }
        let at = newest.map(|(at, _)| at);
        if at.is_none() && cx.known.is_some() {
            return Ok(Vec::new());
        }
        let tables = cx.tables.iter().map(|table| table.name.clone()).collect();
        let (spool, lock) = (cx.owner.spool, Arc::new(lock));
        self.open = Some(Open { folder, tables, spool, at: at.unwrap_or(SpoolPosition::START), lock });
        Ok(at.map(|at| (Part::spool(), at)).into_iter().collect())
    }

    async fn write(&mut self, chunk: &Chunk) -> Result<Written> {
        let Some(open) = &mut self.open else { return Err(Error::transient("the folder is not open")) };
        // The guard: a chunk is written only where the last one ended. After an error the driver opens again.
        if open.at != chunk.from {
            return Err(Error::transient("the folder is not where it was left"));
        }
        let mut text = Vec::new();
        for part in &chunk.tables {
            let rows = JsonRows::new(&part.rows);
            let table = serde_json::Value::from(open.tables[part.table].as_str()).to_string();
            for row in 0..part.rows.num_rows() {
                text.extend_from_slice(format!("{{\"table\":{table},\"row\":").as_bytes());
                rows.write(row, &mut text);
                text.extend_from_slice(b"}\n");
            }
        }
        let path = open.folder.join(name(chunk.to, open.spool));
        let (written, lock) = (path.clone(), open.lock.clone());
        // A disk may take its time, and other tasks run on this thread.
        let added = tokio::task::spawn_blocking(move || {
            let added = add(&path, &text);
            drop(lock);
            added
        });
        let added = added.await.unwrap_or_else(|cut_off| Err(io::Error::other(cut_off)));
        added.map_err(|error| failed("write", &written, error))?;
        open.at = chunk.to;
        Ok(Written::Committed)
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::Rename
    }
}

fn lock(folder: &Path) -> Result<File> {
    let path = folder.join(".lock");
    let file = File::create(&path).map_err(|error| failed("make", &path, error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(Error::transient(format!("another program writes to `{}`", folder.display())))
        }
        Err(TryLockError::Error(error)) => Err(failed("lock", &path, error)),
    }
}

/// Returns where the newest file ends, and the spool that it came from.
fn newest(folder: &Path) -> Result<Option<(SpoolPosition, u64)>> {
    let mut newest: Option<(SpoolPosition, u64)> = None;
    for entry in fs::read_dir(folder).map_err(|error| failed("list", folder, error))? {
        let entry = entry.map_err(|error| failed("list", folder, error))?;
        let Some(page) = entry.file_name().to_str().and_then(read_name) else { continue };
        if newest.is_none_or(|(at, _)| at.offset < page.0.offset) {
            newest = Some(page);
        }
    }
    Ok(newest)
}

fn name(at: SpoolPosition, spool: u64) -> String {
    format!("{:020}-{:016x}-{spool:016x}.jsonl", at.offset, at.boot.0)
}

fn read_name(name: &str) -> Option<(SpoolPosition, u64)> {
    let mut parts = name.strip_suffix(".jsonl")?.split('-');
    let offset = parts.next()?.parse().ok()?;
    let mut hexadecimal = || u64::from_str_radix(parts.next()?, 16).ok();
    let (boot, spool) = (Boot(hexadecimal()?), hexadecimal()?);
    Some((SpoolPosition { boot, offset }, spool))
}

/// Adds a file as a whole. `Committed` promises that a power cut changes nothing any more, so its name has to be durable,
/// too.
fn add(path: &Path, text: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = File::create(&beside)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    File::open(path.parent().unwrap_or_else(|| Path::new(".")))?.sync_all()
}

fn failed(what: &str, path: &Path, error: io::Error) -> Error {
    Error::transient(format!("cannot {what} `{}`", path.display())).because(error)
}
