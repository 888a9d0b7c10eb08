//! Fetches the trades that were missed, from the main host and, where that has forgotten, from the history host.
//!
//! The main host remembers about a day and answers for older times *empty, without an error*. So an answer counts only
//! if it holds the trade at the edge of the gap: a host that still has that one has all behind it. Where that trade is
//! older than what the main host remembers, but all that can be missing is not, the time takes its place. The history host
//! keeps everything, but nothing says how soon; so of an end that is open it is believed only after the main host has
//! said what it has of the last day. Where neither knows the number, the time is asked for: the venue may have numbered
//! anew.

mod notes;
mod page;
mod sweep;

use std::time::Duration;

use tidegate_core::{
    Kind, Result,
    protocol::{Edge, Gap, Outbox, Remedy, Reply, Request},
    row::{Row, Timestamp, kinds},
};
use url::form_urlencoded;

pub(super) use self::page::each;
use self::{
    notes::{Host, Notes, Place},
    page::{Answer, Page},
    sweep::Sweeps,
};
use super::{
    channel::{Channel, Interval},
    config::Hosts,
    data::on_trades,
    message::Trade,
    pools::HISTORY,
    selection::later,
};

/// Which request fills which gap.
#[derive(Debug)]
pub(super) struct Backfill {
    hosts: Hosts,
    interval: Interval,
    notes: Notes,
    sweeps: Sweeps,
}

/// The most that both hosts give at once.
const PAGE: u64 = 1000;
/// Enough for the baseline of a moment ago; the next page follows where it is not.
const FRESH_PAGE: u64 = 100;
const FRESH: Duration = Duration::from_secs(60);

impl Backfill {
    pub(super) fn new(hosts: Hosts, interval: Interval) -> Self {
        let notes = Notes::new(hosts.history.is_some());
        Self { hosts, interval, notes, sweeps: Sweeps::default() }
    }

    /// Forgets what was asked in the last session: an answer from before this one proves nothing about its begin.
    pub(super) fn open(&mut self) {
        self.notes.clear();
        self.sweeps.clear();
    }

    /// Says what to do about the first of these gaps, and about those that can be done with it.
    pub(super) fn remedy(&mut self, gaps: &[Gap], now: Timestamp) -> Remedy {
        let Some(first) = gaps.first() else { return Remedy::Lost { gaps: Vec::new(), why: "there is no gap" } };
        let of_stream = || gaps.iter().filter(|gap| gap.stream == first.stream).map(|gap| gap.id).collect();
        if &*first.stream.table == kinds::BookChange::TABLE {
            let channel = Channel::BookChanges.name(&first.stream.symbol, self.interval).unwrap_or_default();
            return Remedy::Resubscribe { channel, gaps: of_stream() };
        }
        if &*first.stream.table != kinds::Trade::TABLE {
            return Remedy::Lost { gaps: of_stream(), why: "deribit keeps no history of it" };
        }
        if let Some(why) = self.notes.lost(first, now) {
            return Remedy::Lost { gaps: vec![first.id], why };
        }
        let swept = self.sweeps.request(&self.hosts.http, gaps, now, |gap| !self.notes.has(gap));
        let (request, gaps) = swept.unwrap_or_else(|| (self.request(first, now), vec![first.id]));
        Remedy::Fetch { request, gaps }
    }

