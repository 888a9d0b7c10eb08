//! What tests of a faulty venue have in common: times that one can wait for, and what the program has chosen, as the venue
//! saw it.

use std::time::Duration;

use serde_json::Value;
use tidegate_sources::deribit::simulator::Oracle;

/// Times that a test can wait for.
pub const QUICK: &str = "connect_timeout = \"5s\"\nsubscribe_timeout = \"2s\"\n\
    breaker = { failures = 3, open_for = \"200ms\", successes = 1 }\n\
    rest = { timeout = \"500ms\", breaker = { failures = 3, open_for = \"200ms\", successes = 1 } }\n";
/// Longer than any test.
pub const LONG: Duration = Duration::from_secs(3_600);

/// Returns what a report says of the source.
pub fn source_of(report: &Value) -> &Value {
    &report["checks"]["eth/source.deribit"]
}

/// Returns the option whose trades were subscribed to that had most of them.
pub fn most_traded_option(oracle: &Oracle) -> String {
    let subscribed = traded_instruments(oracle);
    let count = |name: &&String| oracle.trades.get(*name).map_or(0, Vec::len);
    subscribed.iter().filter(|name| name.len() > "ETH-PERPETUAL".len()).max_by_key(count).unwrap().clone()
}

/// Returns the instruments whose trades were ever subscribed to.
pub fn traded_instruments(oracle: &Oracle) -> Vec<String> {
    let all = oracle.sessions.iter().flat_map(|session| &session.subscriptions);
    let names = all.filter_map(|one| one.channel.strip_prefix("trades.")?.split('.').next());
    let names: std::collections::BTreeSet<_> = names.map(str::to_owned).collect();
    names.into_iter().collect()
}
