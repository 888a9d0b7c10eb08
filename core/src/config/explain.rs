//! serde's errors in the user's words: TOML's names of things, never Rust's, and no value that came from a variable.

use figment::error::{Actual, Kind};

use super::{
    document::Path,
    hints,
    layers::{Layers, without_values},
    names,
    options::{Options, Pattern},
    problem::Problem,
    secret, text_or,
    units::{ByteSize, Duration, Rate, Unit},
};

/// What may stand in a table, for the answer to a key that may not.
pub(crate) struct Keys<'a> {
    /// What to call the table: `[source.deribit]`.
    pub(crate) table: String,
    /// All that may stand in the table, also what is read by another struct.
    pub(crate) options: &'a [Options],
    /// The component whose reference page has them.
    pub(crate) component: Option<&'a str>,
    /// The options that hold secrets.
    pub(crate) secrets: &'a [Pattern],
    /// Says where a key belongs that does not belong here.
    pub(crate) elsewhere: &'a dyn Fn(&str) -> Option<String>,
    /// Whether these are defaults, which another table completes.
    pub(crate) is_partial: bool,
}

impl<'a> Keys<'a> {
    /// Returns the keys of a table that belongs to no component.
    pub(crate) fn of_table(name: &str, options: &'a [Options]) -> Self {
        Self {
            table: format!("[{name}]"),
            options,
            component: None,
            secrets: &[],
            elsewhere: &|_| None,
            is_partial: false,
        }
    }

    fn kind_at(&self, path: &[String]) -> Option<String> {
        self.options.iter().find_map(|options| options.kind_at(path))
    }

    /// Returns the keys of inner tables that a key of the table itself may stand for: `batch.linger` for `linger`.
    fn nested(&self, field: &str) -> Option<String> {
        let all = self.options.iter().flat_map(Options::all).filter(|option| option.is_nested_as(field));
        let keys: Vec<_> = all.map(|option| format!("`{}`", option.key)).collect();
        (!keys.is_empty()).then(|| keys.join(" or "))
    }

    /// Returns the keys that the table at a path has to have.
    pub(crate) fn required_at(&self, path: &[String]) -> Vec<String> {
        self.options.iter().flat_map(|options| options.required_at(path)).collect()
    }
}

/// Turns an error at `path` into a problem that shows the line.
#[expect(clippy::wildcard_enum_match_arm, reason = "the enum is figment's: what is new in it gets the general words")]
pub(crate) fn explain(layers: &Layers<'_>, kind: &Kind, path: &[String], keys: &Keys<'_>) -> Problem {
    let problem = match kind {
        Kind::UnknownField(field, known) => unknown_key(layers, field, known, path, keys),
        Kind::MissingField(field) => missing(layers, field, path, keys),
        Kind::UnknownVariant(word, known) => unknown_word(layers, word, known, path, keys),
        Kind::InvalidType(found, expected) => wrong_value(layers, found, expected, path, keys),
        Kind::InvalidValue(found, expected) => wrong_value(layers, found, expected, path, keys),
        other => not_valid(layers, other, path, keys),
    };
    with_variable(problem, layers, path)
}

/// Names the variable of the process that set what is at `path`, or a part of it.
pub(crate) fn with_variable(problem: Problem, layers: &Layers<'_>, path: &[String]) -> Problem {
    match layers.variable(path) {
        Some((path, variable)) => {
            problem.note(format!("`{}` is set by the variable {}", path.join("."), variable.name))
        }
        None => problem,
    }
}

fn unknown_key(layers: &Layers<'_>, field: &str, known: &[&str], path: &[String], keys: &Keys<'_>) -> Problem {
    let at_root = path.len() == 1;
    let table = match path.split_last() {
        Some((_, around)) if !around.is_empty() => format!("`{}`", name_of(around)),
        _ => keys.table.clone(),
    };
    let problem = Problem::error(format!("unknown key `{field}` in {table}"));
    let known: Vec<&str> = if at_root {
        let all = keys.options.iter().flat_map(|options| &options.keys).map(String::as_str);
        known.iter().copied().chain(all).collect()
    } else {
        known.to_vec()
    };
    let spot = layers.key(path);
    let mut problem = if let Some(alias) = hints::alias(field, &known) {
        problem.at_alias(spot, alias)
    } else if let Some(nested) = at_root.then(|| keys.nested(field)).flatten() {
        problem.at(spot, format!("here it is {nested}"))
    } else if let Some(place) = at_root.then(|| (keys.elsewhere)(field)).flatten() {
        problem.at(spot, place)
    } else {
        problem.at_with_nearest(spot, field, known)
    };
    if let (true, Some(component)) = (at_root, keys.component) {
        problem = problem.help(format!("all keys: tidegate list {component}"));
    }
    problem
}

