//! The real program as a process: started, watched, killed.

use std::{path::Path, process::Stdio};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    process::{Child, ChildStdin, Command},
    sync::watch,
    task::JoinHandle,
    time::{Duration, Instant, sleep, timeout},
};

use super::PATIENCE;

/// A running `tidegate`.
pub struct Program {
    child: Child,
    /// Held open: the program ends when it closes.
    stdin: Option<ChildStdin>,
    reports: watch::Receiver<Value>,
    printed: std::sync::Arc<std::sync::Mutex<String>>,
    log: std::sync::Arc<std::sync::Mutex<String>>,
    /// Ends when all that was printed is in `printed`.
    printing: Option<JoinHandle<()>>,
    /// Ends when all that was logged is in `log`.
    logging: Option<JoinHandle<()>>,
}

impl Program {
    /// Starts the program in a folder.
    pub fn start(folder: &Path, args: &[&str]) -> Self {
        Self::start_as(Path::new(env!("CARGO_BIN_EXE_tidegate")), folder, args)
    }

    /// Starts a program that is `tidegate` with components of its own.
    pub fn start_as(program: &Path, folder: &Path, args: &[&str]) -> Self {
        Self::start_with(program, folder, args, &[])
    }

    /// Starts the program with components that have faults; it panics itself at a place: `PLACE*TIMES`, or nothing.
    pub fn faulty(folder: &Path, args: &[&str], place: &str) -> Self {
        let faulty = Path::new(env!("CARGO_BIN_EXE_tidegate")).with_file_name("examples").join("faulty");
        assert!(
            faulty.exists(),
            "`cargo test` makes the examples, too; for one test alone: cargo build --example faulty"
        );
        Self::start_with(&faulty, folder, args, &[("FAULTS", place)])
    }

    /// Starts a program with variables.
    pub fn start_with(program: &Path, folder: &Path, args: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut child = Command::new(program)
            .args(args)
            .current_dir(folder)
            .env_remove("LOG_LEVEL")
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let (tell, reports) = watch::channel(Value::Null);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let printed = std::sync::Arc::<std::sync::Mutex<String>>::default();
        let kept = printed.clone();
        let printing = tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                kept.lock().unwrap().push_str(&format!("{line}\n"));
                tell.send_replace(serde_json::from_str(&line).unwrap_or(Value::String(line)));
            }
        });
        let log = std::sync::Arc::<std::sync::Mutex<String>>::default();
        let kept = log.clone();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let logging = tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                let mut kept = kept.lock().unwrap();
                kept.push_str(&line);
                kept.push('\n');
            }
        });
        Self {
            stdin: child.stdin.take(),
            child,
            reports,
            printed,
            log,
            printing: Some(printing),
            logging: Some(logging),
        }
    }

    /// Returns what was printed so far.
    pub fn printed(&self) -> String {
        self.printed.lock().unwrap().clone()
    }

    /// Returns what was logged so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits for the next report, and returns it; `Null` when the program has ended.
    pub async fn next_report(&mut self) -> Value {
        match timeout(PATIENCE, self.reports.changed()).await {
            Ok(Ok(())) => self.reports.borrow_and_update().clone(),
            Ok(Err(_)) => Value::Null,
            Err(_) => panic!("no report for {PATIENCE:?}; the log:\n{}", self.log()),
        }
    }

    /// Waits until a report satisfies `wanted`, and returns it.
    pub async fn until(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let report = self.next_report().await;
            if wanted(&report) {
                return report;
            }
            let ended = report.is_null();
            assert!(!ended && Instant::now() < deadline, "never: {what}; last {report:#}; the log:\n{}", self.log());
        }
    }

    /// Waits until the log says something.
    pub async fn until_logged(&mut self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.log().contains(text) {
            assert!(Instant::now() < deadline, "never logged: {text}; the log:\n{}", self.log());
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until so many rows are committed.
    pub async fn until_committed(&mut self, rows: u64) {
        self.until(&format!("{rows} rows committed"), |report| {
            report["checks"]["eth/sink.sqlite"]["rows_committed"].as_u64().is_some_and(|committed| committed >= rows)
        })
        .await;
    }

    /// Returns the process's id.
    pub fn id(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// Returns where the program's own HTTP listens.
    pub async fn address(&mut self) -> String {
        let shown = |log: &str| {
            let (_, port) = ["http://127.0.0.1:", "http://0.0.0.0:"].iter().find_map(|start| log.split_once(start))?;
            let port: String = port.chars().take_while(char::is_ascii_digit).collect();
            Some(format!("127.0.0.1:{port}"))
        };
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(address) = shown(&self.log()) {
                return address;
            }
            assert!(Instant::now() < deadline, "no address is logged; the log:\n{}", self.log());
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Asks the program over its own HTTP, and returns status and body.
    pub async fn get(&mut self, path: &str) -> (u16, String) {
        let (status, _, body) = self.ask(path, "").await;
        (status, body)
    }

    /// Asks with the value of the header `Authorization`, where it is not empty, and returns status, head and body.
    pub async fn ask(&mut self, path: &str, authorization: &str) -> (u16, String, String) {
        let mut socket = TcpStream::connect(self.address().await).await.unwrap();
        let header = if authorization.is_empty() { "" } else { &format!("Authorization: {authorization}\r\n") };
        socket.write_all(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n{header}\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), head.to_owned(), body.to_owned())
    }

    /// Returns the sum of a metric over its labels.
    pub async fn metric(&mut self, name: &str) -> f64 {
        let (_, text) = self.get("/metrics").await;
        let lines = text.lines().filter(|line| line.starts_with(name) && !line.starts_with('#'));
        lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
    }

    /// Kills the program with SIGKILL.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Sends a signal by its name, as `kill` does.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().unwrap().to_string();
        assert!(std::process::Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
    }

    /// Asks the program to end by closing its standard input, and returns its exit code.
    pub async fn stop(mut self) -> (i32, String) {
        drop(self.stdin.take());
        self.ended().await
    }

    /// Waits for the program's end, and returns its exit code and log.
    pub async fn ended(&mut self) -> (i32, String) {
        let status = timeout(PATIENCE, self.child.wait()).await;
        // The last lines may still be in the pipe. A grandchild that outlives the program would hold it open.
        for reader in [self.printing.take(), self.logging.take()].into_iter().flatten() {
            _ = timeout(PATIENCE, reader).await;
        }
        let log = self.log();
        (status.unwrap_or_else(|_| panic!("does not end; the log:\n{log}")).unwrap().code().unwrap_or(-1), log)
    }
}
