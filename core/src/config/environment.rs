//! The variables of the process, and how `${NAME}` in a value becomes one of them.

use std::{collections::BTreeMap, ffi::OsString, fmt};

/// A snapshot of the variables of the process.
#[derive(Clone, Default)]
pub struct Environment {
    /// `None` for a value that is not UTF-8.
    variables: BTreeMap<String, Option<String>>,
}

impl Environment {
    /// Reads the variables of this process.
    pub fn of_process() -> Self {
        Self::new(std::env::vars_os())
    }

    /// Returns an environment of these variables.
    pub fn new<N: Into<OsString>, V: Into<OsString>>(variables: impl IntoIterator<Item = (N, V)>) -> Self {
        // A name that is not UTF-8 can be written in no file.
        let named = variables.into_iter().filter_map(|(name, value)| {
            let name = name.into().into_string().ok()?;
            Some((name, value.into().into_string().ok()))
        });
        Self { variables: named.collect() }
    }

    /// Returns a variable: `None` when it is not set, `Some(None)` when it is not UTF-8.
    pub(super) fn look_up(&self, name: &str) -> Option<Option<&str>> {
        self.variables.get(name).map(Option::as_deref)
    }

    /// Returns the names that begin with `prefix`.
    pub(super) fn names<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a str> {
        self.variables.keys().map(String::as_str).filter(move |name| name.starts_with(prefix))
    }
}

/// Shows no value: any of them may be a secret.
impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.variables.keys()).finish()
    }
}

/// A text with its variables put in.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Filled {
    pub(super) text: String,
    /// How the variables were written, `${NAME}` each. Empty when there was none.
    pub(super) variables: Vec<String>,
    /// What they stand for, in the same order.
    pub(super) values: Vec<String>,
    pub(super) mistakes: Vec<Mistake>,
}

/// A variable that cannot be put in.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mistake {
    /// The part of the text that is meant.
    pub(super) part: String,
    pub(super) title: String,
    pub(super) remedy: String,
}

/// Replaces `${NAME}`, `${NAME:-default}` and `${NAME:?what is missing}`; `$${` stands for a literal `${`.
///
/// As in a shell, an empty variable counts as not set for `:-` and `:?`.
pub(super) fn fill(written: &str, environment: &Environment) -> Filled {
    let mut filled = Filled { text: String::new(), variables: Vec::new(), values: Vec::new(), mistakes: Vec::new() };
    let mut rest = written;
    while let Some((before, after)) = rest.split_once("${") {
        rest = after;
        if let Some(before) = before.strip_suffix('$') {
            filled.text.extend([before, "${"]);
            continue;
        }
        filled.text.push_str(before);
        let Some((expression, after)) = after.split_once('}') else {
            filled.mistakes.push(Mistake {
                part: "${".into(),
                title: "`${` has no `}`".into(),
                remedy: "write `$${` for the two characters themselves".into(),
            });
            return filled;
        };
        rest = after;
        match value(expression, environment) {
            Ok((name, value)) => {
                filled.variables.push(format!("${{{name}}}"));
                filled.text.push_str(&value);
                filled.values.push(value);
            }
            Err((title, remedy)) => {
                filled.mistakes.push(Mistake { part: format!("${{{expression}}}"), title, remedy });
            }
        }
    }
    filled.text.push_str(rest);
    filled
}

/// Returns the variable's name and value, or what is wrong and what to do about it.
fn value<'e>(expression: &'e str, environment: &Environment) -> Result<(&'e str, String), (String, String)> {
    let name = expression.split(':').next().unwrap_or(expression);
    let rest = &expression[name.len()..];
    let (default, required) = (rest.strip_prefix(":-"), rest.strip_prefix(":?"));
    let valid = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !valid || !(rest.is_empty() || default.is_some() || required.is_some()) {
        let remedy = "write ${NAME}, ${NAME:-default} or ${NAME:?what is missing}, NAME of letters, digits and `_`";
        return Err((format!("`${{{expression}}}` is no variable"), remedy.into()));
    }
    if default.is_some_and(|default| default.contains("${")) {
        return Err(("a variable cannot stand in a default".into(), "write the default itself".into()));
    }
    let set = match environment.look_up(name) {
        Some(None) => return Err((format!("${{{name}}} is not UTF-8"), "export it as UTF-8 text".into())),
        Some(Some(value)) if !value.is_empty() || rest.is_empty() => Some(value),
        _ => None,
    };
    match (set.or(default), required) {
        (Some(value), _) => Ok((name, value.to_owned())),
        (None, Some(what)) if !what.trim().is_empty() => Err((format!("${{{name}}} is not set"), what.to_owned())),
        (None, _) => {
            Err((format!("${{{name}}} is not set"), format!("write ${{{name}:-…}} for a default, or export it")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_is_put_in_with_its_default_or_as_it_is() {
        for (written, text) in [
            ("${A}", "1"),
            ("x${A}y${A:-2}z", "x1y1z"),
            ("${B:-2}s", "2s"),
            ("${EMPTY:-2}", "2"),
            ("[${EMPTY}]", "[]"),
            ("${B:-}", ""),
            ("${A:?must be there}", "1"),
            ("${B:-a:-b}", "a:-b"),
            ("$${A} $$ $A", "${A} $$ $A"),
        ] {
            let filled = fill(written, &environment());
            assert_eq!((filled.text.as_str(), filled.mistakes), (text, Vec::new()), "{written}");
        }
    }

    #[test]
    fn what_is_put_in_is_not_looked_through_again() {
        let environment = Environment::new([("A", "${B}"), ("B", "no")]);
        assert_eq!(fill("${A}", &environment).text, "${B}");
    }

    #[test]
    fn every_variable_that_cannot_be_put_in_says_why() {
        for (written, title, remedy) in [
            ("${B}", "${B} is not set", "write ${B:-…} for a default, or export it"),
            ("${B:?the key of your account}", "${B} is not set", "the key of your account"),
            ("${EMPTY:?}", "${EMPTY} is not set", "write ${EMPTY:-…} for a default, or export it"),
            ("${A", "`${` has no `}`", "write `$${` for the two characters themselves"),
            ("${A:-${B}}", "a variable cannot stand in a default", "write the default itself"),
        ] {
            let mistakes = fill(written, &environment()).mistakes;
            assert_eq!((mistakes[0].title.as_str(), mistakes[0].remedy.as_str()), (title, remedy), "{written}");
        }
        for odd in ["${}", "${1A}", "${A-B}", "${A:B}", "${A B}"] {
            assert_eq!(fill(odd, &environment()).mistakes[0].title, format!("`{odd}` is no variable"));
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_variable_that_is_not_utf_8_is_named_and_not_guessed() {
        use std::os::unix::ffi::OsStringExt;
        let environment = Environment::new([(OsString::from("A"), OsString::from_vec(vec![b'x', 0xff]))]);
        assert_eq!(fill("${A:-1}", &environment).mistakes[0].title, "${A} is not UTF-8");
    }

    fn environment() -> Environment {
        Environment::new([("A", "1"), ("EMPTY", "")])
    }
}
