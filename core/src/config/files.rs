//! Finding and reading the files.

use std::{
    ffi::OsStr,
    fs, io,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    problem::{Problem, Text},
    report::Report,
};

/// The name of the host file.
pub const HOST_FILE: &str = "tidegate.toml";

/// A file larger than this is no configuration.
const LARGEST: u64 = 4 << 20;

/// What the shell hands over: it is open already.
const GIVEN: [&str; 2] = ["/dev/stdin", "/dev/fd"];

/// The files of a run, read.
#[derive(Debug, Default)]
pub struct Files {
    pub(super) host: Option<Arc<Text>>,
    /// Whether there is a host file that could not be read, or more than one.
    pub(super) host_is_wrong: bool,
    /// One per pipeline. Those that could not be read are left out.
    pub(super) pipelines: Vec<Arc<Text>>,
    /// What was wrong with the others.
    pub(super) report: Report,
    number: usize,
}

impl Files {
    /// Reads the pipelines at `paths`: files, and folders whose `*.toml` they are. The host file is `host`, or the
    /// `tidegate.toml` beside them; two of these are a mistake.
    pub fn read(paths: &[PathBuf], host: Option<&Path>) -> Self {
        let mut files = Self::default();
        let identity = |file: &Path| fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
        let mut seen: Vec<PathBuf> = host.map(identity).into_iter().collect();
        let (mut hosts, mut pipelines) = (Vec::new(), Vec::new());
        for path in paths {
            for file in files.find(path) {
                let identity = identity(&file);
                if seen.contains(&identity) {
                    continue;
                }
                seen.push(identity);
                if file.file_name() == Some(OsStr::new(HOST_FILE)) { &mut hosts } else { &mut pipelines }.push(file);
            }
        }
        let single = paths.iter().filter(|path| !path.is_dir());
        for beside in single.filter_map(|path| path.parent()).map(|folder| folder.join(HOST_FILE)) {
            if beside.exists() && !seen.contains(&identity(&beside)) {
                seen.push(identity(&beside));
                hosts.push(beside);
            }
        }
        files.open_host(host.map_or(hosts, |host| vec![host.to_owned()]));
        for path in pipelines {
            let read = files.open(&path);
            files.pipelines.extend(read);
        }
        files
    }

    /// Takes a text for a pipeline's file: what came from elsewhere than a disk.
    pub fn of_text(path: &str, text: &str) -> Self {
        let mut files = Self { number: 1, ..Self::default() };
        files.report.count_file();
        files.pipelines.push(Arc::new(Text { number: 0, path: path.into(), text: text.into() }));
        files
    }

    fn open_host(&mut self, mut hosts: Vec<PathBuf>) {
        for more in hosts.drain(1.min(hosts.len())..).collect::<Vec<_>>() {
            self.fail(&more, "is a second host file".into(), "a process has one: name it by --host");
            self.host_is_wrong = true;
        }
        for path in hosts {
            self.host = self.open(&path);
            self.host_is_wrong |= self.host.is_none();
        }
    }

    /// Returns the files that a path of the command line stands for.
    fn find(&mut self, path: &Path) -> Vec<PathBuf> {
        if !path.is_dir() {
            return vec![path.to_owned()];
        }
        let listed = fs::read_dir(path).and_then(|entries| entries.collect::<io::Result<Vec<_>>>());
        let mut found: Vec<PathBuf> = match listed {
            Ok(entries) => entries.into_iter().map(|entry| entry.path()).collect(),
            Err(error) => {
                self.fail(path, format!("cannot be read: {}", reason(&error)), "");
                return Vec::new();
            }
        };
        found.retain(|file| file.extension() == Some(OsStr::new("toml")) && !file.is_dir());
        found.sort_unstable();
        if found.is_empty() {
            self.fail(path, "is a folder without *.toml files".into(), "tidegate new SOURCE SINK writes a first one");
        }
        found
    }

    fn open(&mut self, path: &Path) -> Option<Arc<Text>> {
        let (what, help) = match read(path) {
            Ok(text) => {
                let file = Text { number: self.number, path: path.display().to_string(), text };
                self.number += 1;
                self.report.count_file();
                return Some(Arc::new(file));
            }
            Err(wrong) => wrong,
        };
        self.fail(path, what, help);
        None
    }

    fn fail(&mut self, path: &Path, what: String, help: &str) {
        let path = path.display().to_string();
        let problem = Problem::error(format!("`{path}` {what}"));
        let file = Arc::new(Text { number: self.number, path, text: String::new() });
        self.number += 1;
        self.report.count_file();
        let problem = problem.in_file(&file);
        self.report.add(if help.is_empty() { problem } else { problem.help(help) });
    }
}

/// Returns the text of a file, or what is wrong with it and what to do.
fn read(path: &Path) -> Result<String, (String, &'static str)> {
    if path.is_dir() {
        return Err(("is a folder, not a file".into(), "name a file in it"));
    }
    // A named pipe is opened only once somebody writes to it, which may be never.
    let is_special = fs::metadata(path).is_ok_and(|file| !file.is_file());
    if is_special && !GIVEN.iter().any(|given| path.starts_with(given)) {
        return Err(("is no regular file".into(), "name a file, or /dev/stdin"));
    }
    let mut bytes = Vec::new();
    let read = fs::File::open(path).and_then(|file| file.take(LARGEST + 1).read_to_end(&mut bytes));
    if let Err(error) = read {
        return Err((format!("cannot be read: {}", reason(&error)), ""));
    }
    if bytes.len() as u64 > LARGEST {
        return Err(("is larger than 4MiB".into(), "a pipeline's file has some forty lines: is this the right one?"));
    }
    let line = |at: usize| 1 + bytes[..at].iter().filter(|byte| **byte == b'\n').count();
    if let Some(at) = bytes.iter().position(|byte| byte.is_ascii_control() && !b"\t\n\r".contains(byte)) {
        let what = format!("is not text: line {} has the byte 0x{:02x}", line(at), bytes[at]);
        return Err((what, "is this the right file?"));
    }
    let text = match std::str::from_utf8(&bytes) {
        Ok(text) => text.strip_prefix('\u{feff}').unwrap_or(text),
        Err(error) => {
            return Err((format!("is not UTF-8: line {}", line(error.valid_up_to())), "save it as UTF-8"));
        }
    };
    if text.trim().is_empty() {
        return Err(("is empty".into(), "tidegate new SOURCE SINK writes one to begin with"));
    }
    Ok(text.to_owned())
}

/// Says why a file cannot be read, without the number of the system's error.
fn reason(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::NotFound {
        return "there is no such file".into();
    }
    if error.kind() == io::ErrorKind::PermissionDenied {
        return "permission denied".into();
    }
    error.to_string()
}
