//! Which instruments to follow: asks the venue for its lists, ranks them, and knows when to choose anew.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    time::Duration,
};

use serde_json::value::RawValue;
use tidegate_core::{
    Error, Result,
    protocol::{Outbox, Request},
    row::Timestamp,
};

use super::{
    config::{Measure, Selector},
    instrument::{Kind, is_name},
    message::{Instrument, Summary, read},
    pools::INSTRUMENTS,
    value::{Lenient, present},
};

/// The instruments of all selectors, and the discovery that is under way.
#[derive(Debug, Default)]
pub(super) struct Selection {
    chosen: Vec<Chosen>,
    /// How often all selectors were told to choose anew, those included whose refresh has not come.
    told: u64,
    /// Up to which of these they have.
    heeded: u64,
    /// Those that choose in the discovery under way, and what `told` was when it began.
    choosing: (Vec<usize>, u64),
    questions: VecDeque<Question>,
    lists: HashMap<Market, Lists>,
    /// What was chosen until it had ended: expired, or taken from the venue's lists.
    ended: BTreeSet<String>,
}

/// What one selector chose last.
#[derive(Debug)]
struct Chosen {
    selector: Selector,
    /// Best first.
    names: Vec<String>,
    at: Option<Timestamp>,
    /// When the first instrument of this kind expires.
    next_expiry: Option<Timestamp>,
    /// When the last one that was chosen expires.
    last_expiry: Option<Timestamp>,
}

type Market = (String, Kind);

#[derive(Debug, PartialEq)]
enum Question {
    Instruments(Market),
    Summaries(Market),
}

/// What the venue lists of one kind.
#[derive(Debug, Default)]
struct Lists {
    instruments: Vec<Listed>,
    measures: HashMap<String, Measures>,
}

#[derive(Debug, Clone, PartialEq)]
struct Listed {
    name: String,
    expires: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Measures {
    open_interest: Option<f64>,
    volume: Option<f64>,
}

/// How often names are asked for again that the venue does not have.
const REFRESH_OF_NAMES: Duration = Duration::from_secs(3600);
/// New dailies are listed around 08:00 UTC, and what has expired is gone from the lists a little later.
const AFTER_EXPIRY: Duration = Duration::from_secs(60);

impl Selection {
    pub(super) fn new(selectors: impl Iterator<Item = Selector>) -> Self {
        let chosen = selectors.map(|selector| Chosen {
            selector,
            names: Vec::new(),
            at: None,
            next_expiry: None,
            last_expiry: None,
        });
        Self { chosen: chosen.collect(), ..Self::default() }
    }

    /// Returns how often the driver must ask: as the fastest selector wants; what names alone need is that those which were
    /// refused are asked for again.
    pub(super) fn refresh(&self) -> Duration {
        self.chosen.iter().map(|chosen| chosen.selector.refresh.0).min().unwrap_or(REFRESH_OF_NAMES)
    }

    /// Makes the next discovery choose for every selector.
    pub(super) fn choose_all(&mut self) {
        self.told += 1;
    }

    /// Begins a discovery.
    pub(super) fn begin(&mut self, now: Timestamp) {
        self.questions.clear();
        self.lists.clear();
        let all = self.told > self.heeded;
        let due = self.chosen.iter().enumerate().filter(|(_, chosen)| all || chosen.is_due(now));
        self.choosing = (due.map(|(number, _)| number).collect(), self.told);
        for &number in &self.choosing.0 {
            let selector = &self.chosen[number].selector;
            let mut ask = |question| {
                if !self.questions.contains(&question) {
                    self.questions.push_back(question);
                }
            };
            ask(Question::Instruments(selector.market()));
            if selector.top.is_some() {
                ask(Question::Summaries(selector.market()));
            }
        }
    }

    /// Returns the next request of the discovery.
    pub(super) fn request(&self, http: &str) -> Option<Request> {
        let (method, (currency, kind), pool) = match self.questions.front()? {
            Question::Instruments(market) => ("get_instruments", market, Some(INSTRUMENTS)),
            Question::Summaries(market) => ("get_book_summary_by_currency", market, None),
        };
        let url = format!("{http}/public/{method}?currency={currency}&kind={}", kind.name());
        Some(Request { pool, ..Request::get(url) })
    }

    /// Takes the result of that request.
    ///
    /// # Errors
    ///
    /// `Malformed` when it is no list.
    pub(super) fn answer(&mut self, result: &RawValue, out: &mut Outbox) -> Result<()> {
        let Some(question) = self.questions.front() else { return Ok(()) };
        let elements: Vec<&RawValue> = read(result.get())?;
        let (Question::Instruments(market) | Question::Summaries(market)) = question;
        let lists = self.lists.entry(market.clone()).or_default();
        for element in elements {
            let outcome = match question {
                Question::Instruments(_) => read(element.get()).map(|instrument| lists.list(&instrument, out)),
                Question::Summaries(_) => read(element.get()).map(|summary| lists.measure(&summary)),
            };
            if let Err(error) = outcome {
                out.reject(element.get(), &error);
            }
        }
        self.questions.pop_front();
        Ok(())
    }

