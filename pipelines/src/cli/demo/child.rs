//! The pipeline in a process of its own, which can be killed, and what it says of itself.

use std::{
    fs,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{ChildStdin, ChildStdout, Command},
    time::{Instant, timeout},
};

use super::{
    folder::{Folder, HOST, PIPELINE},
    report::Report,
    sink::Sink,
};

/// A running pipeline.
#[derive(Debug)]
pub(super) struct Child {
    process: tokio::process::Child,
    /// Held open: the pipeline ends when it closes, also because this process was killed.
    stdin: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
    pub(super) began: Instant,
}

/// What a child does.
#[derive(Debug)]
pub(super) enum Event {
    /// It says how it is.
    Report(Box<Report>),
    /// It has ended.
    Ended(ExitStatus),
}

/// How a child has ended that was told to.
#[derive(Debug)]
pub(super) struct Stopped {
    /// The last thing it said.
    pub(super) last: Option<Box<Report>>,
    pub(super) in_time: bool,
}

impl Child {
    /// Starts the pipeline of a folder.
    ///
    /// # Errors
    ///
    /// If this program cannot be started again.
    pub(super) fn start(folder: &Folder, sink: &Sink) -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["run", PIPELINE, "--host", HOST, "--drain", "5s", "--supervised"])
            .arg(format!("{}ms", REPORTS.as_millis()))
            .current_dir(folder.root())
            // A Ctrl-C on the terminal is for this process, which stops the pipeline when it is time.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(folder.log()?)
            .kill_on_drop(true);
        // Keys of the user's own host, such as its data directory, are not for the demo.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TIDEGATE_")) {
            command.env_remove(name);
        }
        command.envs(sink.variables.iter().map(|(name, value)| (name, value)));
        let mut process = command.spawn()?;
        let stdout = process.stdout.take().expect("it was asked for just above");
        let stdin = process.stdin.take();
        Ok(Self { stdin, lines: BufReader::new(stdout).lines(), process, began: Instant::now() })
    }

    /// Waits for what the child does next.
    ///
    /// # Errors
    ///
    /// If the system does not say.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing that was said is lost.
    pub(super) async fn next(&mut self) -> io::Result<Event> {
        while let Some(line) = self.lines.next_line().await? {
            if let Some(report) = Report::read(&line) {
                return Ok(Event::Report(Box::new(report)));
            }
        }
        self.process.wait().await.map(Event::Ended)
    }

    /// Kills the child with SIGKILL and waits until it is gone.
    ///
    /// # Errors
    ///
    /// If the system does not.
    pub(super) async fn kill(&mut self) -> io::Result<()> {
        self.process.kill().await
    }

    /// Lets the child stop the sources, store what is in its spool and end. One that takes longer than `limit` is killed.
    ///
    /// # Errors
    ///
    /// If the system does not say.
    pub(super) async fn stop(&mut self, limit: Duration) -> io::Result<Stopped> {
        drop(self.stdin.take());
        let mut last = None;
        let ended = timeout(limit, async {
            loop {
                match self.next().await? {
                    Event::Report(report) => last = Some(report),
                    Event::Ended(_) => return io::Result::Ok(()),
                }
            }
        });
        let in_time = match ended.await {
            Ok(ended) => ended.map(|()| true)?,
            Err(_) => self.process.kill().await.map(|()| false)?,
        };
        Ok(Stopped { last, in_time })
    }
}

/// Returns the last lines of a log, for somebody who wants to know why the child has ended.
pub(super) fn tail(log: &Path) -> String {
    let read = || -> io::Result<String> {
        let mut file = fs::File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_else(|error| format!("{} cannot be read: {error}", log.display()));
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

/// How often the child says how it is.
pub(super) const REPORTS: Duration = Duration::from_millis(100);

const TAIL_BYTES: u64 = 16 << 10;
const TAIL_LINES: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_of_a_log_is_its_last_lines() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let lines: Vec<String> = (0..2_000).map(|number| format!("line {number}")).collect();
        fs::write(file.path(), lines.join("\n")).unwrap();
        assert_eq!(tail(file.path()), lines[1_990..].join("\n"));
        assert!(tail(Path::new("/nowhere/demo.log")).contains("cannot be read"));
    }
}
