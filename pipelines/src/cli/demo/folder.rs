//! The demo's folder: whose it is, what it remembers, and the files that the pipeline reads.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use tidegate_core::config::shell_word;
use tidegate_sources::deribit::simulator::comparison::History;
use tokio::time::{Instant, sleep};

use super::sink::{Kind, Sink};
use crate::cli::Failure;

/// A folder that belongs to this process until it is dropped.
#[derive(Debug)]
pub(super) struct Folder {
    root: PathBuf,
    memory: Memory,
    /// Locked for as long as this process lives.
    _lock: File,
    /// The child's standard error. Locked for as long as this process or a child of it lives.
    log: File,
}

/// What a folder remembers from one run to the next, and by which it is known.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Memory {
    version: u32,
    seed: u64,
    history: History,
    /// The store, without its password, once it has answered; none of the demo's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sink: Option<String>,
}

impl Folder {
    /// Takes a folder: a new or empty one, or one in which an earlier demo ran.
    ///
    /// # Errors
    ///
    /// If it holds something else, another demo has it, its seed is another, or it cannot be written.
    pub(super) async fn take(root: &Path, seed: Option<u64>) -> Result<Self, Failure> {
        look_at(root)?;
        fs::create_dir_all(root).map_err(|error| unusable(root, &error))?;
        let lock = lock(root).await?;
        let log = wait_for_the_last_child(root).await?;
        let mut memory = match Memory::read(root)? {
            Some(memory) => memory,
            None => Memory {
                version: VERSION,
                seed: seed.unwrap_or_else(some_seed),
                history: History::default(),
                sink: None,
            },
        };
        if let Some(seed) = seed.filter(|seed| *seed != memory.seed) {
            let text = format!("the demo in `{}` was begun with --seed {}, not {seed}", root.display(), memory.seed);
            return Err(Failure::usage(format!("{text}: leave it out, or name another folder")));
        }
        memory.history.began_ms.push(now_ms());
        memory.write(root)?;
        Ok(Self { root: root.to_owned(), memory, _lock: lock, log })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn seed(&self) -> u64 {
        self.memory.seed
    }

    pub(super) fn history(&self) -> &History {
        &self.memory.history
    }

    /// Remembers that the pipeline stores what comes in `session`.
    ///
    /// # Errors
    ///
    /// If it cannot be written down.
    pub(super) fn claim_from(&mut self, session: usize) -> Result<(), Failure> {
        self.memory.history.claimed_from = Some(session);
        self.memory.write(&self.root)
    }

    /// Remembers that the pipeline had stored all of `session` when it was ended.
    ///
    /// # Errors
    ///
    /// If it cannot be written down.
    pub(super) fn settle(&mut self, session: usize) -> Result<(), Failure> {
        self.memory.history.settled.insert(session);
        self.memory.write(&self.root)
    }

    /// Looks whether the folder's demo wrote to this store.
    ///
    /// # Errors
    ///
    /// If it wrote to another one, or somebody else's file is there.
    pub(super) fn look_at(&self, sink: &Sink) -> Result<(), Failure> {
        let has_begun = self.root.join(DATA).exists();
        let root = shell_word(&self.root);
        match &self.memory.sink {
            Some(known) if *known == sink.shown => Ok(()),
            Some(known) => Err(Failure::usage(format!(
                "the demo in `{root}` was begun with --sink {known}: give that again, or name another folder"
            ))),
            None if has_begun && *sink != Sink::default() => Err(Failure::usage(format!(
                "the demo in `{root}` was begun without --sink: leave it out, or name another folder"
            ))),
            None => match &sink.kind {
                Kind::Sqlite(Some(path)) if path.exists() => Err(Failure::usage(format!(
                    "`{}` is there already, and is not this demo's: name a new file",
                    path.display()
                ))),
                Kind::Sqlite(_) | Kind::Postgres | Kind::Timescale | Kind::QuestDb | Kind::Kafka => Ok(()),
            },
        }
    }

    /// Remembers the store.
    ///
    /// # Errors
    ///
    /// If it cannot be written down.
    pub(super) fn remember(&mut self, sink: &Sink) -> Result<(), Failure> {
        self.memory.sink = (*sink != Sink::default()).then(|| sink.shown.clone());
        self.memory.write(&self.root)
    }

    /// Returns the simulator's own list.
    pub(super) fn sent(&self) -> PathBuf {
        self.root.join("sent.jsonl")
    }

    /// Returns the database where the store is one of SQLite.
    pub(super) fn database(&self, sink: &Sink) -> PathBuf {
        match &sink.kind {
            Kind::Sqlite(Some(path)) => path.clone(),
            Kind::Sqlite(None) | Kind::Postgres | Kind::Timescale | Kind::QuestDb | Kind::Kafka => {
                self.root.join(DATABASE)
            }
        }
    }

    pub(super) fn log_path(&self) -> PathBuf {
        self.root.join(LOG)
    }

    /// Returns another handle of the child's log.
    ///
    /// # Errors
    ///
    /// If the system gives none.
    pub(super) fn log(&self) -> io::Result<File> {
        self.log.try_clone()
    }

    /// Writes what the pipeline reads, and returns its text.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub(super) fn write_pipeline(&self, endpoint: &str, sink: &Sink) -> Result<String, Failure> {
        let text = pipeline(endpoint, sink, self.seed());
        for (name, text) in [(PIPELINE, text.as_str()), (HOST, HOST_TEXT)] {
            fs::write(self.root.join(name), text).map_err(|error| unusable(&self.root, &error))?;
        }
        Ok(text)
    }
}