fn missing(layers: &Layers<'_>, field: &str, path: &[String], keys: &Keys<'_>) -> Problem {
    let table = if path.is_empty() { keys.table.clone() } else { format!("`{}`", name_of(path)) };
    let problem = Problem::error(format!("{table} has no `{field}`")).at(layers.key(path), "");
    match keys.component {
        Some(component) if path.is_empty() => problem.help(format!("what it is: tidegate list {component}")),
        _ => problem,
    }
}

fn unknown_word(layers: &Layers<'_>, word: &str, known: &[&str], path: &[String], keys: &Keys<'_>) -> Problem {
    let spot = layers.value(path).map(|spot| spot.inside_quotes().part(word));
    if let Some(written) = layers.written(path) {
        let title = format!("the value of {written} does not fit `{}`", name_of(path));
        let note = match names::nearest(word, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("known are: {}", known.join(", ")),
        };
        return Problem::error(title).at(spot, "").note(note);
    }
    let problem = Problem::error(format!("unknown `{word}` for `{}`", name_of(path)));
    match hints::alias(word, known) {
        Some(alias) => problem.at_alias(spot, alias),
        // What may be a table as well is not told by its words alone.
        None => match keys.kind_at(path).filter(|kind| kind.contains('{')) {
            Some(kind) => problem.at(spot, "").note(format!("it may be: {kind}")),
            None => problem.at_with_nearest(spot, word, known.iter().copied()),
        },
    }
}

fn wrong_value(layers: &Layers<'_>, found: &Actual, expected: &str, path: &[String], keys: &Keys<'_>) -> Problem {
    let spot = layers.value(path).or_else(|| layers.key(path));
    let mut expected = in_toml(expected);
    if ["a table", "a list", ANOTHER, text_or::EXPECTED].contains(&&*expected) {
        expected = keys.kind_at(path).unwrap_or(expected);
    }
    let key = name_of(path);
    let problem = if let Some(written) = layers.written(path) {
        Problem::error(format!("the value of {written} does not fit `{key}`"))
    } else if path.iter().any(|part| secret::named_like_one(part)) || expected == secret::EXPECTED {
        Problem::error(format!("`{key}` is of another kind"))
    } else if has_unit(&expected) && is_bare_number(found) {
        Problem::error(format!("`{}` has no unit", shown(found)))
    } else {
        expected = as_a_whole(found, expected);
        Problem::error(format!("`{key}` cannot be {}", name(found)))
    };
    problem.at(spot, expected)
}

/// Says that a list or a table is wanted where a single value stands, for those who have never seen one.
fn as_a_whole(found: &Actual, expected: String) -> String {
    let is_list = ["list of ", "a list of "].iter().any(|list| expected.starts_with(list));
    if is_list && matches!(found, Actual::Str(_)) {
        format!("in brackets, [{}]: {expected}", name(found))
    } else if expected.starts_with("{ ") && !expected.contains(" | ") {
        format!("a table: {expected}")
    } else {
        expected
    }
}

/// Shows what a component says about some of its values at the first that stands in a file.
pub(crate) fn fault(layers: &Layers<'_>, keys: &Keys<'_>, message: &str, about: &[Path]) -> Problem {
    let parts = about.iter().map(|path| (1..=path.len()).rev().map(|length| &path[..length]).collect::<Vec<_>>());
    let shown = about.iter().map(Vec::as_slice).chain(parts.flatten()).find(|path| layers.value(path).is_some());
    let (spot, label) = match shown {
        Some(path) => (layers.value(path), ""),
        None => (layers.key(&[]), "in this table"),
    };
    let problem = Problem::error(message).at(spot, label);
    match keys.component {
        Some(component) => problem.help(format!("all keys: tidegate list {component}")),
        None => problem,
    }
}

/// Shows the error of a component that cannot be built, or cannot write its tables, at the key, or the table in `tables`,
/// that it names first; else at its own table.
pub(crate) fn component(layers: &Layers<'_>, keys: &Keys<'_>, error: &crate::Error) -> Problem {
    let message = without_values(error.chain(), &layers.hidden_values(keys.secrets));
    fault(layers, keys, &message, &Vec::from_iter(named(layers, error)))
}

