//! One TOML file: its values for figment, and where each of them stands.
//!
//! figment merges values and says at which key path one is wrong, but not on which line. So each document keeps the
//! place of every key path.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::Arc,
};

use figment::value::{Dict, Value};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    environment::{Environment, fill},
    explain::name_of,
    options::Pattern,
    problem::{Problem, Spot, Text},
    report::Report,
};

/// A key path: table names, and the numbers of array elements. The form in which figment reports errors.
pub(crate) type Path = Vec<String>;

/// A parsed file.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) file: Arc<Text>,
    pub(crate) data: Dict,
    places: BTreeMap<Path, Place>,
    /// How the variables of a value were written, by the value that came of them.
    variables: BTreeMap<Path, Vec<String>>,
    /// What the variables of an expression stand for: they are not put into its text.
    values: BTreeMap<Path, Vec<String>>,
    /// Values that could not be taken: a variable could not be put in, say. Nothing more is to be said about them.
    broken: BTreeSet<Path>,
    /// What is wrong with these.
    mistakes: Vec<(Path, Problem)>,
}

#[derive(Debug, Clone)]
struct Place {
    key: Option<Range<usize>>,
    value: Range<usize>,
    is_table: bool,
}

/// More syntax errors than these help nobody.
const MOST_SYNTAX_ERRORS: usize = 20;

impl Document {
    /// Parses a file and puts variables into its texts; `None` when it is not TOML.
    pub(crate) fn parse(file: Arc<Text>, environment: &Environment, report: &mut Report) -> Option<Self> {
        let (root, errors) = DeTable::parse_recoverable(&file.text);
        let mut lines = BTreeSet::new();
        let found = errors.iter().map(|error| {
            let span = error.span().or_else(|| deepest(&file.text));
            let spot = span.map(|span| Spot { file: file.clone(), span });
            (in_our_words(error.message(), spot.as_ref()), spot)
        });
        let mut found: Vec<_> = found.collect();
        found.sort_by_key(|(_, spot)| spot.as_ref().map(|spot| spot.span.start));
        let unclosed = found.iter().position(|(what, _)| what == UNCLOSED);
        found.truncate(unclosed.map_or(found.len(), |at| at + 1));
        for (what, spot) in found {
            // What follows on a line mostly comes of its first error.
            if lines.len() < MOST_SYNTAX_ERRORS && lines.insert(spot.as_ref().map(Spot::line)) {
                report.add(Problem::error("this is not TOML").at(spot, what).in_file(&file));
            }
        }
        if !errors.is_empty() {
            return None;
        }
        let mut reader = Reader {
            file: &file,
            environment,
            path: Vec::new(),
            places: BTreeMap::new(),
            variables: BTreeMap::new(),
            values: BTreeMap::new(),
            broken: BTreeSet::new(),
            mistakes: Vec::new(),
        };
        let data = reader.table(root.get_ref());
        let Reader { places, variables, values, broken, mistakes, .. } = reader;
        Some(Self { data, places, variables, values, broken, mistakes, file })
    }

    /// Reports values that could not be taken, but for those in tables that are no use anyway, as was said of each.
    pub(crate) fn report_mistakes(&self, useless: &[Path], report: &mut Report) {
        for (path, problem) in &self.mistakes {
            if !useless.iter().any(|table| path.starts_with(table)) {
                report.add(problem.clone());
            }
        }
    }

    /// Returns the place of a key.
    pub(crate) fn key(&self, path: &[String]) -> Option<Spot> {
        let place = self.places.get(path)?;
        let span = place.key.clone().unwrap_or_else(|| place.value.clone());
        Some(Spot { file: self.file.clone(), span })
    }

    /// Returns the place of a value.
    pub(crate) fn value(&self, path: &[String]) -> Option<Spot> {
        Some(Spot { file: self.file.clone(), span: self.places.get(path)?.value.clone() })
    }

    /// Returns where the sources or sinks of a type stand, or those of any type.
    pub(crate) fn stages(&self, role: &str, component: Option<&str>) -> Vec<Path> {
        let stages = self.data.get(role).and_then(Value::as_dict).into_iter().flatten();
        let fitting = stages.filter(|(name, stage)| {
            let written = stage.as_dict().and_then(|stage| stage.get("type")).and_then(Value::as_str);
            component.is_none_or(|component| written.unwrap_or(name) == component)
        });
        fitting.map(|(name, _)| vec![role.to_owned(), name.clone()]).collect()
    }

    /// Returns the first place of an option in a table.
    pub(crate) fn first_of(&self, table: &[String], option: &Pattern) -> Option<Spot> {
        let paths = self.places.keys().filter(|path| path.strip_prefix(table).is_some_and(|path| option.is_at(path)));
        paths.filter_map(|path| self.key(path)).min_by_key(|spot| spot.span.start)
    }

    /// Tells whether a table stands at this path.
    pub(crate) fn is_table(&self, path: &[String]) -> bool {
        self.places.get(path).is_some_and(|place| place.is_table)
    }

    /// Returns how the variables of a value were written; `None` when it has none.
    pub(crate) fn variables(&self, path: &[String]) -> Option<&[String]> {
        self.variables.get(path).map(Vec::as_slice)
    }

    /// Returns what the variables of an expression stand for, in the order of its text.
    pub(crate) fn values(&self, path: &[String]) -> Option<&[String]> {
        self.values.get(path).map(Vec::as_slice)
    }

    /// Returns the text at a path.
    pub(crate) fn text(&self, path: &[String]) -> Option<&str> {
        let (name, around) = path.split_last()?;
        let around = around.iter().try_fold(&self.data, |table, name| table.get(name)?.as_dict())?;
        around.get(name)?.as_str()
    }

