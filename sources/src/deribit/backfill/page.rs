//! A page of trades.

use serde_json::value::RawValue;
use tidegate_core::{
    Error, Result,
    protocol::{Edge, Gap, Outbox, Reply},
};

use super::super::{
    config::Hosts,
    message::{self, Message, Trade, read},
    refusal::Verdict,
};

/// What a host answered.
pub(super) enum Answer<'a> {
    /// Trades, or none.
    Page(Page<'a>),
    /// The host does not know the instrument.
    Unknown,
    /// No answer to the question: a refusal, or a web page.
    Refused,
}

/// A page of trades, sorted by time and number: the history host sends them in any order.
pub(super) struct Page<'a> {
    pub(super) trades: Vec<Trade<'a>>,
    /// Whether there are more in the direction of the request.
    pub(super) has_more: bool,
    /// Whether the venue sent them with growing numbers.
    pub(super) is_sorted: bool,
    /// Whether the venue sent them with times that do not go back.
    pub(super) is_in_time: bool,
    /// Whether some could not be read. They are kept raw.
    pub(super) is_partial: bool,
}

impl<'a> Page<'a> {
    /// Reads a reply.
    ///
    /// # Errors
    ///
    /// `Transient` when the venue wants to be asked later, `Malformed` when the reply is no page of trades, `Permanent` when
    /// it is the other exchange's.
    pub(super) fn read(reply: &Reply<'a>, hosts: &Hosts, out: &mut Outbox) -> Result<Answer<'a>> {
        let is_success = (200..300).contains(&reply.status);
        let message: Message<'a> = match serde_json::from_slice(reply.body) {
            Ok(message) => message,
            Err(error) if is_success => return Err(Error::malformed(error.to_string())),
            // A proxy's page of HTML.
            Err(_) => return Ok(Answer::Refused),
        };
        hosts.check_venue(message.testnet)?;
        if let Some(refusal) = message.error {
            return match refusal.verdict() {
                Verdict::Later(_) | Verdict::SessionOver(_) => Err(refusal.error()),
                Verdict::NoInstrument => Ok(Answer::Unknown),
                Verdict::Never | Verdict::NotLoggedIn | Verdict::LoginOver | Verdict::OurFault => Ok(Answer::Refused),
            };
        }
        let Some(result) = message.result.filter(|_| is_success) else {
            return Err(Error::malformed(format!("a reply with status {} and without `result`", reply.status)));
        };
        let page: message::Page<'a> = read(result.get())?;
        let (trades, is_partial) = each(&page.trades, |_| Ok(()), out);
        let is_sorted = trades.is_sorted_by(|a, b| a.trade_seq < b.trade_seq);
        let is_in_time = trades.is_sorted_by_key(|trade| trade.ts_event());
        let mut page = Self { trades, has_more: page.has_more, is_sorted, is_in_time, is_partial };
        page.trades.sort_by_key(|trade| (trade.ts_event(), trade.trade_seq));
        Ok(Answer::Page(page))
    }

    /// Returns the trades of a gap's instrument.
    pub(super) fn of<'p>(&'p self, gap: &'p Gap) -> impl Iterator<Item = &'p Trade<'a>> {
        self.trades.iter().filter(|trade| trade.is_of(&gap.stream))
    }

    /// Returns whether this trade of the gap's instrument is there, and not another one with its number.
    pub(super) fn holds(&self, gap: &Gap, edge: Edge) -> bool {
        let is_it = |trade: &Trade<'_>| Some(trade.trade_seq.0) == edge.position.number() && is_near(trade, edge);
        self.of(gap).any(is_it)
    }

    /// Returns where the newest trade before the gap's time stands.
    pub(super) fn neighbour(&self, gap: &Gap) -> usize {
        self.trades.iter().rposition(|trade| trade.ts_event() < gap.since).unwrap_or(0)
    }
}

/// Returns whether a trade is of the time of an edge. A live trade and the same in the history should have one time.
fn is_near(trade: &Trade<'_>, edge: Edge) -> bool {
    trade.ts_event().0.abs_diff(edge.ts_event.0) <= 1_000_000_000
}

/// Reads trades one by one, rejecting those that cannot be read or do not fit; says whether there were such. The first are
/// kept one by one, and if there are many more, those together: a frame of nothing else is no million of them.
pub(in super::super) fn each<'a>(
    raw: &[&'a RawValue],
    fits: impl Fn(&Trade<'a>) -> Result<()>,
    out: &mut Outbox,
) -> (Vec<Trade<'a>>, bool) {
    let mut trades = Vec::with_capacity(raw.len());
    let mut rejected = 0;
    let mut others: Option<(String, Error)> = None;
    for raw in raw {
        match read(raw.get()).and_then(|trade| fits(&trade).map(|()| trade)) {
            Ok(trade) => trades.push(trade),
            Err(error) if rejected < ONE_BY_ONE => {
                rejected += 1;
                out.reject(raw.get(), &error);
            }
            Err(error) => {
                let (others, _) = others.get_or_insert_with(|| (String::new(), error));
                others.push(if others.is_empty() { '[' } else { ',' });
                others.push_str(raw.get());
            }
        }
    }
    if let Some((others, error)) = others {
        out.reject(others + "]", &error);
    }
    let is_partial = trades.len() < raw.len();
    (trades, is_partial)
}

/// So many of a frame are kept one by one where they cannot be read.
const ONE_BY_ONE: usize = 16;
