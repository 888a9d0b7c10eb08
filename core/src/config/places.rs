//! Where something is written on this machine: not among the engine's own files, not over a configuration, and not where
//! something of another kind is written.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    host::{Host, HostRead},
    load::Draft,
    one_path,
    problem::{Problem, Spot, Text},
    report::Report,
};

/// The file or the folder that something is written to.
#[derive(Debug)]
pub(super) struct Place {
    /// Where it leads to.
    path: PathBuf,
    writer: Writer,
    spot: Option<Spot>,
    /// The variable of the process that names it, if no file does.
    variable: Option<String>,
}

/// Who writes there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Writer {
    /// A sink of this type.
    Sink(String),
    /// The capture of a source.
    Capture,
    /// The log.
    Log,
}

/// What is there already: the engine's own.
#[derive(Debug)]
struct Taken {
    /// The folder of each pipeline, with its name.
    folders: Vec<(String, PathBuf)>,
    /// The files of the configuration.
    files: Vec<PathBuf>,
}

impl Place {
    pub(super) fn new(path: &Path, writer: Writer, spot: Option<Spot>) -> Self {
        Self { path: whereto(path), writer, spot, variable: None }
    }

    /// Names the variable that it came from.
    pub(super) fn by(self, variable: Option<String>) -> Self {
        Self { variable, ..self }
    }

    /// Returns what is wrong with it by itself.
    fn among(&self, taken: &Taken) -> Option<Problem> {
        let lies_in = |folder: &Path| self.path.starts_with(folder) || self.needs_folder_of(folder);
        if let Some((owner, _)) = taken.folders.iter().find(|(_, folder)| lies_in(folder)) {
            let problem = Problem::error(format!("here are the engine's own files of pipeline `{owner}`"));
            let problem = self.at(
                problem,
                match &self.writer {
                    Writer::Capture => "its captures would go to `PIPELINE/SOURCE` below it, among spool and ledger",
                    Writer::Sink(_) | Writer::Log => "its spool and its ledger are kept in this folder",
                },
            );
            return Some(problem.help(match &self.writer {
                Writer::Sink(_) => format!("write beside it: `rows/{owner}`, `{owner}.sqlite`"),
                Writer::Capture => {
                    "leave `dir` out, and it has its own place there, or write beside it: `captures`".into()
                }
                Writer::Log => "write beside it: `tidegate.log`".into(),
            }));
        }
        taken.files.iter().any(|file| self.path.starts_with(file)).then(|| {
            let problem = Problem::error(format!("{} would be written over a file of the configuration", self.writer));
            self.at(problem, "this is one of the files that are read").help("write beside it, under another name")
        })
    }

    /// Returns what is wrong with it beside one that was named before.
    fn beside(&self, other: &Self) -> Option<Problem> {
        let is_one = self.path == other.path;
        // Several sinks of one type may have one store, and what they may not have of it they say themselves.
        let may_share = self.writer == other.writer && matches!(self.writer, Writer::Sink(_));
        let (problem, help) = if is_one && self.writer == Writer::Capture && other.writer == Writer::Capture {
            ("two captures have one path".to_owned(), "give each its own `dir`: nobody could play them")
        } else if is_one && !may_share {
            let text = format!("{} and {} have one path", other.writer, self.writer);
            (text, "give each its own: none can read what the other writes")
        } else if self.needs_folder_of(&other.path) || other.needs_folder_of(&self.path) {
            let text = format!("{} and {} are in each other's way", other.writer, self.writer);
            (text, "where one has a file the other has a folder: give each its own")
        } else {
            return None;
        };
        let problem = self.at(Problem::error(problem), "this one");
        let problem = if other.spot.is_some() { problem.at(other.spot.clone(), "the other") } else { problem };
        Some(other.named(problem).help(help))
    }

    /// Tells whether it is a file where there has to be a folder for what lies at `path`.
    fn needs_folder_of(&self, path: &Path) -> bool {
        self.writer == Writer::Log && path != self.path && path.starts_with(&self.path)
    }

    fn at(&self, problem: Problem, label: &str) -> Problem {
        self.named(problem.at(self.spot.clone(), label))
    }

    fn named(&self, problem: Problem) -> Problem {
        match &self.variable {
            Some(variable) => problem.note(format!("`{}` is set by the variable {variable}", self.path.display())),
            None => problem,
        }
    }
}

impl fmt::Display for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sink(component) => write!(f, "a sink of type `{component}`"),
            Self::Capture => f.write_str("a capture"),
            Self::Log => f.write_str("the log"),
        }
    }
}

impl Taken {
    /// Names what these pipelines keep in `data_dir`, and the files that all of it was read from.
    fn new<'f>(host: &Host, drafts: &[(Arc<Text>, Draft)], files: impl Iterator<Item = &'f Path>) -> Self {
        let names = drafts.iter().filter_map(|(_, draft)| Some(&draft.name.as_ref()?.0));
        let folders = names.map(|name| (name.clone(), whereto(&host.data_dir.join(name)))).collect();
        Self { folders, files: files.map(whereto).collect() }
    }
}

/// Refuses the pipelines that write where the engine has its own files, or where something else is written: of two, the
/// second. Returns whether the log, which is everybody's, is written where it may be.
pub(super) fn refuse(
    HostRead { host, log, .. }: &HostRead,
    host_file: Option<&Path>,
    drafts: &mut [(Arc<Text>, Draft)],
    report: &mut Report,
) -> bool {
    let files = drafts.iter().map(|(file, _)| Path::new(&file.path)).chain(host_file);
    let taken = Taken::new(host, drafts, files);
    let numbered = drafts.iter().enumerate();
    let of_drafts = numbered.flat_map(|(n, (_, draft))| draft.places.iter().map(move |place| (Some(n), place)));
    // The log comes first: beside it one pipeline is refused, and not all of them.
    let places: Vec<_> = log.iter().map(|log| (None, log)).chain(of_drafts).collect();
    let mut refused = Vec::new();
    for (number, (owner, place)) in places.iter().enumerate() {
        let beside = || places[..number].iter().find_map(|(_, other)| place.beside(other));
        if let Some(problem) = place.among(&taken).or_else(beside) {
            report.add(problem);
            refused.push(*owner);
        }
    }
    refused.iter().flatten().for_each(|n| drafts[*n].1.pipeline = None);
    !refused.contains(&None)
}

/// Returns where a path leads to: links are followed as far as there is something, and the rest is in its one spelling.
fn whereto(path: &Path) -> PathBuf {
    let Ok(whole) = std::path::absolute(path) else { return one_path(path) };
    for there in whole.ancestors() {
        if let (Ok(real), Ok(rest)) = (there.canonicalize(), whole.strip_prefix(there)) {
            return one_path(&real.join(rest));
        }
    }
    one_path(&whole)
}
