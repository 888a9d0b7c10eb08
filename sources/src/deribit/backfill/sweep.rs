//! One request for many gaps: after a cut, the trades of the last minutes of a whole market are one page or two, where
//! asking instrument by instrument takes a request for each.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use tidegate_core::{
    protocol::{Gap, GapId, Request},
    row::{Row, Timestamp, kinds},
};

use super::{
    super::{
        instrument::{Kind, expiry, market},
        selection::later,
    },
    PAGE, number,
    page::Page,
};

/// The sweeps that are under way.
#[derive(Debug, Default)]
pub(super) struct Sweeps(Vec<Sweep>);

/// A walk in time over the trades of one market.
#[derive(Debug)]
struct Sweep {
    currency: String,
    kind: Kind,
    /// The time of the next page, in milliseconds.
    from: i64,
    pages: usize,
    /// The time of the oldest trade that came: the main host remembers what was made since.
    oldest: Option<Timestamp>,
    gaps: HashMap<GapId, Seen>,
    /// The request that is out.
    asked: String,
}

/// A gap of a sweep, and which of its edges the pages have held so far.
#[derive(Debug)]
struct Seen {
    symbol: Arc<str>,
    after: bool,
    before: bool,
}

/// What a page did.
#[derive(Debug, Default)]
pub(super) struct End {
    /// Gaps whose answer is complete.
    pub(super) answered: Vec<GapId>,
    /// Gaps that the sweep could not answer.
    pub(super) left: Vec<GapId>,
}

/// Fewer gaps are asked for one by one.
const WORTH_IT: usize = 10;
/// An older gap would make the walk long.
const RECENT: Duration = Duration::from_secs(3600);
/// The walk begins this much before the last trade, so that it holds that.
const OVERLAP: Duration = Duration::from_secs(1);
/// And this much before the time up to which a session has vouched: a trade of then, of any instrument, shows that the host
/// remembers it.
const SHOWN: Duration = Duration::from_secs(300);
/// An instrument that has expired, or does so before this time has passed, is asked for by its name.
const EXPIRES: Duration = Duration::from_secs(900);
/// More are forgotten, and their gaps asked for one by one.
const MOST: usize = 16;

impl Sweeps {
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Returns the request for the first of the gaps and those that go with it, if they are worth a sweep.
    pub(super) fn request(
        &mut self,
        main: &str,
        gaps: &[Gap],
        now: Timestamp,
        may_join: impl Fn(&Gap) -> bool,
    ) -> Option<(Request, Vec<GapId>)> {
        let first = gaps.first()?;
        if let Some(sweep) = self.0.iter_mut().find(|sweep| sweep.gaps.contains_key(&first.id)) {
            let gaps = gaps.iter().map(|gap| gap.id).filter(|gap| sweep.gaps.contains_key(gap)).collect();
            return Some((sweep.request(main), gaps));
        }
        let market_of = |gap: &Gap| {
            let market = market(&gap.stream.symbol)?;
            matches!(market.kind, Kind::Option | Kind::Future | Kind::Spot)
                .then(|| (market.currency.to_owned(), market.kind))
        };
        let (currency, kind) = market_of(first)?;
        let joins = |gap: &&Gap| {
            let is_recent = gap.after.is_some() && later(gap.since, RECENT) > now;
            let is_free = may_join(gap) && !self.0.iter().any(|sweep| sweep.gaps.contains_key(&gap.id));
            let is_here = market_of(gap).is_some_and(|(of, kind_of)| of == currency && kind_of == kind);
            // Whether the lists of a market still have it then is written nowhere.
            let lives = expiry(&gap.stream.symbol).is_none_or(|expiry| later(now, EXPIRES) < expiry);
            &*gap.stream.table == kinds::Trade::TABLE && is_recent && is_free && is_here && lives
        };
        if !joins(&first) {
            return None;
        }
        let joined: Vec<&Gap> = gaps.iter().filter(joins).collect();
        if joined.len() <= WORTH_IT {
            return None;
        }
        let from = joined.iter().map(|gap| begin(gap)).min().unwrap_or_default();
        let ids: Vec<GapId> = joined.iter().map(|gap| gap.id).collect();
        let unseen = |gap: &&Gap| (gap.id, Seen { symbol: gap.stream.symbol.clone(), after: false, before: false });
        let seen = joined.iter().map(unseen).collect();
        let mut sweep = Sweep { currency, kind, from, pages: 0, oldest: None, gaps: seen, asked: String::new() };
        let request = sweep.request(main);
        if self.0.len() >= MOST {
            self.0.remove(0);
        }
        self.0.push(sweep);
        Some((request, ids))
    }