impl Memory {
    fn read(root: &Path) -> Result<Option<Self>, Failure> {
        let path = root.join(MEMORY);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unusable(root, &error)),
        };
        match serde_json::from_str(&text) {
            Ok(memory @ Self { version: VERSION, .. }) => Ok(Some(memory)),
            Ok(Self { version, .. }) => {
                let text = format!("`{}` is of version {version}, this program reads {VERSION}", path.display());
                Err(Failure::failed(format!("{text}: name another folder")))
            }
            Err(error) => Err(Failure::failed(format!("`{}` is damaged: {error}", path.display()))),
        }
    }

    /// Replaces the file as a whole, so that a kill leaves the old one or the new one.
    fn write(&self, root: &Path) -> Result<(), Failure> {
        let text = serde_json::to_string(self).expect("numbers only");
        let fresh = root.join(format!("{MEMORY}.new"));
        fs::write(&fresh, text + "\n")
            .and_then(|()| fs::rename(&fresh, root.join(MEMORY)))
            .map_err(|error| unusable(root, &error))
    }
}

/// Refuses a folder that holds anything else than a demo.
fn look_at(root: &Path) -> Result<(), Failure> {
    let entries = match fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(unusable(root, &error)),
    };
    if root.join(MEMORY).is_file() {
        return Ok(());
    }
    for entry in entries {
        let name = entry.map_err(|error| unusable(root, &error))?.file_name();
        // A demo that was killed in its first moment leaves these.
        if ![LOCK, LOG, "demo.json.new"].iter().any(|own| name == **own) {
            let (root, name) = (root.display(), name.to_string_lossy());
            let text = format!("`{root}` is not a demo's folder, it holds `{name}`; nothing was changed");
            return Err(Failure::usage(format!("{text}: name a new folder")));
        }
    }
    Ok(())
}

/// Locks the folder against a second demo.
async fn lock(root: &Path) -> Result<File, Failure> {
    let path = root.join(LOCK);
    let opened = File::options().create(true).truncate(false).read(true).write(true).open(path);
    let mut file = opened.map_err(|error| unusable(root, &error))?;
    // A process that is just being started holds every lock of its parent for a moment.
    if !lock_within(&file, Duration::from_millis(200)).await.map_err(|error| unusable(root, &error))? {
        let mut holder = String::new();
        file.read_to_string(&mut holder).map_err(|error| unusable(root, &error))?;
        let text = format!("`{}` is in use by another demo, process {}", root.display(), holder.trim());
        return Err(Failure::failed(format!("{text}: end that one, or name another folder")));
    }
    let written = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    written.map_err(|error| unusable(root, &error))?;
    Ok(file)
}

/// Waits until the pipeline of a demo that was killed has ended, which it does when its standard input closes. It holds
/// the lock of its log until then, for a lock belongs to an opened file, and so to all who inherit it.
async fn wait_for_the_last_child(root: &Path) -> Result<File, Failure> {
    let path = root.join(LOG);
    let opened = File::options().create(true).append(true).open(&path);
    let file = opened.map_err(|error| unusable(root, &error))?;
    if lock_within(&file, Duration::ZERO).await.map_err(|error| unusable(root, &error))? {
        return Ok(file);
    }
    let root_shown = root.display();
    println!(
        "the pipeline of the last demo in `{root_shown}` still stores what is in its spool; waiting for it to end"
    );
    if !lock_within(&file, LAST_CHILD).await.map_err(|error| unusable(root, &error))? {
        let text = format!("the pipeline of the last demo in `{}` does not end", root.display());
        return Err(Failure::failed(format!("{text}; it still holds `{}`", path.display())));
    }
    Ok(file)
}

/// Returns whether a lock was to be had within some time.
async fn lock_within(file: &File, limit: Duration) -> io::Result<bool> {
    let deadline = Instant::now() + limit;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::WouldBlock) if Instant::now() >= deadline => return Ok(false),
            Err(TryLockError::WouldBlock) => sleep(Duration::from_millis(20)).await,
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

