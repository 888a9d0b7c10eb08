//! What is wrong with a configuration, shown the way rustc shows it.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use annotate_snippets::{Annotation, AnnotationKind, Level, Origin, Renderer, Snippet};

use super::{names, secret, wrap::wrapped};

/// A file that was read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Text {
    /// Its place among the files, for the order of reports.
    pub(crate) number: usize,
    /// Its path as the user wrote it.
    pub(crate) path: String,
    pub(crate) text: String,
}

/// A place in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spot {
    pub(crate) file: Arc<Text>,
    pub(crate) span: Range<usize>,
}

/// Whether a problem keeps the pipeline from running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Severity {
    Error,
    Warning,
}

/// One mistake of the user's, with what helps to mend it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) severity: Severity,
    pub(crate) title: String,
    /// The file that it is about, where no place in it is meant.
    file: Option<Arc<Text>>,
    /// Where, and what is to be said there. The first is the mistake's own place.
    labels: Vec<(Spot, String)>,
    notes: Vec<String>,
    help: Option<String>,
    /// The key that was meant, so that it is not also said to be missing.
    pub(crate) instead: Option<String>,
}

/// How a report looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// With the colours of a terminal.
    pub colours: bool,
    /// Longer lines of a file are cut to this many columns.
    pub width: usize,
}

impl Default for Look {
    fn default() -> Self {
        Self { colours: false, width: 140 }
    }
}

impl Spot {
    /// Returns the place without the quotes of a text.
    pub(crate) fn inside_quotes(mut self) -> Self {
        let written = &self.file.text[self.span.clone()];
        for quotes in [r#"""""#, "'''", "\"", "'"] {
            if written.len() >= 2 * quotes.len() && written.starts_with(quotes) && written.ends_with(quotes) {
                self.span = self.span.start + quotes.len()..self.span.end - quotes.len();
                break;
            }
        }
        self
    }

    /// Returns the place of `part` within this one, or all of it where the file writes that in another way.
    pub(crate) fn part(mut self, part: &str) -> Self {
        if let (false, Some(at)) = (part.is_empty(), self.file.text[self.span.clone()].find(part)) {
            self.span = self.span.start + at..self.span.start + at + part.len();
        }
        self
    }

    /// Returns the line, counted from 1.
    pub(crate) fn line(&self) -> usize {
        1 + self.file.text[..self.span.start].matches('\n').count()
    }

    /// Returns the column in characters, counted from 1.
    fn column(&self) -> usize {
        let before = &self.file.text[..self.span.start];
        1 + before[before.rfind('\n').map_or(0, |at| at + 1)..].chars().count()
    }
}

impl Problem {
    /// Returns a problem that keeps the file from being used.
    pub(crate) fn error(title: impl Into<String>) -> Self {
        Self::new(Severity::Error, title.into())
    }

    /// Returns a problem that does not.
    pub(crate) fn warning(title: impl Into<String>) -> Self {
        Self::new(Severity::Warning, title.into())
    }

    fn new(severity: Severity, title: String) -> Self {
        let title = without_password(title);
        Self { severity, title, file: None, labels: Vec::new(), notes: Vec::new(), help: None, instead: None }
    }

    /// Makes a warning of it.
    #[must_use]
    pub(crate) fn harmless(self) -> Self {
        Self { severity: Severity::Warning, ..self }
    }

    /// Shows a place, or only says what is to be said about it when there is none.
    #[must_use]
    pub(crate) fn at(mut self, spot: Option<Spot>, label: impl Into<String>) -> Self {
        let label = without_password(label);
        match spot {
            Some(spot) => self.labels.push((spot, label)),
            None if label.is_empty() => {}
            None => self.notes.push(label),
        }
        self
    }

    /// Names the file, for a mistake that has no place in it.
    #[must_use]
    pub(crate) fn in_file(mut self, file: &Arc<Text>) -> Self {
        self.file = Some(file.clone());
        self
    }

