//! A venue that makes one trade a second and answers requests for them as Deribit's two hosts do.

use std::collections::BTreeSet;

use tidegate_core::{protocol::Request, row::Timestamp};

use super::{
    super::{HISTORY, NOW},
    NEWEST, SYMBOL,
};

/// What the venue has, and how its hosts behave. A trade's number is its second.
#[derive(Debug, Clone)]
pub(super) struct Venue {
    /// The history host has nothing below this number.
    pub(super) history_from: u64,
    /// Both hosts lack this many of the newest trades.
    pub(super) lag: u64,
    /// Numbers that were never given.
    pub(super) never: BTreeSet<u64>,
    /// If given, the only trades that were made.
    pub(super) only: Option<BTreeSet<u64>>,
    /// Trades that are sent without a price.
    pub(super) broken: BTreeSet<u64>,
    /// From this second on, the perpetual is numbered anew from 1; requests by number mean the new numbers.
    pub(super) renumbered: Option<u64>,
    /// Whether each trade belongs to the next of 40 options, and not all to the perpetual.
    pub(super) options: bool,
    /// The longest page by currency.
    pub(super) page: usize,
    /// Whether the main host sends a page in any order, as the other one does.
    pub(super) shuffles: bool,
}

const OPTIONS: u64 = 40;
/// What the main host remembers, in seconds.
const A_DAY: u64 = 86_400;

/// Returns when a trade was made.
pub(super) fn at(second: u64) -> Timestamp {
    Timestamp(NOW.0 - (NEWEST as i64 - second as i64) * 1_000_000_000)
}

/// Returns the option that a trade belongs to.
pub(super) fn option(second: u64) -> String {
    format!("ETH-26SEP26-{}-C", 2000 + second % OPTIONS * 50)
}

/// Returns the number of a trade in its option.
pub(super) fn seq(second: u64) -> u64 {
    second / OPTIONS
}

impl Default for Venue {
    fn default() -> Self {
        Self {
            history_from: 0,
            lag: 0,
            never: BTreeSet::new(),
            only: None,
            broken: BTreeSet::new(),
            renumbered: None,
            options: false,
            page: 1000,
            shuffles: false,
        }
    }
}

impl Venue {
    /// Answers a request for trades.
    pub(super) fn serve(&self, request: &Request) -> String {
        let query = |key: &str| {
            let (_, query) = request.url.split_once('?').unwrap();
            let value = query.split('&').find_map(|pair| pair.strip_prefix(&format!("{key}=")));
            value.map(str::to_owned)
        };
        let number = |key| query(key).map(|value| value.parse::<u64>().unwrap());
        let is_history = request.url.starts_with(HISTORY);
        let first = if is_history { self.history_from } else { NEWEST - A_DAY };
        let last = NEWEST - self.lag;
        let is_of_main = |second: &u64| first <= *second && *second <= last;
        let by_currency = request.url.contains("by_currency");
        let second_of = |millis: u64| (millis as i64 - at(0).as_millis()) as u64 / 1000;
        let numbered = |seq: Option<u64>| match (seq, self.renumbered) {
            (Some(seq), Some(from)) => Some(from + seq - 1),
            (seq, _) => seq,
        };
        let by_number = number("start_seq").is_some() || number("end_seq").is_some();
        let first = self.renumbered.filter(|_| by_number).map_or(first, |from| first.max(from));
        let start = number("start_timestamp").map(second_of).or_else(|| numbered(number("start_seq"))).unwrap_or(first);
        let end = number("end_timestamp").map(second_of).or_else(|| numbered(number("end_seq"))).unwrap_or(last);
        let end = end.min(last);
        let made: Vec<u64> = match &self.only {
            Some(only) => only.iter().copied().filter(|second| (start..=end).contains(second)).collect(),
            None => (start.max(first)..=end).collect(),
        };
        let mut page: Vec<u64> =
            made.into_iter().filter(|second| is_of_main(second) && !self.never.contains(second)).collect();
        let count = number("count").unwrap() as usize;
        let count = if by_currency { count.min(self.page) } else { count };
        let has_more = page.len() > count;
        if query("sorting").unwrap() == "desc" {
            page.reverse();
        }
        page.truncate(count);
        if is_history || self.shuffles {
            let middle = page.len() / 2;
            page.rotate_left(middle);
        }
        let trades: Vec<_> = page.iter().map(|second| self.trade(*second)).collect();
        format!(r#"{{"jsonrpc":"2.0","result":{{"trades":[{}],"has_more":{has_more}}}}}"#, trades.join(","))
    }

    fn trade(&self, second: u64) -> String {
        let price = if self.broken.contains(&second) { "" } else { r#""price":2722.5,"# };
        let number = self.renumbered.filter(|from| *from <= second).map_or(second, |from| second - from + 1);
        let (symbol, seq) = if self.options { (option(second), seq(second)) } else { (SYMBOL.to_owned(), number) };
        let millis = at(second).as_millis();
        format!(
            r#"{{"timestamp":{millis},{price}"amount":1.0e1,"direction":"buy","instrument_name":"{symbol}","trade_seq":{seq},"trade_id":"ETH-{second}"}}"#
        )
    }
}
