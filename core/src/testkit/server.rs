//! Real servers for tests: throw-away ones that `scripts/services` starts, and that end with the test.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{Mutex, OnceLock},
};

/// A real server of a test's own, on a random port, with its data in a temporary directory. Ends and takes its data along
/// when dropped, and when the process ends in whichever way.
///
/// All methods block until the server has done it, some 10 ms; `start` and `restart` for seconds, and the very first start
/// on a machine for as long as it takes to install what is needed.
///
/// # Panics
///
/// All methods panic where the server cannot be had or does not do as told, with its own words on the standard error: a test
/// without its store has failed, and is never skipped.
#[derive(Debug)]
pub struct Server {
    name: String,
    script: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    url: String,
    pid: u32,
    directory: PathBuf,
}

impl Server {
    /// Starts a server by its name in `scripts/services.d` of this workspace.
    #[must_use]
    pub fn start(name: &str) -> Self {
        Self::start_by(Path::new(SCRIPT), name)
    }

    /// As [`start`](Self::start), by a script of another workspace that takes and answers the same lines.
    #[must_use]
    pub fn start_by(script: &Path, name: &str) -> Self {
        let mut child = Command::new(script)
            .args(["run", name])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run {}: {error}", script.display()));
        let orders = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().expect("it was piped"));
        let mut server = Self {
            name: name.to_owned(),
            script: child,
            orders,
            answers,
            url: String::new(),
            pid: 0,
            directory: PathBuf::new(),
        };
        server.wait_until_ready();
        server
    }

    /// The one server of that name that all tests of this process share, each in a schema or database of its own: a second
    /// one costs seconds and hundreds of megabytes. Only for tests that leave the server itself alone.
    #[must_use]
    pub fn shared(name: &str) -> &'static Self {
        static SHARED: OnceLock<Mutex<HashMap<String, &'static Server>>> = OnceLock::new();
        // A panic under the lock is one of `start`; the next test tries again and says the same.
        let mut servers = match SHARED.get_or_init(Mutex::default).lock() {
            Ok(servers) => servers,
            Err(poisoned) => poisoned.into_inner(),
        };
        if let Some(server) = servers.get(name) {
            return server;
        }
        // Never dropped; its script sees the end of this process.
        let server: &'static Self = Box::leak(Box::new(Self::start(name)));
        servers.insert(name.to_owned(), server);
        server
    }

    /// The address, as a pipeline's configuration takes it.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its process; others may be below it. A [`restart`](Self::restart) makes another one.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Where its data and its log are. Files that are put here belong to the server's user after a [`restart`](Self::restart).
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Ends it as `kill -9` does, with all its processes. [`restart`](Self::restart) brings it back.
    pub fn kill(&mut self) {
        self.order("kill", "killed");
    }

    /// Stops all its processes where they are (SIGSTOP): connections stay open, and nothing answers.
    pub fn freeze(&mut self) {
        self.order("freeze", "frozen");
    }

    /// Lets a frozen server go on.
    pub fn thaw(&mut self) {
        self.order("thaw", "thawed");
    }

    /// Starts it again at the same port with the same data; kills it first if it runs.
    pub fn restart(&mut self) {
        self.say("restart");
        self.wait_until_ready();
    }

    fn order(&mut self, order: &str, answer: &str) {
        self.say(order);
        let line = self.line();
        assert_eq!(line, answer, "the server {} was told to {order}", self.name);
    }

    fn say(&mut self, order: &str) {
        let orders = self.orders.as_mut().expect("it is taken in `drop` only");
        orders
            .write_all(format!("{order}\n").as_bytes())
            .unwrap_or_else(|error| panic!("the server {} is gone: {error}", self.name));
    }

    fn wait_until_ready(&mut self) {
        let line = self.line();
        let ready = line.strip_prefix("ready ").and_then(|rest| {
            let (url, rest) = rest.split_once(" pid=")?;
            let (pid, directory) = rest.split_once(" dir=")?;
            Some((url.to_owned(), pid.parse().ok()?, PathBuf::from(directory)))
        });
        let Some((url, pid, directory)) = ready else {
            panic!("the server {} does not start: `{line}`", self.name);
        };
        self.url = url;
        self.pid = pid;
        self.directory = directory;
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        if let Err(error) = self.answers.read_line(&mut line) {
            panic!("the server {} is gone: {error}", self.name);
        }
        line.trim_end().to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The end of its standard input is the script's sign; it is waited for, so that nothing is left when a test is over.
        drop(self.orders.take());
        if let Err(error) = self.script.wait() {
            eprintln!("the server {} cannot be waited for: {error}", self.name);
        }
    }
}

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/services");

#[cfg(test)]
mod tests {
    use std::{net::TcpStream, time::Duration};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    #[test]
    fn a_server_keeps_its_address_through_a_kill_answers_nothing_while_frozen_and_leaves_nothing() {
        let mut server = Server::start("postgres");
        let url = server.url().to_owned();
        assert!(answers(&server, PATIENCE), "it answers when it is ready");

        server.freeze();
        assert!(!answers(&server, Duration::from_millis(500)), "frozen, it answers nothing");
        server.thaw();
        assert!(answers(&server, PATIENCE));

        server.kill();
        assert!(TcpStream::connect(address(&server)).is_err(), "killed, nobody listens");
        server.restart();
        assert_eq!(server.url(), url);
        assert!(answers(&server, PATIENCE));

        let directory = server.directory().to_owned();
        assert!(directory.join("data").exists());
        drop(server);
        assert!(!directory.exists(), "its data went with it");
    }

    #[test]
    fn all_tests_of_a_process_share_one() {
        let urls: Vec<_> = std::thread::scope(|scope| {
            let started: Vec<_> = (0..3).map(|_| scope.spawn(|| Server::shared("postgres").url())).collect();
            started.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(urls.iter().all(|url| *url == urls[0]), "{urls:?}");
    }

    #[test]
    #[should_panic(expected = "does not start")]
    fn a_server_that_cannot_be_had_fails_the_test() {
        drop(Server::start("oracle"));
    }

    /// Whether it says in time if it speaks TLS, the first thing that a client of Postgres asks.
    fn answers(server: &Server, within: Duration) -> bool {
        use std::io::Read;
        let mut connection = TcpStream::connect(address(server)).unwrap();
        connection.set_read_timeout(Some(within)).unwrap();
        connection.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).unwrap();
        connection.read_exact(&mut [0]).is_ok()
    }

    fn address(server: &Server) -> String {
        let (_, rest) = server.url().split_once('@').unwrap();
        rest.split_once('/').unwrap().0.to_owned()
    }
}
