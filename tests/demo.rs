//! `tidegate demo` and `tidegate simulate` as a user runs them: the real program, real files, real signals.
#![allow(clippy::unwrap_used, reason = "helpers are in no test function")]

mod support;

use std::{
    fs::File,
    path::Path,
    process::{Output, Stdio},
    time::Duration,
};

use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use support::{PATIENCE, Program, SmallDisk};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::{Instant, sleep, timeout},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_short_run_ends_by_itself_with_an_exact_comparison_whose_numbers_agree_with_the_database() {
    let dir = tempfile::tempdir().unwrap();
    let output = finished(dir.path(), &["demo", "it's here", "--for", "8s", "--rate", "500", "--seed", "3"]).await;
    let text = said(&output, 0);
    assert!(text.starts_with("tidegate 0.1.0 demo: a simulated Deribit"), "{text}");
    // How long that takes is for the benches: `cargo bench --bench engine -- start`.
    println!("first row stored after {} s", number(&text, "first row stored ", " s after the start"));
    assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "control codes in a file: {text}");
    for stage in ["source deribit healthy", "spool healthy", "sink sqlite healthy"] {
        assert!(text.contains(stage), "{stage}: {text}");
    }
    let table = Table::read(&text);
    assert!(table.made > 100 && table.sent > 1_000, "{table:?}");
    assert_eq!((table.stored, table.wrong()), (table.made, 0), "{text}");

    let folder = dir.path().join("it's here");
    let [trades, tickers] = counts(&folder).await;
    let last = text.lines().rfind(|line| line.contains("; sink sqlite ")).unwrap();
    assert_eq!(number(last, "/s, ", " rows") as u64, trades + tickers, "the last picture and SQL: {text}");
    assert_eq!((table.stored + table.earlier, table.stored_tickers), (trades, tickers), "the table and SQL: {text}");

    let query = line_after(&text, "try ");
    if query.contains("needs the package") {
        println!("left out: `{query}`, since sqlite3 is not on this machine");
        return;
    }
    let rows = Command::new("sh").args(["-c", query]).current_dir(dir.path()).output().await.unwrap();
    let rows = said(&rows, 0);
    assert_eq!(rows.lines().count(), 5, "as pasted: {query}\n{rows}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_that_is_killed_again_and_again_loses_nothing_and_doubles_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let output = finished(dir.path(), &["demo", "--kill", "5", "--rate", "1000", "--seed", "7"]).await;
    let text = said(&output, 0);
    assert!(text.contains("killed 5 of 5: kill -9 after "), "{text}");
    assert!(text.contains("compared with the simulator's own list, seed 7, in "), "{text}");
    assert!(text.contains("; killed 5 times\n"), "{text}");
    let table = Table::read(&text);
    assert!(table.made > 0 && table.sent > 0, "{text}");
    assert_eq!((table.stored, table.wrong()), (table.made, 0), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_taken_away_doubled_or_changed_behind_its_back_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["demo", "d", "--for", "3s", "--rate", "500", "--seed", "3"];
    said(&finished(dir.path(), &args).await, 0);
    let folder = dir.path().join("d");
    let mut database = open(&folder).await;
    // The newest are owed; the oldest may be from before the first subscription.
    let newest = |back: u32| format!("(SELECT max(rowid) - {back} FROM trades)");
    let oldest = "(SELECT min(rowid) FROM tickers)";
    for change in [
        format!("INSERT INTO trades SELECT * FROM trades WHERE rowid = {}", newest(0)),
        format!("DELETE FROM trades WHERE rowid = {}", newest(5)),
        format!("UPDATE trades SET price = price * 2 WHERE rowid = {}", newest(7)),
        format!("INSERT INTO tickers SELECT * FROM tickers WHERE rowid = {oldest} + 200"),
        format!("DELETE FROM tickers WHERE rowid = {oldest}"),
    ] {
        let changed = sqlx::query(sqlx::AssertSqlSafe(change.clone())).execute(&mut database).await.unwrap();
        assert_eq!(changed.rows_affected(), 1, "{change}");
    }
    database.close().await.unwrap();

    let text = said(&finished(dir.path(), &["demo", "d", "--for", "2s", "--rate", "500"]).await, 1);
    let table = Table::read(&text);
    // A changed trade is one that nobody made, and the true one is not there.
    assert_eq!((table.missing, table.twice, table.holes, table.twice_tickers), (2, 1, 1, 1), "{text}");
    assert!(text.contains("invented: 1 row that the venue did not make"), "{text}");
    assert_eq!(table.stored, table.made - 2, "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_that_take_longer_than_the_time_asked_for_are_done_all_the_same_and_that_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let output = finished(dir.path(), &["demo", "--kill", "1", "--for", "1ms", "--rate", "200"]).await;
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("the time of --for is over, and it ends after 1 kill more"), "{text}");
    assert!(text.contains("killed 1 of 1: kill -9 after "), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_kill_9_no_child_is_left_and_the_next_run_covers_both() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = Demo::start(dir.path(), &["demo", "d", "--rate", "500", "--seed", "3"]);
    first.until("first row stored").await;
    let folder = dir.path().join("d");
    let before = until_stored(&folder, 500).await;

    let second = finished(dir.path(), &["demo", "d"]).await;
    let refusal = String::from_utf8(second.stderr).unwrap();
    assert_eq!(second.status.code(), Some(1), "{refusal}");
    let pid = first.child.id().unwrap();
    assert!(refusal.contains(&format!("in use by another demo, process {pid}:")), "{refusal}");

    first.child.kill().await.unwrap();
    until_nobody_has(&folder.join("demo.log")).await;
    let log = std::fs::read_to_string(folder.join("demo.log")).unwrap();
    assert!(
        log.contains("nothing left in the spool") && !log.contains("panicked"),
        "the child stopped in order: {log}"
    );
    let text = said(&finished(dir.path(), &["demo", "d", "--for", "4s", "--rate", "500"]).await, 0);
    assert!(text.contains("resumed: ") && text.contains("simulator's own list, seed 3"), "{text}");
    let table = Table::read(&text);
    assert_eq!((table.stored, table.wrong()), (table.made, 0), "{text}");
    assert!(table.stored + table.stored_tickers > before, "both runs: {before} rows were there before; {text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_ends_it_with_the_comparison_and_within_its_time() {
    let dir = tempfile::tempdir().unwrap();
    // Before the faults begin: an end in the middle of one may take all of the time, and leave a gap to the next run.
    let mut demo = Demo::start(dir.path(), &["demo", "--rate", "300"]);
    demo.until("first row stored").await;
    until_stored(&dir.path().join("tidegate-demo"), 300).await;
    let interrupted = Instant::now();
    signal(&demo.child, "INT");
    let (code, text) = demo.ended().await;
    assert_eq!(code, 0, "{text}");
    assert!(interrupted.elapsed() < Duration::from_secs(10), "{text}");
    assert!(number(&text, " written, ", " s\n") <= 2.0, "{text}");
    assert_eq!(Table::read(&text).wrong(), 0, "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_with_anything_else_in_it_and_a_bad_rate_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("thesis.tex"), "all of it").unwrap();
    let output = finished(dir.path(), &["demo", "."]).await;
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("`.` is not a demo's folder, it holds `thesis.tex`; nothing was changed"), "{text}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);

    for rate in ["0", "-5", "NaN", "inf", "1e9"] {
        let rate = format!("--rate={rate}");
        for args in [&["demo", "new", &rate][..], &["simulate", "deribit", &rate]] {
            let output = finished(dir.path(), args).await;
            let text = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(2), "{args:?}: {text}");
            assert!(text.contains("is not a number of events a second above 0 and up to 200,000"), "{text}");
        }
    }
    assert!(!dir.path().join("new").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_for_a_killed_demos_pipeline_is_told_so_and_may_leave() {
    let dir = tempfile::tempdir().unwrap();
    // As the pipeline of a killed demo holds it.
    let log = File::create(dir.path().join("demo.log")).unwrap();
    log.lock().unwrap();
    let mut demo = Demo::start(dir.path(), &["demo", "."]);
    demo.until("the pipeline of the last demo in `.` still stores what is in its spool").await;
    signal(&demo.child, "INT");
    let errors = demo.child.stderr.take();
    let (code, text) = demo.ended().await;
    assert_eq!(code, 1, "{text}");
    let mut said = String::new();
    errors.unwrap().read_to_string(&mut said).await.unwrap();
    assert!(said.contains("ended before it began"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_simulator_whose_disk_is_full_ends_at_once_and_says_so() {
    let Some(disk) = SmallDisk::mount("64k") else { return };
    let dir = tempfile::tempdir().unwrap();
    let file = disk.path().join("sent.jsonl");
    let output =
        finished(dir.path(), &["simulate", "deribit", "--rate", "5000", "--sent", file.to_str().unwrap()]).await;
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("cannot be written down: No space left on device"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demo_whose_reader_goes_away_still_ends_with_its_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let mut demo = Demo::start(dir.path(), &["demo", "--for", "2s", "--rate", "300", "--seed", "3"]);
    demo.until("tidegate ").await;
    let Demo { mut child, lines, .. } = demo;
    // As `demo | head -1` does.
    drop(lines);
    let status = timeout(PATIENCE, child.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_simulator_whose_reader_has_read_enough_ends_and_nothing_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let mut venue = Demo::start(dir.path(), &["simulate", "deribit", "--for", "1s"]);
    venue.until("endpoint = {").await;
    let Demo { mut child, lines, .. } = venue;
    drop(lines);
    let status = timeout(PATIENCE, child.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn tickers_that_are_taken_away_are_holes_all_of_them_too() {
    let dir = tempfile::tempdir().unwrap();
    // Before the faults begin: nothing was in flight.
    said(&finished(dir.path(), &["demo", "d", "--for", "2s", "--rate", "300", "--seed", "3"]).await, 0);
    let folder = dir.path().join("d");
    let mut database = open(&folder).await;
    let gone = sqlx::query("DELETE FROM tickers").execute(&mut database).await.unwrap().rows_affected();
    assert!(gone >= 50, "{gone}");
    database.close().await.unwrap();
    let text = said(&finished(dir.path(), &["demo", "d", "--for", "1s", "--rate", "300"]).await, 1);
    let table = Table::read(&text);
    assert_eq!((table.holes, table.missing), (gone, 0), "{text}");
    assert!(text.contains("not exact:\n         holes: "), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_that_cannot_run_is_shown_with_its_log_and_fails_the_demo() {
    let dir = tempfile::tempdir().unwrap();
    said(&finished(dir.path(), &["demo", "d", "--for", "1s", "--rate", "200", "--seed", "3"]).await, 0);
    let data = dir.path().join("d/data");
    std::fs::remove_dir_all(&data).unwrap();
    std::fs::write(&data, "a file where the spool's folder was").unwrap();

    let text = said(&finished(dir.path(), &["demo", "d", "--for", "2s", "--rate", "200"]).await, 1);
    assert!(text.contains("failed") || text.contains("has ended by itself"), "{text}");
    assert!(text.contains("data"), "it says what is wrong: {text}");
    assert!(text.contains("\nnot compared: ") && !text.contains("in flight"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_that_refuses_to_start_is_not_started_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut demo = command(dir.path(), &["demo", "d", "--for", "2s"]);
    let text = said(&timeout(PATIENCE, demo.env("LOG_LEVEL", "verbose").output()).await.unwrap().unwrap(), 1);
    assert_eq!(text.matches("has ended by itself (exit status: 2) and is not started again").count(), 1, "{text}");
    assert_eq!(text.matches("the value of LOG_LEVEL does not fit").count(), 1, "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demo_whose_spool_is_gone_says_so_and_calls_nothing_in_flight_or_resumed() {
    let dir = tempfile::tempdir().unwrap();
    said(&finished(dir.path(), &["demo", "d", "--for", "1s", "--rate", "200", "--seed", "3"]).await, 0);
    std::fs::remove_dir_all(dir.path().join("d/data")).unwrap();

    let text = said(&finished(dir.path(), &["demo", "d", "--for", "2s", "--rate", "200"]).await, 1);
    assert!(text.contains("\nnot compared: sink sqlite failed: "), "{text}");
    assert!(text.contains("rows that came and are not stored wait in the spool"), "{text}");
    for lie in ["in flight", "resumed: ", "--kill"] {
        assert!(!text.contains(lie), "{lie}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_simulators_line_pasted_into_a_pipeline_makes_it_run() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["simulate", "deribit", "--rate", "500", "--faults", "cut=1/h", "--sent", "sent.jsonl"];
    let mut venue = Demo::start(dir.path(), &args);
    let endpoint = venue.until("endpoint = {").await;
    let toml = format!(
        "[pipeline]\nname = \"eth\"\n[source.deribit]\n{endpoint}\nchannels = [\"trades\", \"tickers\"]\n\
         instruments = [{{ currency = \"ETH\", kind = \"option\", top = 20 }}]\n[sink.sqlite]\npath = \"eth.sqlite\"\n"
    );
    std::fs::write(dir.path().join("eth.toml"), toml).unwrap();
    std::fs::write(dir.path().join("tidegate.toml"), "listen = \"127.0.0.1:0\"\n").unwrap();
    let mut program = Program::start(dir.path(), &["run", "eth.toml", "--supervised", "50ms"]);
    program.until_committed(200).await;
    let (code, log) = program.stop().await;
    assert_eq!(code, 0, "{log}");

    signal(&venue.child, "TERM");
    let (code, text) = venue.ended().await;
    assert_eq!(code, 0, "{text}");
    assert!(number(&text, "; sent ", " tickers") >= 100.0 && text.contains(" in 1 sessions"), "{text}");
    assert!(std::fs::metadata(dir.path().join("sent.jsonl")).unwrap().len() > 10_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_simulator_ends_when_it_was_told_and_answers_mistakes_with_the_nearest_name() {
    let dir = tempfile::tempdir().unwrap();
    let text = said(&finished(dir.path(), &["simulate", "deribit", "--for", "300ms", "--rate", "1000"]).await, 0);
    for line in ["  ws        ws://127.0.0.1:", "  http      http://", "  history   http://", "ended after 0."] {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert!(number(&text, "made ", " trades") > 0.0, "{text}");

    let text = said(&finished(dir.path(), &["simulate", "deribit", "--faults", "help"]).await, 0);
    assert!(text.contains("\n  silence  ") && text.contains("\n  http_5xx "), "{text}");
    for (args, remedy) in [
        (&["simulate", "deribt"][..], "did you mean `deribit`?"),
        (&["simulate", "deribit", "--faults", "silense=1/m"], "did you mean `silence`?"),
        (&["simulate", "deribit", "--faults", "cut"], "write `cut=2/m`"),
    ] {
        let output = finished(dir.path(), args).await;
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains(remedy), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_readme_shows_is_what_one_sees_on_a_terminal() {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let blocks: Vec<&str> = readme.split("```").filter_map(|block| block.strip_prefix("text\n")).collect();
    let [demo, log] = blocks.as_slice() else { panic!("{} blocks of what is seen", blocks.len()) };
    let dir = tempfile::tempdir().unwrap();
    let Some(seen) = on_a_terminal(dir.path(), "demo --for 20s --seed 7").await else { return };
    for line in demo.lines() {
        assert!(seen.lines().any(|seen| shape(seen) == shape(line)), "never seen: {line}\n{seen}");
        assert!(line.chars().count() <= 80, "{line}");
    }

    let mut venue = Demo::start(dir.path(), &["simulate", "deribit", "--for", "60s"]);
    let endpoint = venue.until("endpoint = {").await;
    let toml = readme.split("```").find(|block| block.contains("[source.deribit]")).unwrap();
    let toml: String = toml
        .lines()
        .skip_while(|line| !line.starts_with('['))
        .take_while(|line| *line != "END")
        .map(|line| if line.starts_with("endpoint") { format!("{endpoint}\n") } else { format!("{line}\n") })
        .collect();
    std::fs::write(dir.path().join("eth.toml"), toml).unwrap();
    std::fs::write(dir.path().join("tidegate.toml"), "listen = \"127.0.0.1:0\"\n").unwrap();
    // The file begins with this very command, which `[e]` does not fit.
    let seen = on_a_terminal(
        dir.path(),
        "run eth.toml & until grep -aq ' h[e]althy ' seen; do sleep 0.1; done; kill -INT %1; wait %1",
    )
    .await
    .unwrap();
    for line in log.lines().filter(|line| *line != "^C") {
        assert!(seen.lines().any(|seen| shape(seen) == shape(line)), "never seen: {line}\n{seen}");
    }
}

/// Runs a command on a terminal of 80 columns; `None` where there is no program to do that.
async fn on_a_terminal(folder: &Path, command: &str) -> Option<String> {
    let line = format!("set -m; stty cols 80; {} {command}", env!("CARGO_BIN_EXE_tidegate"));
    let mut script = Command::new("script");
    script.args(["-qefc", &line, "seen"]).current_dir(folder).env_remove("LOG_LEVEL").env("TERM", "xterm");
    script.env_remove("CI").env_remove("COLUMNS");
    script.env("SHELL", "/bin/bash").env("NO_COLOR", "1").stdin(Stdio::null()).kill_on_drop(true);
    match timeout(PATIENCE, script.output()).await.unwrap() {
        Ok(output) => Some(String::from_utf8_lossy(&output.stdout).replace("\x1b[6A\r\x1b[J", "").replace('\r', "")),
        Err(error) => {
            support::skipped(&format!("no `script` to make a terminal: {error}"));
            None
        }
    }
}

/// Returns the words of a line: what is left without numbers, their units, and times.
fn shape(line: &str) -> Vec<&str> {
    let is_word = |word: &&str| {
        let word = word.trim_matches(|c: char| !c.is_alphanumeric());
        !word.contains(|c: char| c.is_ascii_digit()) && !["s", "ms", "KiB", "MiB", "B", ""].contains(&word)
    };
    line.split_whitespace().filter(is_word).collect()
}

/// A running command.
struct Demo {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    said: String,
}

impl Demo {
    fn start(folder: &Path, args: &[&str]) -> Self {
        let mut child = command(folder, args).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines, said: String::new() }
    }

    /// Waits for a line that begins so, and returns it.
    async fn until(&mut self, begin: &str) -> String {
        loop {
            let line = timeout(PATIENCE, self.lines.next_line()).await;
            let line = line.unwrap_or_else(|_| panic!("never said: {begin}; but:\n{}", self.said)).unwrap();
            let line = line.unwrap_or_else(|| panic!("ended before it said: {begin}; but:\n{}", self.said));
            self.said.push_str(&line);
            self.said.push('\n');
            if line.starts_with(begin) {
                return line;
            }
        }
    }

    /// Waits for the end, and returns the exit code and all that was said.
    async fn ended(mut self) -> (i32, String) {
        let rest = async {
            let mut rest = String::new();
            self.lines.into_inner().read_to_string(&mut rest).await.unwrap();
            (self.child.wait().await.unwrap().code().unwrap_or(-1), rest)
        };
        let (code, rest) = timeout(PATIENCE, rest).await.expect("it ends");
        (code, self.said + &rest)
    }
}

/// The figures of the end.
#[derive(Debug, Default)]
struct Table {
    made: u64,
    stored: u64,
    missing: u64,
    twice: u64,
    earlier: u64,
    sent: u64,
    stored_tickers: u64,
    holes: u64,
    twice_tickers: u64,
}

impl Table {
    fn read(text: &str) -> Self {
        let trades = line_after(text, "trades ");
        let tickers = line_after(text, "tickers ");
        let figure = |line: &str, name: &str| number(&format!("{line}\n"), name, " ") as u64;
        let last = |line: &str| line.rsplit(' ').next().unwrap().replace(',', "").parse().unwrap();
        let earlier = text.lines().find(|line| line.contains("from before the first subscription"));
        Self {
            made: figure(trades, "made"),
            stored: figure(trades, "stored"),
            missing: figure(trades, "missing"),
            twice: last(trades),
            earlier: earlier.map_or(0, |line| number(&format!("|{line}"), "|", " trade") as u64),
            sent: figure(tickers, "sent to us"),
            stored_tickers: figure(tickers, "stored"),
            holes: figure(tickers, "holes"),
            twice_tickers: last(tickers),
        }
    }

    fn wrong(&self) -> u64 {
        self.missing + self.twice + self.holes + self.twice_tickers
    }
}

fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.args(args).current_dir(folder).env_remove("LOG_LEVEL").kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs a command to its end.
async fn finished(folder: &Path, args: &[&str]) -> Output {
    let output = timeout(PATIENCE, command(folder, args).output()).await;
    output.unwrap_or_else(|_| panic!("does not end: {args:?}")).unwrap()
}

/// Returns what a command said on standard output, after its exit code was checked.
fn said(output: &Output, code: i32) -> String {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}\n{errors}");
    text
}

/// Returns the first number between two texts.
fn number(text: &str, before: &str, after: &str) -> f64 {
    let found = text.split(before).skip(1).find_map(|rest| {
        let digits = rest.trim_start().split(after).next()?;
        digits.replace(',', "").parse().ok()
    });
    found.unwrap_or_else(|| panic!("no number between `{before}` and `{after}` in: {text}"))
}

fn line_after<'a>(text: &'a str, begin: &str) -> &'a str {
    let line = text.lines().find_map(|line| line.strip_prefix(begin));
    line.unwrap_or_else(|| panic!("no line begins with `{begin}`: {text}")).trim_start()
}

async fn open(folder: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(folder.join("demo.sqlite")).busy_timeout(PATIENCE);
    SqliteConnection::connect_with(&options).await.unwrap()
}

/// Returns how many trades and tickers the database holds.
async fn counts(folder: &Path) -> [u64; 2] {
    let mut database = open(folder).await;
    let mut counts = [0; 2];
    for (count, table) in counts.iter_mut().zip(["trades", "tickers"]) {
        let query = sqlx::query_scalar::<_, i64>(sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}")));
        *count = query.fetch_one(&mut database).await.unwrap_or(0).unsigned_abs();
    }
    // A connection that is only dropped is closed later, and holds up whoever opens the file then.
    database.close().await.unwrap();
    counts
}

/// Waits until so many rows are in the database, and returns how many there are.
async fn until_stored(folder: &Path, rows: u64) -> u64 {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let stored = counts(folder).await.iter().sum();
        if stored >= rows {
            return stored;
        }
        assert!(Instant::now() < deadline, "only {stored} rows of {rows}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until no process holds the lock of a file: whoever had it, or inherited it, is gone.
async fn until_nobody_has(path: &Path) {
    let file = File::open(path).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while file.try_lock().is_err() {
        assert!(Instant::now() < deadline, "somebody still has {}", path.display());
        sleep(Duration::from_millis(20)).await;
    }
}

/// Sends a signal by its name, as `kill` does.
fn signal(child: &Child, name: &str) {
    let pid = child.id().unwrap().to_string();
    assert!(std::process::Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
}
