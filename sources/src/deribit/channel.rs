//! Which channel carries which table, and what its name is at the venue.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidegate_core::row::{Row, StreamKey, Table, kinds};
use tidegate_core::{protocol::Covered, row::Numbering};

use super::{instrument, rows};

/// What to collect: a channel is named after the table that it fills.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Channel {
    /// Trades, numbered without holes: whatever is missed is fetched.
    Trades,
    /// The state of an instrument, with greeks, volatilities and open interest.
    Tickers,
    /// The best bid and ask, whenever they change.
    Quotes,
    /// The whole book: a snapshot, then changes, linked by their ids.
    BookChanges,
    /// The best ten levels of the book, whole each time.
    BookTops,
    /// The price of the index of each instrument.
    IndexPrices,
    /// Changes of the state of instruments: listed, locked, delivered.
    InstrumentStatus,
}

/// How often a channel sends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum Interval {
    /// At most ten times a second.
    #[default]
    #[serde(rename = "100ms")]
    Fast,
    /// Each event. Needs credentials.
    #[serde(rename = "raw")]
    Raw,
    /// About once in one or two seconds.
    #[serde(rename = "agg2")]
    Slow,
}

impl Interval {
    fn name(self) -> &'static str {
        match self {
            Self::Fast => "100ms",
            Self::Raw => "raw",
            Self::Slow => "agg2",
        }
    }
}

impl Channel {
    /// Returns which channel a name of the venue belongs to; `None` for one of no interest.
    #[inline]
    pub(super) fn of(name: &str) -> Option<Self> {
        let (head, rest) = name.split_once('.')?;
        match head {
            "ticker" => Some(Self::Tickers),
            "trades" => Some(Self::Trades),
            "quote" => Some(Self::Quotes),
            // The elements of the two have different shapes: `book.I.100ms`, `book.I.none.10.100ms`.
            "book" => match rest.bytes().filter(|&byte| byte == b'.').count() {
                1 => Some(Self::BookChanges),
                3 => Some(Self::BookTops),
                _ => None,
            },
            "deribit_price_index" => Some(Self::IndexPrices),
            "instrument" if rest.starts_with("state.") => Some(Self::InstrumentStatus),
            _ => None,
        }
    }

    /// Returns the table that the channel fills.
    pub(super) fn table(self) -> Table {
        match self {
            Self::Trades => Table::of::<rows::Trade<'_>>().unique_by(&["seq"]),
            Self::Tickers => Table::of::<rows::Ticker<'_>>(),
            Self::Quotes => Table::of::<kinds::Quote>(),
            Self::BookChanges => Table::of::<kinds::BookChange<'_>>().unique_by(&["seq"]).linked(),
            Self::BookTops => Table::of::<kinds::BookTop<'_>>(),
            Self::IndexPrices => Table::of::<kinds::Index>(),
            Self::InstrumentStatus => Table::of::<kinds::InstrumentStatus<'_>>(),
        }
    }

    /// Returns whether the venue is told how often to send.
    pub(super) fn has_interval(self) -> bool {
        match self {
            Self::Trades | Self::Tickers | Self::BookChanges | Self::BookTops => true,
            Self::Quotes | Self::IndexPrices | Self::InstrumentStatus => false,
        }
    }

    /// Returns the name of the channel that this instrument needs.
    pub(super) fn name(self, name: &str, interval: Interval) -> Option<String> {
        let every = interval.name();
        match self {
            Self::Trades => Some(format!("trades.{name}.{every}")),
            Self::Tickers => Some(format!("ticker.{name}.{every}")),
            Self::Quotes => Some(format!("quote.{name}")),
            Self::BookChanges => Some(format!("book.{name}.{every}")),
            // The documents disagree on whether there is a raw one.
            Self::BookTops => {
                let every = if interval == Interval::Raw { Interval::Fast.name() } else { every };
                Some(format!("book.{name}.none.10.{every}"))
            }
            Self::IndexPrices => Some(format!("deribit_price_index.{}", instrument::index(name))),
            Self::InstrumentStatus => {
                let market = instrument::market(name)?;
                Some(state_channel(market.kind.name(), market.currency))
            }
        }
    }