    #[must_use]
    pub(crate) fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(without_password(note));
        self
    }

    /// Says what to do about it, in one sentence.
    #[must_use]
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(without_password(help));
        self
    }

    /// Shows a place with what a word of elsewhere is called here.
    #[must_use]
    pub(crate) fn at_alias(mut self, spot: Option<Spot>, alias: &str) -> Self {
        self.instead = Some(alias.to_owned());
        self.at(spot, format!("here it is called `{alias}`"))
    }

    /// Shows a place with the nearest of `known`, or names them all when none is near.
    #[must_use]
    pub(crate) fn at_with_nearest<'a>(
        mut self,
        spot: Option<Spot>,
        written: &str,
        known: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let mut known: Vec<&str> = known.into_iter().collect();
        known.sort_unstable();
        known.dedup();
        match names::nearest(written, known.iter().copied()) {
            Some(near) => {
                self.instead = Some(near.to_owned());
                self.at(spot, format!("did you mean `{near}`?"))
            }
            None if known.is_empty() => self.at(spot, ""),
            None => self.at(spot, "").note(format!("known are: {}", known.join(", "))),
        }
    }

    /// Returns the file that it is about.
    pub(crate) fn about(&self) -> Option<&Arc<Text>> {
        self.labels.first().map(|(spot, _)| &spot.file).or(self.file.as_ref())
    }

    /// Orders by file and place.
    pub(crate) fn order(&self) -> (Option<usize>, Option<usize>) {
        (self.about().map(|file| file.number), self.labels.first().map(|(spot, _)| spot.span.start))
    }

    /// Returns the file and the line that it is about.
    pub(crate) fn line_number(&self) -> (Option<usize>, Option<usize>) {
        (self.about().map(|file| file.number), self.labels.first().map(|(spot, _)| spot.line()))
    }

    /// Returns the problem in one line, for a log: `eth.toml:9:1: unknown key …`.
    pub(crate) fn line(&self) -> String {
        match (self.labels.first(), self.about()) {
            (Some((spot, _)), _) => {
                format!("{}:{}:{}: {}", spot.file.path, spot.line(), spot.column(), self.title)
            }
            (None, Some(file)) => format!("{}: {}", file.path, self.title),
            (None, None) => self.title.clone(),
        }
    }

    /// Returns the files whose lines are shown.
    pub(crate) fn files(&self) -> impl Iterator<Item = &Text> {
        self.labels.iter().map(|(spot, _)| &*spot.file)
    }

    /// Shows the problem. `shown` are the files' texts without their secrets, by the number of the file.
    pub(crate) fn render(&self, look: Look, shown: &BTreeMap<usize, String>) -> String {
        let renderer = if look.colours { Renderer::styled() } else { Renderer::plain() };
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let mut group = level.primary_title(&*self.title).elements(self.snippets(shown));
        if let (true, Some(file)) = (self.labels.is_empty(), &self.file) {
            group = group.element(Origin::path(&*file.path));
        }
        // Behind the number of a line, `= note: `.
        let fitted = |text: &str| wrapped("", text, "", look.width.saturating_sub(FURNITURE));
        for note in &self.notes {
            group = group.element(Level::NOTE.message(fitted(note)));
        }
        if let Some(help) = &self.help {
            group = group.element(Level::HELP.message(fitted(help)));
        }
        renderer.term_width(look.width).render(&[group])
    }

    /// One snippet per file, the first label first.
    fn snippets<'s>(&'s self, shown: &'s BTreeMap<usize, String>) -> Vec<Snippet<'s, Annotation<'s>>> {
        let mut snippets: Vec<(&Arc<Text>, Snippet<'_, _>)> = Vec::new();
        for (number, (spot, label)) in self.labels.iter().enumerate() {
            let kind = if number == 0 { AnnotationKind::Primary } else { AnnotationKind::Context };
            let annotation = kind.span(spot.span.clone()).label((!label.is_empty()).then_some(&**label));
            match snippets.iter().position(|(file, _)| Arc::ptr_eq(file, &spot.file)) {
                Some(at) => {
                    let (file, snippet) = snippets.remove(at);
                    snippets.insert(at, (file, snippet.annotation(annotation)));
                }
                None => {
                    let text = shown.get(&spot.file.number).map_or("", String::as_str);
                    let snippet = Snippet::source(text).path(&*spot.file.path);
                    snippets.push((&spot.file, snippet.annotation(annotation)));
                }
            }
        }
        snippets.into_iter().map(|(_, snippet)| snippet).collect()
    }
}

/// The columns before the text of a note.
const FURNITURE: usize = 14;

/// Whatever is said may quote what the user wrote, and goes to the log and to `/health` as well.
fn without_password(text: impl Into<String>) -> String {
    secret::without_password(&text.into()).into_owned()
}
