//! Log lines: for people on a terminal, JSON otherwise or by option.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tidegate_core::{
    config::{LogConfig, LogFile, LogFormat},
    health::{Registry, StageHealth, StageId, Status},
    row::Timestamp,
};
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    Layer,
    filter::Targets,
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    layer::SubscriberExt,
    registry::LookupSpan,
    util::SubscriberInitExt,
};

use super::{json_lines::JsonLines, outlet::Outlet};
use crate::page::has_colours;

/// Returns whether log lines are written for a person.
pub(crate) fn is_human(config: &LogConfig) -> bool {
    match config.format {
        LogFormat::Human => true,
        LogFormat::Json => false,
        LogFormat::Auto => config.file.is_none() && io::stderr().is_terminal(),
    }
}

/// Starts logging, to standard error or to the file that the host file names.
///
/// # Errors
///
/// A text for the user when the file cannot be written.
pub(crate) fn start(config: &LogConfig) -> Result<(), String> {
    let filter: Targets = config.level.to_string().parse().map_err(|error| format!("the level: {error}"))?;
    let terminal = config.file.is_none() && io::stderr().is_terminal();
    let colours = terminal && has_colours(&io::stderr());
    let target = match &config.file {
        Some(file) => Target::File(Rotating::open(file)?),
        None => Target::Terminal(io::stderr()),
    };
    let outlet = Outlet::start(target).map_err(|error| format!("the log has no thread: {error}"))?;
    let outlet = OUTLET.get_or_init(|| outlet).clone();
    let layer = tracing_subscriber::fmt::layer().with_writer(outlet).with_ansi(colours);
    let layer = if is_human(config) {
        layer.event_format(Human::default()).boxed()
    } else {
        layer.event_format(JsonLines).boxed()
    };
    // A second start in one process (tests, an embedding program with logging of its own) keeps the first.
    drop(tracing_subscriber::registry().with(filter).with(layer).try_init());
    Ok(())
}

/// Waits until the log's last lines are written, if somebody reads them.
pub(crate) fn finish() {
    if let Some(outlet) = OUTLET.get() {
        outlet.finish(LAST_LINES);
    }
}

/// Looks whether the lines come out, for the process's health.
pub(super) struct Watch {
    registry: Registry,
    health: Option<StageHealth>,
    left_out: u64,
}

impl Watch {
    pub(super) fn new(registry: &Registry) -> Self {
        Self { registry: registry.clone(), health: None, left_out: 0 }
    }

    /// Says what is wrong, and that it is well again.
    pub(super) fn look(&mut self) {
        let Some(trouble) = OUTLET.get().map(Outlet::trouble) else { return };
        let said = trouble.text(self.left_out);
        self.left_out = trouble.left_out;
        if let Some(said) = said {
            let health = self.health.get_or_insert_with(|| self.registry.stage(StageId::host("log")));
            health.degraded(said);
        } else if let Some(health) = self.health.as_ref().filter(|health| health.status() != Status::Healthy) {
            health.healthy(format!("the log is written again; {} lines were left out", self.left_out));
        }
    }
}

/// The one log of the process.
static OUTLET: OnceLock<Outlet> = OnceLock::new();
/// How long the end of the process waits for the log's.
const LAST_LINES: Duration = Duration::from_secs(1);

enum Target {
    Terminal(io::Stderr),
    File(Rotating),
}

impl Write for Target {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Terminal(terminal) => terminal.write(bytes),
            Self::File(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Terminal(terminal) => terminal.flush(),
            Self::File(file) => file.file.flush(),
        }
    }
}

/// A log file that is put aside at a size: `tidegate.log`, `tidegate.log.1`, …
struct Rotating {
    path: PathBuf,
    file: File,
    size: u64,
    max: u64,
    keep: u32,
}

impl Rotating {
    fn open(config: &LogFile) -> Result<Self, String> {
        let path = config.path.clone();
        let opened = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| append_to(&path));
        let opened = opened.and_then(|file| file.metadata().map(|about| (file, about.len())));
        let (file, size) = opened.map_err(|error| format!("the log file `{}`: {error}", path.display()))?;
        Ok(Self { path, file, size, max: config.max.0, keep: config.keep.get() })
    }

    fn rotate(&mut self) -> io::Result<()> {
        let numbered = |n: u32| PathBuf::from(format!("{}.{n}", self.path.display()));
        for n in (1..self.keep).rev() {
            // Not all of them exist yet.
            drop(fs::rename(numbered(n), numbered(n + 1)));
        }
        fs::rename(&self.path, numbered(1))?;
        self.file = append_to(&self.path)?;
        self.size = 0;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.size > 0 && self.size + bytes.len() as u64 > self.max {
            // A file that cannot be put aside is written on: a long log is better than none.
            drop(self.rotate());
        }
        let written = self.file.write(bytes)?;
        self.size += written as u64;
        Ok(written)
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// `10:31:02  connected   deribit-eth  wss://… in 182 ms`: time of day in UTC, what happened, to whom, and the rest in
/// columns; then the fields that the message does not say already.
#[derive(Default)]
struct Human {
    /// The longest name so far.
    widest: AtomicUsize,
}

impl<S, N> FormatEvent<S, N> for Human
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut line = Line::default();
        event.record(&mut line);
        let seconds = Timestamp::now().0.div_euclid(1_000_000_000).rem_euclid(86_400);
        write!(writer, "{:02}:{:02}:{:02}  ", seconds / 3600, seconds / 60 % 60, seconds % 60)?;
        let level = *event.metadata().level();
        let [word, subject, text] = line.columns(level);
        let widest = self.widest.fetch_max(subject.chars().count(), Relaxed).max(subject.chars().count());
        let colour = if level == Level::ERROR { 31 } else { 33 };
        if writer.has_ansi_escapes() && level <= Level::WARN {
            write!(writer, "\u{1b}[{colour}m{word:<10}\u{1b}[0m  ")?;
        } else {
            write!(writer, "{word:<10}  ")?;
        }
        if !subject.is_empty() {
            write!(writer, "{subject:<widest$}  ")?;
        }
        writeln!(writer, "{text}{}", line.told_apart())
    }
}

