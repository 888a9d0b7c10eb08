//! What a key is called elsewhere: the words of other collectors, and keys that stand in the wrong table.

/// Words that users bring along, and ours. Ours counts only where it is a key (or a word) of the place.
const ALIASES: &[(&str, &[&str])] = &[
    ("api_endpoint", &["endpoint", "url"]),
    ("api_key", &["client_id"]),
    ("api_secret", &["client_secret"]),
    ("apikey", &["api_key", "client_id"]),
    ("backoff", &["reconnect", "retry"]),
    ("batch_rows", &["batch"]),
    ("batch_size", &["batch"]),
    ("book", &["book_changes", "book_tops"]),
    ("brokers", &["url"]),
    ("candles", &["bars"]),
    ("circuit_breaker", &["breaker"]),
    ("connection_string", &["url", "path"]),
    ("database", &["path", "url"]),
    ("database_url", &["url", "path"]),
    ("db", &["path", "url"]),
    ("depth", &["book_changes", "book_tops"]),
    ("dsn", &["url", "path"]),
    ("file", &["path"]),
    ("filename", &["path"]),
    ("flush_interval", &["batch"]),
    ("fsync", &["sync"]),
    ("heartbeat", &["ping"]),
    ("host", &["url", "endpoint"]),
    ("key", &["api_key", "client_id"]),
    ("l2", &["book_changes"]),
    ("level2", &["book_changes"]),
    ("limit", &["top"]),
    ("markets", &["instruments"]),
    ("max_retries", &["retry", "reconnect"]),
    ("max_size", &["max_bytes", "max"]),
    ("ohlc", &["bars"]),
    ("on_full", &["when_full"]),
    ("orderbook", &["book_changes", "book_tops"]),
    ("overflow", &["when_full"]),
    ("pairs", &["instruments"]),
    ("path", &["url"]),
    ("ping_interval", &["ping"]),
    ("policy", &["when_full"]),
    ("port", &["listen"]),
    ("rate_limit", &["rest"]),
    ("reconnect", &["retry"]),
    ("retention", &["keep"]),
    ("retries", &["retry", "reconnect"]),
    ("retry", &["reconnect"]),
    ("size", &["max_bytes", "rows"]),
    ("stale", &["silence"]),
    ("stale_after", &["silence"]),
    ("streams", &["channels"]),
    ("subscriptions", &["channels"]),
    ("symbol", &["instruments"]),
    ("symbols", &["instruments"]),
    ("table", &["tables"]),
    ("tickers", &["instruments"]),
    ("timeout", &["connect_timeout"]),
    ("secret", &["client_secret", "api_key"]),
    ("secret_key", &["client_secret"]),
    ("token", &["api_key", "client_secret"]),
    ("topic", &["tables"]),
    ("topics", &["tables", "channels"]),
    ("uri", &["url", "endpoint"]),
    ("url", &["endpoint", "path"]),
    ("ws_url", &["endpoint", "url"]),
];

/// Returns what a word is called here.
pub(super) fn alias<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let word = word.to_ascii_lowercase().replace('-', "_");
    let (_, ours) = ALIASES.iter().find(|(theirs, _)| *theirs == word)?;
    ours.iter().find_map(|ours| known.iter().copied().find(|known| known == ours))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_of_elsewhere_is_translated_only_where_ours_is_known() {
        assert_eq!(alias("stale_after", &["silence", "ping"]), Some("silence"));
        assert_eq!(alias("stale_after", &["ping"]), None);
        assert_eq!(alias("Ping-Interval", &["ping"]), Some("ping"));
        assert_eq!(alias("book", &["book_tops", "book_changes"]), Some("book_changes"));
    }
}