    /// Ends the discovery, and says what has changed.
    ///
    /// # Errors
    ///
    /// `Transient` when what the venue answered cannot be: the choice stays as it is.
    pub(super) fn choose(&mut self, now: Timestamp, out: &mut Outbox) -> Result<()> {
        let (choosing, told) = std::mem::take(&mut self.choosing);
        for &number in &choosing {
            let chosen = &self.chosen[number];
            if let Some(lists) = self.lists.get(&chosen.selector.market()) {
                chosen.doubt(lists, now)?;
            }
        }
        let before: BTreeSet<String> = self.names().map(str::to_owned).collect();
        if self.ended.len() > MOST_ENDED {
            self.ended.clear();
        }
        for number in choosing {
            let chosen = &mut self.chosen[number];
            if let Some(lists) = self.lists.get(&chosen.selector.market()) {
                self.ended.retain(|name| !lists.has(name, now));
                self.ended.extend(chosen.names.iter().filter(|name| !lists.has(name, now)).cloned());
                chosen.choose(lists, now);
            }
        }
        self.lists.clear();
        self.heeded = told;
        let after: BTreeSet<String> = self.names().map(str::to_owned).collect();
        tell_change(&before, &after, out);
        out.lacking(self.lacking());
        Ok(())
    }

    /// Names the selectors that find nothing.
    fn lacking(&self) -> Option<String> {
        let nothing = (1..).zip(&self.chosen).filter(|(_, chosen)| chosen.names.is_empty());
        let nothing: Vec<String> = nothing
            .map(|(number, chosen)| {
                let Selector { currency, kind, .. } = &chosen.selector;
                format!("selector {number} of `instruments` (`{currency}`, `{}`)", kind.name())
            })
            .collect();
        (!nothing.is_empty()).then(|| format!("the venue has nothing for {}; asked again", nothing.join(", ")))
    }

    /// Returns whether every selector has chosen at least once.
    pub(super) fn has_chosen(&self) -> bool {
        self.chosen.iter().all(|chosen| chosen.at.is_some())
    }

    /// Returns what was chosen, selector by selector, best first.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.chosen.iter().flat_map(|chosen| chosen.names.iter().map(String::as_str))
    }

    /// Returns whether an instrument was chosen until it had ended, and not until others ranked higher.
    pub(super) fn has_ended(&self, name: &str) -> bool {
        self.ended.contains(name)
    }

    /// Returns when it is necessary to choose anew: after an expiry, or when a selector is due for which the driver, who
    /// keeps the pace of the fastest, would come too late.
    pub(super) fn next_choice(&self) -> Option<Timestamp> {
        let expiries = self.chosen.iter().filter_map(|chosen| chosen.next_expiry);
        let slower = self.chosen.iter().filter(|chosen| chosen.selector.refresh.0 > self.refresh());
        let refreshes = slower.filter_map(|chosen| Some(later(chosen.at?, chosen.selector.refresh.0)));
        expiries.map(|expiry| later(expiry, AFTER_EXPIRY)).chain(refreshes).min()
    }
}

impl Selector {
    fn market(&self) -> Market {
        (self.currency.clone(), self.kind)
    }
}

impl Chosen {
    /// A driver's timer may be a little early, and a clock may have been set back.
    fn is_due(&self, now: Timestamp) -> bool {
        let Some(at) = self.at else { return true };
        let refresh = self.selector.refresh.0;
        let has_expired = self.next_expiry.is_some_and(|expiry| later(expiry, AFTER_EXPIRY) <= now);
        now < at || now >= later(at, refresh - refresh / 20) || has_expired
    }

    /// Refuses lists that would end a feed for no reason: an empty one while something chosen lives, and ranks of nothing.
    fn doubt(&self, lists: &Lists, now: Timestamp) -> Result<()> {
        let Selector { currency, kind, top, .. } = &self.selector;
        let what = format!("`{currency}`, `{}`", kind.name());
        if lists.instruments.is_empty() && self.last_expiry.is_some_and(|last| last > now) {
            return Err(Error::transient(format!(
                "the venue lists nothing of {what}, which cannot be: the choice is kept"
            )));
        }
        let is_ranked = |listed: &Listed| lists.measures.contains_key(&listed.name);
        if top.is_some() && !lists.instruments.is_empty() && !lists.instruments.iter().any(is_ranked) {
            return Err(Error::transient(format!("the venue has measures of nothing that it lists of {what}")));
        }
        Ok(())
    }

    fn choose(&mut self, lists: &Lists, now: Timestamp) {
        self.names = choose(&self.selector, lists, &self.names, now);
        self.at = Some(now);
        let expiries = || lists.instruments.iter().map(|listed| listed.expires);
        // One that has just passed may be gone from the list, and still has its minute to come.
        let passing = self.next_expiry.filter(|expiry| later(*expiry, AFTER_EXPIRY) > now);
        let next = expiries().filter(|at| *at > now && *at < NEVER);
        self.next_expiry = passing.into_iter().chain(next).min();
        let chosen = lists.instruments.iter().filter(|listed| self.names.contains(&listed.name));
        self.last_expiry = chosen.map(|listed| listed.expires).max();
    }
}

