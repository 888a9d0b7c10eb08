//! The channels a client may subscribe to, read from their names.

use super::instrument::{CURRENCY, INDEX};

/// A channel, without its interval: all intervals of it carry the same messages here.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Topic {
    /// Trades of one instrument.
    Trades(String),
    /// Trades of every instrument of a kind; `any` is every kind.
    TradesOf(Kind),
    Ticker(String),
    Quote(String),
    Book(String),
    /// The best levels, whole each time.
    BookTop(String),
    Index,
    State(Kind),
    Platform,
    PublicMethods,
}

/// A kind of instruments, as channels and requests name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Option,
    Future,
    Any,
    /// A kind that exists at the venue and of which nothing is listed here.
    Other,
}

/// A channel as a client asked for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Channel {
    pub(super) topic: Topic,
    /// Each event by itself, which the venue gives to logged-in clients only.
    pub(super) raw: bool,
}

impl Kind {
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text {
            "option" => Some(Self::Option),
            "future" => Some(Self::Future),
            "any" => Some(Self::Any),
            "spot" | "future_combo" | "option_combo" | "combo" => Some(Self::Other),
            _ => None,
        }
    }

    pub(super) fn includes(self, is_option: bool) -> bool {
        match self {
            Self::Option => is_option,
            Self::Future => !is_option,
            Self::Any => true,
            Self::Other => false,
        }
    }
}

impl Channel {
    /// Reads a channel's name; none if the venue has no such channel. Whether the instrument exists is the market's to say.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let parts: Vec<&str> = name.split('.').collect();
        let plain = |topic| Some(Self { topic, raw: false });
        match parts.as_slice() {
            ["trades", instrument, interval] => with_interval(Topic::Trades((*instrument).to_owned()), interval),
            ["trades", kind, currency, interval] if is_currency(currency) => {
                with_interval(Topic::TradesOf(Kind::parse(kind)?), interval)
            }
            ["ticker", instrument, interval] => with_interval(Topic::Ticker((*instrument).to_owned()), interval),
            ["book", instrument, interval] => with_interval(Topic::Book((*instrument).to_owned()), interval),
            // No raw one: the documents disagree on whether there is.
            ["book", instrument, "none", "10", interval @ ("100ms" | "agg2")] => {
                with_interval(Topic::BookTop((*instrument).to_owned()), interval)
            }
            ["quote", instrument] => plain(Topic::Quote((*instrument).to_owned())),
            ["deribit_price_index", index] if *index == INDEX => plain(Topic::Index),
            ["instrument", "state", kind, currency] if is_currency(currency) => plain(Topic::State(Kind::parse(kind)?)),
            ["platform_state"] => plain(Topic::Platform),
            ["platform_state", "public_methods_state"] => plain(Topic::PublicMethods),
            _ => None,
        }
    }
}

impl Topic {
    /// Returns the instrument that the channel is about, if it is about one.
    pub(super) fn instrument(&self) -> Option<&str> {
        match self {
            Self::Trades(name) | Self::Ticker(name) | Self::Quote(name) | Self::Book(name) | Self::BookTop(name) => {
                Some(name)
            }
            Self::TradesOf(_) | Self::Index | Self::State(_) | Self::Platform | Self::PublicMethods => None,
        }
    }

    /// Returns whether trades of an instrument come on this channel.
    pub(super) fn carries_trades_of(&self, name: &str, is_option: bool) -> bool {
        match self {
            Self::Trades(instrument) => instrument == name,
            Self::TradesOf(kind) => kind.includes(is_option),
            Self::Ticker(_) | Self::Quote(_) | Self::Book(_) | Self::BookTop(_) => false,
            Self::Index | Self::State(_) | Self::Platform | Self::PublicMethods => false,
        }
    }
}

fn with_interval(topic: Topic, interval: &str) -> Option<Channel> {
    let known = matches!(interval, "raw" | "100ms" | "agg2");
    known.then(|| Channel { topic, raw: interval == "raw" })
}

/// The simulated currency, or all of them.
pub(super) fn is_currency(text: &str) -> bool {
    text == CURRENCY || text == "any"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_read_with_their_interval_and_unknown_ones_are_not() {
        let trades = Channel::parse("trades.ETH-26SEP26-2760-C.raw").unwrap();
        assert_eq!(trades, Channel { topic: Topic::Trades("ETH-26SEP26-2760-C".into()), raw: true });
        assert_eq!(Channel::parse("trades.option.any.100ms").unwrap().topic, Topic::TradesOf(Kind::Option));
        assert!(!Channel::parse("quote.ETH-PERPETUAL").unwrap().raw);
        let top = Channel::parse("book.ETH-PERPETUAL.none.10.100ms").unwrap();
        assert_eq!(top, Channel { topic: Topic::BookTop("ETH-PERPETUAL".into()), raw: false });
        for unknown in
            ["", "bogus.channel", "ticker.X", "ticker.X.1s", "book.X.none.10.raw", "deribit_price_index.btc_usd"]
        {
            assert_eq!(Channel::parse(unknown), None, "{unknown}");
        }
    }
}
