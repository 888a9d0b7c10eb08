//! The trades that REST gives: filters, order, pages, and what each host remembers.

use std::cmp::Reverse;

use super::{
    channel::{Kind, is_currency},
    instrument::CURRENCY,
    numbers::{Object, write_array},
    oracle::{Oracle, Trade},
    payload::write_trade,
    random::mix,
    rpc::{Params, RpcError},
};

/// Which of the two REST hosts answers. The WebSocket answers as the main one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Host {
    /// Knows trades between two moments, and says no word of others.
    Main { from_ms: i64, to_ms: i64 },
    /// Remembers everything, in pages of its own manner.
    History,
}

type Row<'a> = (&'a str, &'a Trade);

/// Answers `public/get_last_trades_by_instrument` and its `_and_time`.
///
/// Sequence numbers are those of the present numbering; a range of time covers every one.
pub(super) fn by_instrument(oracle: &Oracle, host: Host, params: &Params, timed: bool) -> Result<String, RpcError> {
    let name = params.required_text("instrument_name")?;
    let page = Page::read(params, host, timed)?;
    let (first, last) = (params.integer("start_seq")?, params.integer("end_seq")?);
    let Some((name, trades)) = oracle.trades.get_key_value(name) else {
        return Err(RpcError::invalid("instrument_name", "instrument not found"));
    };

    let epoch = oracle.mark(name).epoch;
    let numbered = first.is_some() || last.is_some();
    let in_range = |trade: &Trade| {
        let seq = i64::try_from(trade.seq).unwrap_or(i64::MAX);
        !numbered
            || (trade.epoch == epoch && first.is_none_or(|first| seq >= first) && last.is_none_or(|last| seq <= last))
    };
    let mut rows: Vec<Row<'_>> =
        trades.iter().filter(|trade| in_range(trade)).map(|trade| (name.as_str(), trade)).collect();
    if host == Host::History && numbered {
        rows = widened(name, trades, &rows);
    }
    Ok(page.write(rows, host))
}

/// Answers `public/get_last_trades_by_currency` and its `_and_time`.
pub(super) fn by_currency(oracle: &Oracle, host: Host, params: &Params, timed: bool) -> Result<String, RpcError> {
    if !is_currency(params.required_text("currency")?) {
        return Ok(Page::read(params, host, timed)?.write(Vec::new(), host));
    }
    let kind =
        Kind::parse(params.text("kind").unwrap_or("any")).ok_or_else(|| RpcError::invalid("kind", "unknown kind"))?;
    let page = Page::read(params, host, timed)?;
    let (first, last) = (trade_id(params, "start_id")?, trade_id(params, "end_id")?);

    let of_kind = oracle.instruments.iter().filter(|listed| kind.includes(listed.instrument.option.is_some()));
    let mut rows: Vec<Row<'_>> = Vec::new();
    for listed in of_kind {
        let name = listed.instrument.name.as_str();
        let trades = oracle.trades.get(name).into_iter().flatten();
        let in_range = |trade: &&Trade| first.is_none_or(|id| trade.id >= id) && last.is_none_or(|id| trade.id <= id);
        rows.extend(trades.filter(in_range).map(|trade| (name, trade)));
    }
    Ok(page.write(rows, host))
}

/// The history host widens a range of sequence numbers to whole milliseconds, so that neighbours come along.
fn widened<'a>(name: &'a str, trades: &'a [Trade], rows: &[Row<'_>]) -> Vec<Row<'a>> {
    let times = || rows.iter().map(|(_, trade)| trade.timestamp);
    let (Some(first), Some(last)) = (times().min(), times().max()) else { return Vec::new() };
    trades.iter().filter(|trade| (first..=last).contains(&trade.timestamp)).map(|trade| (name, trade)).collect()
}

fn trade_id(params: &Params, key: &'static str) -> Result<Option<u64>, RpcError> {
    let Some(text) = params.text(key) else { return Ok(None) };
    let number = text.strip_prefix(CURRENCY).and_then(|rest| rest.strip_prefix('-')).unwrap_or(text);
    number.parse().map(Some).map_err(|_| RpcError::invalid(key, "wrong format"))
}

/// What part of the matching rows is wanted, and in which order.
#[derive(Debug)]
struct Page {
    count: usize,
    sorting: Sorting,
    from_ms: Option<i64>,
    to_ms: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sorting {
    Ascending,
    Descending,
    /// The newest rows, in the order in which a database happened to have them.
    Unsorted,
}

impl Page {
    fn read(params: &Params, host: Host, timed: bool) -> Result<Self, RpcError> {
        let most = if host == Host::History { 10_000 } else { 1000 };
        let count = params.integer("count")?.unwrap_or(10);
        if !(1..=most).contains(&count) {
            return Err(RpcError::invalid("count", format!("value must be in 1..{most}")));
        }
        let sorting = match params.text("sorting") {
            Some("asc") => Sorting::Ascending,
            Some("desc") => Sorting::Descending,
            Some("default") | None => Sorting::Unsorted,
            Some(_) => return Err(RpcError::invalid("sorting", "value must be asc, desc or default")),
        };
        let (from_ms, to_ms) = (params.integer("start_timestamp")?, params.integer("end_timestamp")?);
        if timed && from_ms.is_none() {
            return Err(RpcError::invalid("start_timestamp", "value required"));
        }
        if timed && to_ms.is_none() {
            return Err(RpcError::invalid("end_timestamp", "value required"));
        }
        let count = usize::try_from(count).expect("between 1 and 10,000");
        Ok(Self { count, sorting, from_ms, to_ms })
    }

    fn write(&self, mut rows: Vec<Row<'_>>, host: Host) -> String {
        rows.retain(|(_, trade)| self.from_ms.is_none_or(|from| trade.timestamp >= from));
        rows.retain(|(_, trade)| self.to_ms.is_none_or(|to| trade.timestamp <= to));
        if let Host::Main { from_ms, to_ms } = host {
            rows.retain(|(_, trade)| (from_ms..=to_ms).contains(&trade.timestamp));
        }
        match self.sorting {
            Sorting::Ascending => rows.sort_by_key(|(_, trade)| trade.id),
            Sorting::Descending | Sorting::Unsorted => rows.sort_by_key(|(_, trade)| Reverse(trade.id)),
        }
        let found = rows.len();
        rows.truncate(self.count);
        if host == Host::History || self.sorting == Sorting::Unsorted {
            rows.sort_by_key(|(_, trade)| mix(trade.id));
        }

        // The history host says that there is more whenever the page is full.
        let has_more = if host == Host::History { found >= self.count } else { found > self.count };
        let mut out = String::new();
        let live = host != Host::History;
        Object::begin(&mut out)
            .with("trades", |out| write_array(out, rows, |out, (name, trade)| write_trade(out, name, trade, live)))
            .flag("has_more", has_more)
            .end();
        out
    }
}