    /// Returns the request for one gap: from its left edge on, or, where there is none, backwards from its right one, until
    /// that is not found by its number.
    fn request(&self, gap: &Gap, now: Timestamp) -> Request {
        let (host, pool) = match (self.notes.host(gap), &self.hosts.history) {
            (Host::History, Some(history)) => (history, Some(HISTORY)),
            (Host::Main | Host::History, _) => (&self.hosts.http, None),
        };
        let symbol: String = form_urlencoded::byte_serialize(gap.stream.symbol.as_bytes()).collect();
        let mut url = format!("{host}/public/get_last_trades_by_instrument?instrument_name={symbol}");
        let count = if gap.after.is_none() && later(gap.since, FRESH) >= now { FRESH_PAGE } else { PAGE };
        let goes_forwards = gap.after.is_some() || self.notes.is_by_time(gap, now);
        let sorting = if goes_forwards { "asc" } else { "desc" };
        url.push_str(&format!("&count={count}&sorting={sorting}"));
        match self.notes.begin(gap, now) {
            Some(Place::Number(begin)) if gap.after.is_some() => {
                url.push_str(&format!("&start_seq={begin}"));
                if let Some(end) = number(gap.before) {
                    url.push_str(&format!("&end_seq={end}"));
                }
            }
            Some(Place::Number(begin)) => url.push_str(&format!("&end_seq={begin}")),
            Some(Place::Time(begin) | Place::Since(begin)) => {
                url.push_str(&format!("&start_timestamp={}", begin.as_millis()));
                if let Some(before) = gap.before {
                    url.push_str(&format!("&end_timestamp={}", before.ts_event.as_millis()));
                }
            }
            None => {}
        }
        Request { pool, ..Request::get(url) }
    }

    /// Emits the trades of a reply, and says which gaps it answers.
    ///
    /// # Errors
    ///
    /// `Transient` when the venue wants to be asked later, `Malformed` when the reply is no page of trades, `Permanent` when
    /// it is the other exchange's.
    pub(super) fn on_reply(&mut self, reply: &Reply<'_>, gaps: &[Gap], now: Timestamp, out: &mut Outbox) -> Result<()> {
        let host = self.host(reply.request);
        let page = match Page::read(reply, &self.hosts, out) {
            Ok(Answer::Page(page)) => page,
            Ok(Answer::Unknown) => {
                self.refused(reply.request, out);
                self.notes.unknown(gaps, host, now);
                return Ok(());
            }
            Ok(Answer::Refused) => {
                self.refused(reply.request, out);
                self.notes.failed(gaps, host);
                return Ok(());
            }
            Err(error) => {
                // What is asked to come later is asked again by the driver.
                if error.kind() == Kind::Malformed {
                    self.sweeps.failed(reply.request);
                    self.notes.failed(gaps, host);
                }
                return Err(error);
            }
        };
        // What belongs to no gap would only make streams of instruments that nobody follows.
        let mut symbols = self.sweeps.symbols(reply.request);
        symbols.extend(gaps.iter().map(|gap| gap.stream.symbol.clone()));
        let is_asked_for = |trade: &Trade<'_>| symbols.contains(&*trade.instrument_name);
        if let Some(end) = self.sweeps.on_page(reply.request, &page, gaps) {
            on_trades(page.trades.iter().filter(|trade| is_asked_for(trade)), out);
            end.answered.into_iter().for_each(|gap| out.answered(gap));
            self.notes.failed_sweep(&end.left);
            return Ok(());
        }
        // Of a baseline, only the newest trade before its time is wanted, and what follows.
        let baseline = gaps.iter().find(|gap| gap.after.is_none());
        let first = baseline.map_or(0, |gap| page.neighbour(gap));
        on_trades(page.trades[first..].iter().filter(|trade| is_asked_for(trade)), out);
        for gap in gaps {
            if self.notes.on_page(gap, &page, host, now) {
                out.answered(gap.id);
            }
        }
        Ok(())
    }

    fn refused(&mut self, request: &Request, out: &mut Outbox) {
        out.ignore("a request for trades that was refused");
        self.sweeps.failed(request);
    }

    fn host(&self, request: &Request) -> Host {
        let rest = self.hosts.history.as_ref().and_then(|history| request.url.strip_prefix(history.as_str()));
        if rest.is_some_and(|rest| rest.starts_with("/public/")) { Host::History } else { Host::Main }
    }
}

fn number(edge: Option<Edge>) -> Option<u64> {
    edge.and_then(|edge| edge.position.number())
}