/// Returns the path of the key, or of the table in `tables`, that a component's error names first.
pub(crate) fn named(layers: &Layers<'_>, error: &crate::Error) -> Option<Path> {
    error.chain().split('`').skip(1).step_by(2).find_map(|word| {
        let path: Path = word.split('.').map(String::from).collect();
        let of_table = || {
            let mut singles = layers.singles().into_iter();
            singles.find(|(path, value)| path[0] == "tables" && value.as_str() == Some(word)).map(|(path, _)| path)
        };
        layers.value(&path).is_some().then_some(path).or_else(of_table)
    })
}

/// A message of the type's own. It may quote a value, so it is shown only where that stands in the file.
fn not_valid(layers: &Layers<'_>, kind: &Kind, path: &[String], keys: &Keys<'_>) -> Problem {
    let key = name_of(path);
    let spot = layers.value(path).or_else(|| layers.key(path));
    let hidden = layers.written(path).is_some() || path.iter().any(|part| secret::named_like_one(part));
    let of_type = if let Kind::Message(message) = kind { Some(message) } else { None };
    let of_type = of_type.filter(|message| !hidden && !names_rust(message)).cloned();
    let message = of_type.or_else(|| keys.kind_at(path)).unwrap_or_default();
    let title = match layers.written(path) {
        Some(written) => format!("the value of {written} does not fit `{key}`"),
        None => format!("`{key}` is not valid"),
    };
    Problem::error(title).at(spot, message)
}

/// Returns the key that a path leads to, without the numbers of array elements.
pub(crate) fn name_of(path: &[String]) -> String {
    let names: Path = path.iter().filter(|part| part.parse::<usize>().is_err()).cloned().collect();
    if names.is_empty() { "the table".into() } else { names.join(".") }
}

fn has_unit(expected: &str) -> bool {
    [Duration::EXPECTED, ByteSize::EXPECTED, Rate::EXPECTED].contains(&expected)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the enum is figment's: what is new in it gets the general words")]
fn is_bare_number(found: &Actual) -> bool {
    match found {
        Actual::Signed(_) | Actual::Unsigned(_) | Actual::Float(_) => true,
        Actual::Str(text) => text.trim().parse::<f64>().is_ok(),
        _ => false,
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the enum is figment's: what is new in it gets the general words")]
fn shown(found: &Actual) -> String {
    match found {
        Actual::Signed(number) => number.to_string(),
        Actual::Unsigned(number) => number.to_string(),
        Actual::Float(number) => number.to_string(),
        Actual::Str(text) => text.clone(),
        other => name(other),
    }
}

/// Names what was found, as TOML calls it.
#[expect(clippy::wildcard_enum_match_arm, reason = "the enum is figment's: what is new in it gets the general words")]
fn name(found: &Actual) -> String {
    match found {
        Actual::Str(text) if text.chars().count() > 60 || text.contains('\n') => "this text".into(),
        Actual::Str(text) => format!("{text:?}"),
        Actual::Signed(_) | Actual::Unsigned(_) | Actual::Float(_) => format!("the number {}", shown(found)),
        Actual::Bool(truth) => truth.to_string(),
        Actual::Seq => "a list".into(),
        Actual::Map => "a table".into(),
        _ => "this".into(),
    }
}

const ANOTHER: &str = "another kind of value";

/// Turns serde's words into TOML's.
fn in_toml(expected: &str) -> String {
    let words = match expected {
        "u8" | "u16" | "u32" | "u64" | "u128" | "usize" => "a whole number, not negative",
        "a nonzero u8" | "a nonzero u16" | "a nonzero u32" | "a nonzero u64" | "a nonzero usize" => {
            "a whole number, at least 1"
        }
        "i8" | "i16" | "i32" | "i64" | "i128" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "a boolean" => "true or false",
        "a string" | "a borrowed string" | "path string" | "a character" => "a text",
        "a sequence" => "a list",
        "a map" => "a table",
        _ if expected.starts_with("struct ") => "a table",
        _ if expected.starts_with("tuple ") || expected.starts_with("an array of") => "a list",
        _ if expected.starts_with("enum ") || names_rust(expected) => ANOTHER,
        _ => expected,
    };
    match expected {
        "u8" | "a nonzero u8" => format!("{words}, at most {}", u8::MAX),
        "u16" | "a nonzero u16" => format!("{words}, at most {}", u16::MAX),
        _ => words.into(),
    }
}

/// Tells whether a message speaks of Rust's types, as serde's own do.
fn names_rust(message: &str) -> bool {
    ["::", "enum ", "struct ", "variant", "invalid type", "invalid value", "<", "field identifier"]
        .iter()
        .any(|word| message.contains(word))
}