fn unusable(root: &Path, error: &io::Error) -> Failure {
    Failure::failed(format!("cannot use the folder `{}`: {error}", root.display()))
}

/// Returns a seed that is easy to type.
fn some_seed() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| u64::from(since.subsec_nanos()) / 100 % 100_000)
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Returns how many bytes a database takes.
pub(super) fn database_bytes(database: &Path) -> u64 {
    let parts = ["", "-wal"].map(|suffix| format!("{}{suffix}", database.display()));
    parts.iter().filter_map(|part| fs::metadata(part).ok()).map(|part| part.len()).sum()
}

/// The child runs in the folder, so that no name of it has to be put into TOML.
pub(super) fn pipeline(endpoint: &str, sink: &Sink, seed: u64) -> String {
    let (name, store, sink) = (sink.pipeline(seed), &sink.shown, sink.toml(seed, DATABASE));
    format!(
        r#"# Written by `tidegate demo`, anew at each start: trades and tickers of the 50 largest ETH options of a simulated
# Deribit into {store}. Pauses and timeouts are short, so that in a minute one sees what else takes a day.
[pipeline]
name = "{name}"

[source.deribit]
{endpoint}
channels = ["trades", "tickers"]
instruments = [{{ currency = "ETH", kind = "option", top = 50, by = "open_interest" }}]
reconnect = {{ first = "50ms", longest = "1s", stable_after = "1s" }}
start_every = "50ms"
connect_timeout = "1s"
subscribe_timeout = "2s"
ping = {{ every = "150ms", timeout = "250ms" }}
breaker = {{ failures = 5, open_for = "300ms", successes = 1 }}

[source.deribit.rest]
timeout = "2s"
breaker = {{ failures = 5, open_for = "300ms", successes = 1 }}

{sink}"#
    )
}

const HOST_TEXT: &str = "# Written by `tidegate demo`.\nlisten = \"127.0.0.1:0\"\ndata_dir = \"data\"\n\n\
     [log]\nformat = \"human\"\nstats = \"0s\"\nreport = \"0s\"\n";

const VERSION: u32 = 1;
const MEMORY: &str = "demo.json";
const LOCK: &str = "demo.lock";
const LOG: &str = "demo.log";
const DATABASE: &str = "demo.sqlite";

/// The folder of the pipeline's spool, in the folder.
pub(super) const DATA: &str = "data";

/// The pipeline's file, in the folder.
pub(super) const PIPELINE: &str = "demo.toml";

/// The host file, in the folder.
pub(super) const HOST: &str = "tidegate.toml";

/// What a killed demo's pipeline may take to end: it sends on what is in its spool.
const LAST_CHILD: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_folder_that_holds_anything_else_is_refused_and_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.tex"), "all of it").unwrap();
        let text = Folder::take(dir.path(), None).await.unwrap_err().text;
        assert!(text.contains("is not a demo's folder, it holds `thesis.tex`"), "{text}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing was added");
    }

    #[tokio::test]
    async fn a_second_demo_is_told_the_process_of_the_first_and_may_follow_it() {
        let dir = tempfile::tempdir().unwrap();
        let first = Folder::take(dir.path(), Some(7)).await.unwrap();
        let text = Folder::take(dir.path(), None).await.unwrap_err().text;
        assert!(text.contains(&format!("in use by another demo, process {}:", std::process::id())), "{text}");

        drop(first);
        let second = Folder::take(dir.path(), None).await.unwrap();
        assert_eq!((second.seed(), second.history().began_ms.len()), (7, 2), "it goes on with the first one's seed");
    }

    #[tokio::test]
    async fn another_seed_than_the_folders_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        drop(Folder::take(dir.path(), Some(7)).await.unwrap());
        let text = Folder::take(dir.path(), Some(8)).await.unwrap_err().text;
        assert!(text.contains("was begun with --seed 7, not 8"), "{text}");
    }

    #[tokio::test]
    async fn a_demo_waits_until_the_child_of_a_killed_one_has_ended() {
        let dir = tempfile::tempdir().unwrap();
        let first = Folder::take(dir.path(), None).await.unwrap();
        let log = first.log().unwrap();
        // As `cat` inherits it, so does the pipeline.
        let mut child =
            std::process::Command::new("cat").stdin(std::process::Stdio::piped()).stderr(log).spawn().unwrap();
        drop(first);
        let root = dir.path().to_owned();
        let next = tokio::spawn(async move { Folder::take(&root, None).await });
        tokio::time::timeout(Duration::from_millis(100), async {
            while !next.is_finished() {
                tokio::task::yield_now().await
            }
        })
        .await
        .expect_err("the child still holds the log");
        drop(child.stdin.take());
        child.wait().unwrap();
        assert_eq!(next.await.unwrap().unwrap().history().began_ms.len(), 2);
    }
}
