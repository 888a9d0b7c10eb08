//! Continuity driven as intake drives it, by hand and by random histories.

mod history;
mod host;
mod ledger;
mod rules;