    /// Returns the stream that a channel of the venue carries, where it is known before the first message.
    pub(super) fn covered(name: &str) -> Option<Covered> {
        let mut parts = name.split('.').skip(1);
        let subject = parts.next()?;
        let (table, numbering) = match Self::of(name)? {
            // `trades.{kind}.{currency}.{interval}` carries whatever trades.
            Self::Trades if parts.count() > 1 => return None,
            Self::Trades => (kinds::Trade::TABLE, Numbering::Sequence),
            Self::Tickers => (kinds::Ticker::TABLE, Numbering::Unnumbered),
            Self::Quotes => (kinds::Quote::TABLE, Numbering::Unnumbered),
            Self::BookChanges => (kinds::BookChange::TABLE, Numbering::Linked),
            Self::BookTops => (kinds::BookTop::TABLE, Numbering::Unnumbered),
            Self::IndexPrices => (kinds::Index::TABLE, Numbering::Unnumbered),
            Self::InstrumentStatus => return None,
        };
        Some(Covered { key: StreamKey::new(table, subject), numbering })
    }
}

/// Returns the name of the channel that tells when instruments are listed and expire.
pub(super) fn state_channel(kind: &str, currency: &str) -> String {
    format!("instrument.state.{kind}.{currency}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_is_known_by_its_name_and_the_number_of_its_parts() {
        let names = [
            ("ticker.ETH-PERPETUAL.100ms", Some(Channel::Tickers)),
            ("trades.MATIC_USDC-9MAR24-1d02-C.raw", Some(Channel::Trades)),
            ("trades.option.any.raw", Some(Channel::Trades)),
            ("quote.ETH-PERPETUAL", Some(Channel::Quotes)),
            ("book.ETH-PERPETUAL.100ms", Some(Channel::BookChanges)),
            ("book.ETH-PERPETUAL.none.10.100ms", Some(Channel::BookTops)),
            ("deribit_price_index.eth_usd", Some(Channel::IndexPrices)),
            ("instrument.state.any.any", Some(Channel::InstrumentStatus)),
            ("incremental_ticker.ETH-PERPETUAL", None),
            ("markprice.options.eth_usd", None),
            ("platform_state", None),
            ("", None),
        ];
        for (name, channel) in names {
            assert_eq!(Channel::of(name), channel, "{name}");
        }
    }

    #[test]
    fn every_channel_of_an_instrument_is_recognised_again() {
        use Channel::{BookChanges, BookTops, IndexPrices, InstrumentStatus, Quotes, Tickers, Trades};
        for interval in [Interval::Fast, Interval::Raw, Interval::Slow] {
            for channel in [Trades, Tickers, Quotes, BookChanges, BookTops, IndexPrices, InstrumentStatus] {
                let name = channel.name("ETH-26SEP26-2760-C", interval).unwrap();
                assert_eq!(Channel::of(&name), Some(channel), "{name}");
            }
        }
        assert_eq!(BookTops.name("ETH-PERPETUAL", Interval::Raw).unwrap(), "book.ETH-PERPETUAL.none.10.100ms");
    }

    #[test]
    fn a_channel_vouches_for_the_stream_that_it_carries() {
        let covered = |name| Channel::covered(name).map(|covered| (covered.key, covered.numbering));
        let key = |table| StreamKey::new(table, "ETH-PERPETUAL");
        assert_eq!(covered("trades.ETH-PERPETUAL.100ms"), Some((key("trades"), Numbering::Sequence)));
        assert_eq!(covered("book.ETH-PERPETUAL.100ms"), Some((key("book_changes"), Numbering::Linked)));
        assert_eq!(covered("book.ETH-PERPETUAL.none.10.100ms"), Some((key("book_tops"), Numbering::Unnumbered)));
        assert_eq!(covered("trades.option.any.100ms"), None);
        assert_eq!(covered("instrument.state.option.ETH"), None);
    }
}
