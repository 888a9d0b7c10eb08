//! The rules that the claim rests on, by name: the bench of histories (`sim`, in this crate's tests) leaves out one at a
//! time, and has to find out. Everywhere else all of them hold, and the compiler knows it.

/// A rule. Each is asked for where it lives, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// A transaction moves the position from where the store stands, or changes nothing.
    #[cfg(test)]
    Guard,
}

/// Returns whether a rule holds: always, but for the one that a test leaves out.
#[cfg(not(test))]
#[inline(always)]
pub(crate) const fn holds(_: Rule) -> bool {
    true
}

#[cfg(test)]
pub(crate) use mutant::{holds, leave_out};

#[cfg(test)]
mod mutant {
    use std::cell::Cell;

    use super::Rule;

    thread_local! {
        static LEFT_OUT: Cell<Option<Rule>> = const { Cell::new(None) };
    }

    /// Returns whether a rule holds in this thread.
    pub(crate) fn holds(rule: Rule) -> bool {
        LEFT_OUT.get() != Some(rule)
    }

    /// From now on this thread does without a rule.
    pub(crate) fn leave_out(rule: Option<Rule>) {
        LEFT_OUT.set(rule);
    }
}