impl Lists {
    fn has(&self, name: &str, now: Timestamp) -> bool {
        self.instruments.iter().any(|listed| listed.name == name && listed.expires > now)
    }

    fn list(&mut self, instrument: &Instrument<'_>, out: &mut Outbox) {
        if !is_name(&instrument.instrument_name) {
            out.ignore("an instrument with a strange name");
            return;
        }
        // Locked, halted and settling ones come back; at 08:00 UTC all of them settle at once.
        let state = present(instrument.state.as_ref()).unwrap_or_default();
        let is_over = if state.is_empty() { instrument.is_active == Some(false) } else { OVER.contains(&state) };
        if is_over {
            return;
        }
        let expires = match instrument.expiration_timestamp {
            Lenient::Number(millis) => Timestamp::from_millis(millis),
            Lenient::Absent | Lenient::Odd => NEVER,
        };
        self.instruments.push(Listed { name: instrument.instrument_name.to_string(), expires });
    }

    fn measure(&mut self, summary: &Summary<'_>) {
        // A measure that is no number ranks like none at all.
        let mut odd = 0;
        let measures =
            Measures { open_interest: summary.open_interest.get(&mut odd), volume: summary.volume.get(&mut odd) };
        self.measures.insert(summary.instrument_name.to_string(), measures);
    }
}

/// So many that have ended are remembered: who asks does so at once.
const MOST_ENDED: usize = 10_000;

/// Perpetuals expire in the year 3000, which is beyond the last time that there is.
const NEVER: Timestamp = Timestamp(i64::MAX);

/// States from which an instrument does not come back: since 13 January 2026, and before.
const OVER: [&str; 7] = ["delivered", "archivized", "inactive", "settled", "closed", "deactivated", "terminated"];

/// Chooses the names, best first: those at the top, and those that are in and have not fallen too far.
fn choose(selector: &Selector, lists: &Lists, held: &[String], now: Timestamp) -> Vec<String> {
    let is_held = |listed: &Listed| held.contains(&listed.name);
    let lives = |listed: &Listed| match selector.expires_in {
        Some(left) if !is_held(listed) => listed.expires > later(now, left.0.0),
        _ => listed.expires > now,
    };
    let mut ranked: Vec<&Listed> = lists.instruments.iter().filter(|listed| lives(listed)).collect();
    let Some(top) = selector.top else {
        ranked.sort_by(|a, b| a.name.cmp(&b.name));
        return names(&ranked);
    };
    let rank = |listed: &Listed| lists.rank(listed, selector.by.unwrap_or_default());
    ranked.sort_by(|a, b| {
        let ((a_first, a_second), (b_first, b_second)) = (rank(a), rank(b));
        b_first.total_cmp(&a_first).then(b_second.total_cmp(&a_second)).then_with(|| a.name.cmp(&b.name))
    });
    let leave_at = selector.leave_at(top);
    let mut place = 0;
    ranked.retain(|listed| {
        place += 1;
        place <= top.get() || (place <= leave_at && is_held(listed))
    });
    names(&ranked)
}

fn names(listed: &[&Listed]) -> Vec<String> {
    listed.iter().map(|listed| listed.name.clone()).collect()
}

impl Lists {
    /// Returns the two measures, the one that counts first; what has none comes last.
    fn rank(&self, listed: &Listed, by: Measure) -> (f64, f64) {
        let measures = self.measures.get(&listed.name);
        let open_interest = measures.and_then(|measures| measures.open_interest).unwrap_or(f64::NEG_INFINITY);
        let volume = measures.and_then(|measures| measures.volume).unwrap_or(f64::NEG_INFINITY);
        match by {
            Measure::OpenInterest => (open_interest, volume),
            Measure::Volume => (volume, open_interest),
        }
    }
}

/// Says who came in and who left; of the first choice, how many there are.
fn tell_change(before: &BTreeSet<String>, after: &BTreeSet<String>, out: &mut Outbox) {
    let changes = told("new", after.difference(before)) + &told("left", before.difference(after));
    if !changes.is_empty() {
        let changes = if before.is_empty() { "" } else { &changes };
        out.tell("chosen", format!("{} instruments{changes}", after.len()));
    }
}

/// Returns how many there are and their names, not all of very many; nothing where there is none.
fn told<'n>(what: &str, names: impl Iterator<Item = &'n String>) -> String {
    let names: Vec<&str> = names.map(String::as_str).collect();
    if names.is_empty() {
        return String::new();
    }
    let shown = names[..names.len().min(MOST_TOLD)].join(", ");
    let more = names.len().saturating_sub(MOST_TOLD);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    format!("; {} {what}: {shown}{more}", names.len())
}

/// So many names stand in a line of the log.
const MOST_TOLD: usize = 20;

/// Returns the time after a pause.
pub(super) fn later(at: Timestamp, pause: Duration) -> Timestamp {
    Timestamp(at.0.saturating_add(i64::try_from(pause.as_nanos()).unwrap_or(i64::MAX)))
}
