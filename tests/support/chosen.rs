//! What the program has chosen, as the venue saw it.

use tidegate_sources::deribit::simulator::Oracle;

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
