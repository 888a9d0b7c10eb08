//! All problems of all files, in the order of their lines.

use std::{collections::BTreeMap, path::PathBuf};

use super::{
    problem::{Look, Problem, Severity, Spot, Text},
    secret,
};

/// More than these nobody reads in one go.
const MOST_SHOWN: usize = 100;

/// Nor more than these of one mistake in one line.
const MOST_ALIKE: usize = 10;

/// What was found wrong, in all files at once.
#[derive(Debug, Default)]
pub struct Report {
    problems: Vec<Problem>,
    /// Where secrets are written out: not to be shown with the lines around them.
    secrets: Vec<Spot>,
    secret_files: Vec<SecretFile>,
    files: usize,
}

/// A file that holds a secret.
#[derive(Debug)]
pub(crate) struct SecretFile {
    pub(crate) path: PathBuf,
    /// Where it is named.
    pub(crate) spot: Spot,
    /// The file of the pipeline that needs it; `None` where the process does.
    pub(crate) pipeline: Option<PathBuf>,
}

impl Report {
    /// Returns how many problems keep a file from being used.
    pub fn errors(&self) -> usize {
        self.problems.iter().filter(|problem| problem.severity == Severity::Error).count()
    }

    /// Returns how many problems do not.
    pub fn warnings(&self) -> usize {
        self.problems.len() - self.errors()
    }

    /// Returns the exit code of `check`: 0 for nothing, 2 for errors, and 1 for warnings when these are to be taken seriously.
    pub fn exit_code(&self, strict: bool) -> u8 {
        match (self.errors(), self.warnings()) {
            (0, 0) => 0,
            (0, _) => u8::from(strict),
            _ => 2,
        }
    }

    /// Returns every problem in one line, for a log.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.problems.iter().map(Problem::line)
    }

    /// Shows every problem with its line, and how many there are.
    pub fn render(&self, look: Look) -> String {
        let mut seen: BTreeMap<_, usize> = BTreeMap::new();
        let different = self.problems.iter().filter(|problem| {
            let alike = seen.entry((problem.line_number(), &problem.title)).or_default();
            *alike += 1;
            *alike <= MOST_ALIKE
        });
        let first: Vec<_> = different.take(MOST_SHOWN).collect();
        let files: BTreeMap<usize, &Text> =
            first.iter().flat_map(|problem| problem.files()).map(|file| (file.number, file)).collect();
        let shown: BTreeMap<usize, String> =
            files.into_iter().map(|(number, file)| (number, self.without_secrets(file))).collect();
        let mut text: String = first.iter().map(|problem| format!("{}\n\n", problem.render(look, &shown))).collect();
        let rest = self.problems.len() - first.len();
        if rest > 0 {
            text.push_str(&format!("and {rest} more\n\n"));
        }
        text.push_str(&self.summary());
        text.push('\n');
        text
    }

    /// Returns the last line: `3 errors, 1 warning in 1 of 2 files`.
    pub fn summary(&self) -> String {
        let files = count(self.files, "file");
        if self.problems.is_empty() {
            return format!("no errors in {files}");
        }
        let parts: Vec<_> = [(self.errors(), "error"), (self.warnings(), "warning")]
            .into_iter()
            .filter(|(number, _)| *number > 0)
            .map(|(number, what)| count(number, what))
            .collect();
        let mut about: Vec<_> = self.problems.iter().filter_map(|p| p.about().map(|file| file.number)).collect();
        about.sort_unstable();
        about.dedup();
        match about.len() {
            // All of them are about variables of the process.
            0 => parts.join(", "),
            _ => format!("{} in {} of {files}", parts.join(", "), about.len()),
        }
    }

    /// Adds a problem, once.
    pub(crate) fn add(&mut self, problem: Problem) {
        // A mistake in a default shows at every component that reads it.
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    /// Keeps the value at this place out of what is shown.
    pub(crate) fn hide(&mut self, spot: Spot) {
        self.secrets.push(spot);
    }

    /// Notes a file that holds a secret.
    pub(crate) fn note_secret_file(&mut self, file: SecretFile) {
        self.secret_files.push(file);
    }

    /// Returns the files that hold secrets.
    pub(crate) fn secret_files(&self) -> &[SecretFile] {
        &self.secret_files
    }

    /// Counts a file.
    pub(crate) fn count_file(&mut self) {
        self.files += 1;
    }

    /// Returns the first error in this file.
    pub(crate) fn first_error_in(&self, file: &Text) -> Option<&Problem> {
        self.problems.iter().find(|problem| {
            problem.severity == Severity::Error && problem.about().is_some_and(|about| about.number == file.number)
        })
    }

    /// Puts the problems into the order of the files and their lines.
    pub(crate) fn sort(&mut self) {
        self.problems.sort_by_key(Problem::order);
    }

    /// Returns the text of a file with a `*` for each byte of a secret, so that every place stays where it is.
    fn without_secrets(&self, file: &Text) -> String {
        let mut bytes = file.text.clone().into_bytes();
        let typed = self.secrets.iter().filter(|spot| spot.file.number == file.number).map(|spot| spot.span.clone());
        for span in typed.chain(secret::spans_in(&file.text)) {
            for byte in &mut bytes[span] {
                if *byte != b'\n' {
                    *byte = b'*';
                }
            }
        }
        // Spans stand between characters, and all of what is inside was replaced.
        String::from_utf8(bytes).unwrap_or_default()
    }
}

fn count(number: usize, what: &str) -> String {
    match number {
        1 => format!("1 {what}"),
        _ => format!("{number} {what}s"),
    }
}