    /// Tells whether a variable could not be put into the value at this path or below it.
    pub(crate) fn is_broken(&self, path: &[String]) -> bool {
        self.broken.range(path.to_vec()..).next().is_some_and(|broken| broken.starts_with(path))
    }
}

/// Behind a list that is not closed, the parser takes every line for a part of it.
const UNCLOSED: &str = "the list before this has no `]`";

/// Says what the parser found so that the way out is clear.
fn in_our_words(message: &str, spot: Option<&Spot>) -> String {
    let behind = spot.map_or("", |spot| &spot.file.text[spot.span.start..]);
    let is_key_or_table = behind.starts_with(|c: char| c.is_ascii_alphabetic() || c == '[');
    if behind.starts_with(['“', '”', '„', '‘', '’']) {
        r#"the quotes of TOML are straight: "…""#.to_owned()
    } else if message.starts_with("missing comma between array elements") && is_key_or_table {
        UNCLOSED.to_owned()
    } else if ["string values must be quoted", "invalid boolean"].iter().any(|it| message.starts_with(it)) {
        r#"a text stands in quotes: "…""#.to_owned()
    } else {
        message.to_owned()
    }
}

/// Returns the bracket that nests too deeply: the parser does not say where it gave up.
fn deepest(text: &str) -> Option<Range<usize>> {
    let mut depth = 0_usize;
    let too_deep = text.char_indices().find(|(_, c)| {
        match c {
            '[' | '{' => depth += 1,
            ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth > DEEPEST
    });
    too_deep.map(|(at, c)| at..at + c.len_utf8())
}

/// The parser's own limit.
const DEEPEST: usize = 80;

struct Reader<'a> {
    file: &'a Arc<Text>,
    environment: &'a Environment,
    path: Path,
    places: BTreeMap<Path, Place>,
    variables: BTreeMap<Path, Vec<String>>,
    values: BTreeMap<Path, Vec<String>>,
    broken: BTreeSet<Path>,
    mistakes: Vec<(Path, Problem)>,
}

/// Tells whether the text at a path is an expression of a derived table: a variable in it is a value, and never a part of the
/// expression.
fn is_expression(path: &[String]) -> bool {
    matches!(path, [table, _, part] if table == "table" && matches!(part.as_str(), "where" | "select"))
}

fn integer(digits: &str, radix: u32) -> Option<Value> {
    let signed = i64::from_str_radix(digits, radix).map(Value::from);
    signed.or_else(|_| u64::from_str_radix(digits, radix).map(Value::from)).ok()
}

impl Reader<'_> {
    fn table(&mut self, table: &DeTable<'_>) -> Dict {
        let mut dict = Dict::new();
        for (key, value) in table {
            let name = key.get_ref().to_string();
            dict.insert(name.clone(), self.child(name, Some(key.span()), value));
        }
        dict
    }

    fn child(&mut self, name: String, key: Option<Range<usize>>, value: &Spanned<DeValue<'_>>) -> Value {
        self.path.push(name);
        let is_table = matches!(value.get_ref(), DeValue::Table(_));
        self.places.insert(self.path.clone(), Place { key, value: value.span(), is_table });
        let value = self.value(value);
        self.path.pop();
        value
    }

    fn value(&mut self, value: &Spanned<DeValue<'_>>) -> Value {
        match value.get_ref() {
            DeValue::String(text) => self.text(text, value.span()),
            DeValue::Integer(number) => match integer(number.as_str(), number.radix()) {
                Some(number) => number,
                None => self.mistaken(value.span(), "this number", "too large for any option"),
            },
            DeValue::Float(number) => number.as_str().parse().unwrap_or(f64::NAN).into(),
            DeValue::Boolean(truth) => (*truth).into(),
            DeValue::Datetime(_) => self.mistaken(value.span(), "a date", "a text stands in quotes"),
            DeValue::Array(items) => {
                let items = items.iter().enumerate();
                Value::from(items.map(|(i, item)| self.child(i.to_string(), None, item)).collect::<Vec<_>>())
            }
            DeValue::Table(table) => self.table(table).into(),
        }
    }

    /// Notes a value that no option takes, and returns one in its place.
    fn mistaken(&mut self, span: Range<usize>, what: &str, label: &str) -> Value {
        let spot = Spot { file: self.file.clone(), span };
        let problem = Problem::error(format!("`{}` cannot be {what}", name_of(&self.path))).at(Some(spot), label);
        self.mistakes.push((self.path.clone(), problem));
        self.broken.insert(self.path.clone());
        String::new().into()
    }

    fn text(&mut self, written: &str, span: Range<usize>) -> Value {
        if let Some(home) = ["~/", "$HOME/"].into_iter().find(|home| written.starts_with(home)) {
            let spot = Spot { file: self.file.clone(), span: span.clone() }.part(home);
            let problem = Problem::warning(format!("`{home}` is no folder's name to us")).at(Some(spot), "");
            self.mistakes.push((self.path.clone(), problem.help("write ${HOME}/ for the user's own folder")));
        }
        if !written.contains("${") {
            return written.into();
        }
        let filled = fill(written, self.environment);
        for mistake in &filled.mistakes {
            let spot = Spot { file: self.file.clone(), span: span.clone() }.part(&mistake.part);
            let problem = Problem::error(&*mistake.title).at(Some(spot), "").help(&*mistake.remedy);
            self.mistakes.push((self.path.clone(), problem));
        }
        if !filled.mistakes.is_empty() {
            self.broken.insert(self.path.clone());
        } else if !filled.variables.is_empty() {
            self.variables.insert(self.path.clone(), filled.variables);
        }
        if is_expression(&self.path) {
            self.values.insert(self.path.clone(), filled.values);
            return written.into();
        }
        filled.text.into()
    }
}