    /// Returns the instruments of the sweep that a request is a page of: of all its gaps, since which of them the request
    /// names depends on which were due, and what one page has no other brings.
    pub(super) fn symbols(&self, request: &Request) -> HashSet<Arc<str>> {
        let sweep = self.0.iter().find(|sweep| sweep.asked == request.url);
        sweep.into_iter().flat_map(|sweep| sweep.gaps.values()).map(|seen| seen.symbol.clone()).collect()
    }

    /// Takes a page, if it belongs to a sweep.
    pub(super) fn on_page(&mut self, request: &Request, page: &Page<'_>, gaps: &[Gap]) -> Option<End> {
        let place = self.0.iter().position(|sweep| sweep.asked == request.url)?;
        let sweep = &mut self.0[place];
        sweep.pages += 1;
        let numbers: HashSet<(&str, u64)> =
            page.trades.iter().map(|trade| (&*trade.instrument_name, trade.trade_seq.0)).collect();
        for gap in gaps {
            let Some(seen) = sweep.gaps.get_mut(&gap.id) else { continue };
            let holds = |edge| number(edge).is_some_and(|number| numbers.contains(&(&*gap.stream.symbol, number)));
            seen.after |= holds(gap.after);
            seen.before |= holds(gap.before);
        }
        let oldest = page.trades.iter().map(|trade| trade.ts_event()).min();
        sweep.oldest = sweep.oldest.into_iter().chain(oldest).min();
        let newest = page.trades.iter().map(|trade| trade.ts_event().as_millis()).max().unwrap_or_default();
        // A walk that needs more requests than its gaps would is given up, and so is one that does not move, or whose pages
        // do not say up to when they hold all.
        let is_stuck = newest <= sweep.from || sweep.pages * 2 > sweep.gaps.len() || !page.is_in_time;
        if page.has_more && !page.is_partial && !is_stuck {
            sweep.from = newest;
            return Some(End::default());
        }
        let sweep = self.0.remove(place);
        if page.has_more || page.is_partial {
            return Some(End { answered: Vec::new(), left: sweep.gaps.into_keys().collect() });
        }
        // The walk has covered all that may be missing behind the last known trades; between two, both have to be shown.
        let is_whole = |gap: &&Gap| {
            let is_remembered = sweep.oldest.is_some_and(|oldest| oldest <= gap.since);
            let is_shown = |seen: &Seen| match gap.before {
                Some(_) => seen.after && seen.before,
                None => seen.after || (is_vouched(gap) && is_remembered),
            };
            sweep.gaps.get(&gap.id).is_some_and(is_shown)
        };
        let answered: Vec<GapId> = gaps.iter().filter(is_whole).map(|gap| gap.id).collect();
        let left = sweep.gaps.keys().filter(|gap| !answered.contains(gap)).copied().collect();
        Some(End { answered, left })
    }

    /// Ends the sweep whose request came to nothing.
    pub(super) fn failed(&mut self, request: &Request) {
        self.0.retain(|sweep| sweep.asked != request.url);
    }
}

impl Sweep {
    fn request(&mut self, main: &str) -> Request {
        let Self { currency, kind, from, .. } = self;
        let kind = kind.name();
        self.asked = format!(
            "{main}/public/get_last_trades_by_currency?currency={currency}&kind={kind}&start_timestamp={from}&count={PAGE}&sorting=asc"
        );
        Request::get(self.asked.clone())
    }
}

/// Returns whether sessions have vouched for the time behind a gap's last trade.
fn is_vouched(gap: &Gap) -> bool {
    gap.after.is_some_and(|after| after.ts_event < gap.since)
}

/// Returns where a walk has to begin for a gap, in milliseconds.
fn begin(gap: &Gap) -> i64 {
    let overlap = if is_vouched(gap) { SHOWN } else { OVERLAP };
    gap.since.as_millis() - overlap.as_millis() as i64
}
