//! What a component finds wrong with its own values, each with its key.

use std::fmt::Display;

use super::document::Path;
use crate::{Error, Result, catalog::Component};

/// Mistakes that no type keeps out: values that cannot work together, names that are none. All of them are shown at once.
#[derive(Debug, Default)]
pub struct Faults {
    /// The table, or the element of a list, that is looked at.
    at: Path,
    found: Vec<Fault>,
}

/// One mistake, and the key that it is shown at.
#[derive(Debug)]
pub struct Fault {
    at: Path,
    /// The key that it is shown at, then others that it is about.
    pub(super) keys: Vec<Path>,
    pub(super) message: String,
    /// Whether everything runs as it should all the same: a warning.
    pub(super) is_harmless: bool,
}

impl Faults {
    /// Returns what a component finds.
    pub fn of(component: &impl Component) -> Self {
        let mut faults = Self::default();
        component.check(&mut faults);
        faults
    }

    /// Adds a mistake in the value of `key`.
    pub fn at(&mut self, key: impl Display, message: impl Into<String>) -> &mut Fault {
        let fault = Fault { at: self.at.clone(), keys: Vec::new(), message: message.into(), is_harmless: false };
        self.found.push(fault);
        let last = self.found.len() - 1;
        self.found[last].and(key)
    }

    /// Looks into the table at `key`, or into the element of that number.
    pub fn within(&mut self, key: impl Display, look: impl FnOnce(&mut Self)) {
        self.at.push(key.to_string());
        look(self);
        self.at.pop();
    }

    /// Returns the first that keeps it from running as an error, for one who builds a component without a file.
    ///
    /// # Errors
    ///
    /// `Config`, when there is one.
    pub fn into_result(self) -> Result<()> {
        self.found
            .into_iter()
            .find(|fault| !fault.is_harmless)
            .map_or(Ok(()), |fault| Err(Error::config(fault.message)))
    }

    pub(super) fn into_vec(self) -> Vec<Fault> {
        self.found
    }
}

impl Fault {
    /// Names another key that the mistake is about: with a mistake in that one's own value, nothing is said about both.
    pub fn and(&mut self, key: impl Display) -> &mut Self {
        let key = self.at.iter().cloned().chain([key.to_string()]).collect();
        self.keys.push(key);
        self
    }

    /// Makes a warning of it: a key that changes nothing, where everything runs without it.
    pub fn harmless(&mut self) -> &mut Self {
        self.is_harmless = true;
        self
    }
}