/// The parts of one event.
#[derive(Default)]
struct Line {
    message: String,
    pipeline: String,
    fields: Vec<(&'static str, String)>,
}

impl Line {
    /// Returns what happened, to whom, and the rest. Where the message names the pipeline, it does so in its second word.
    fn columns(&self, level: Level) -> [&str; 3] {
        if let Some((word, rest)) = self.message.split_once(' ') {
            let (subject, text) = rest.trim_start().split_once(' ').unwrap_or((rest, ""));
            let is_named =
                subject.strip_prefix(&*self.pipeline).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
            if !self.pipeline.is_empty() && is_named {
                return [word, subject, text];
            }
            if self.pipeline.is_empty() && WORDS.contains(&word) {
                return [word, "", rest.trim_start()];
            }
        }
        let word = match level {
            Level::ERROR => "error",
            Level::WARN => "warning",
            _ => "note",
        };
        [word, &self.pipeline, &self.message]
    }

    /// Returns the fields that the message does not say already; all of them where it ends with a colon.
    fn told_apart(&self) -> String {
        let leads_in = self.message.ends_with(':');
        let untold = self.fields.iter().filter(|(_, value)| leads_in || !self.message.contains(value.as_str()));
        untold.map(|(name, value)| format!("  {name}={value}")).collect()
    }
}

/// The first words of the process's own lines.
const WORDS: [&str; 3] = ["failed", "limited", "stopping"];

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            "pipeline" => self.pipeline = format!("{value:?}"),
            "stage" | "status" | "sink" => {}
            name => self.fields.push((name, format!("{value:?}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_file_is_put_aside_at_its_size_and_so_many_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logs/tidegate.log");
        let text = format!("path = {:?}\nmax = \"10B\"\nkeep = 2", path.to_str().unwrap());
        let config: LogFile = toml_of(&text);
        let mut log = Rotating::open(&config).unwrap();
        for n in 0..4 {
            assert_eq!(log.write(format!("line {n}\n").as_bytes()).unwrap(), 7);
        }
        let read = |name: &str| fs::read_to_string(folder.path().join("logs").join(name)).ok();
        assert_eq!(read("tidegate.log").unwrap(), "line 3\n");
        assert_eq!(read("tidegate.log.1").unwrap(), "line 2\n");
        assert_eq!(read("tidegate.log.2").unwrap(), "line 1\n");
        assert_eq!(read("tidegate.log.3"), None);
    }

    #[test]
    fn a_line_says_what_happened_to_whom_in_columns() {
        let line = |pipeline: &str, message: &str| Line {
            message: message.to_owned(),
            pipeline: pipeline.to_owned(),
            fields: Vec::new(),
        };
        let columns = |line: &Line| line.columns(Level::WARN).map(str::to_owned);
        assert_eq!(columns(&line("eth", "degraded eth connection lost")), ["degraded", "eth", "connection lost"]);
        assert_eq!(columns(&line("eth", "degraded eth/sink.b gone")), ["degraded", "eth/sink.b", "gone"]);
        assert_eq!(columns(&line("eth", "etherly words")), ["warning", "eth", "etherly words"]);
        assert_eq!(
            columns(&line("e", "degraded eth connection lost")),
            ["warning", "e", "degraded eth connection lost"]
        );
        assert_eq!(columns(&line("", "stopping the lines")), ["stopping", "", "the lines"]);
        assert_eq!(columns(&line("", "no certificates found")), ["warning", "", "no certificates found"]);
    }

    #[test]
    fn a_field_that_the_message_says_already_is_not_said_twice() {
        let fields = vec![("took", "3".to_owned()), ("error", "disk full".to_owned())];
        let line = Line { message: "connected eth in 3 ms".to_owned(), pipeline: "eth".to_owned(), fields };
        assert_eq!(line.told_apart(), "  error=disk full");
        let stats = Line { message: "stats eth3:".to_owned(), ..line };
        assert_eq!(stats.told_apart(), "  took=3  error=disk full");
    }

    fn toml_of(text: &str) -> LogFile {
        let json: serde_json::Value = text
            .lines()
            .map(|line| line.split_once(" = ").unwrap())
            .map(|(key, value)| (key.to_owned(), serde_json::from_str(value).unwrap()))
            .collect::<serde_json::Map<_, _>>()
            .into();
        serde_json::from_value(json).unwrap()
    }
}
