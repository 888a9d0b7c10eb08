//! The events that the oracle is a fold over: applied as they happen, and again when the file is read.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    channel::{Channel, Topic},
    instrument::Instrument,
    oracle::{BookKey, Ended, Handed, Listed, Mark, Oracle, Session, Subscription, Trade},
};

/// What has happened, as it is folded and as it is written to the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Event {
    /// The venue started; `version` is that of the file.
    Started {
        version: u32,
        seed: u64,
    },
    Listed(Instrument),
    Expired {
        instrument: String,
    },
    Restarted {
        instrument: String,
        epoch: u32,
    },
    /// `past`: made up at the first start, so that the venue has a history.
    Trade {
        instrument: String,
        trade: Trade,
        past: bool,
    },
    Opened {
        session: u64,
    },
    Confirmed {
        session: u64,
        channel: String,
        from: BTreeMap<String, Mark>,
    },
    Unsubscribed {
        session: u64,
        channel: String,
    },
    Sent {
        session: u64,
        frames: SentFrames,
    },
    Ended {
        session: u64,
        why: String,
    },
}

/// What was handed to a socket at once.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct SentFrames {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) tickers: Vec<(String, f64)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) quotes: Vec<(String, i64)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) books: Vec<(String, BookKey)>,
}

/// What the venue must not use again.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Highest {
    pub(super) volume: BTreeMap<String, f64>,
    pub(super) quote: BTreeMap<String, i64>,
    pub(super) change_id: u64,
    pub(super) trade_id: u64,
    /// When the last event happened.
    pub(super) at_ms: i64,
}

impl Oracle {
    /// Folds one event in.
    pub(super) fn apply(&mut self, at_ms: i64, event: Event) {
        match event {
            Event::Started { seed, .. } => {
                self.seed.get_or_insert(seed);
                return self.end_all("the venue stopped");
            }
            Event::Listed(instrument) => self.list(instrument),
            Event::Expired { instrument } => {
                if let Some(listed) = self.listed_mut(&instrument) {
                    listed.expired_ms = Some(at_ms);
                }
            }
            Event::Restarted { instrument, epoch } => {
                if let Some(listed) = self.listed_mut(&instrument) {
                    listed.epoch = epoch;
                }
            }
            Event::Trade { instrument, trade, past } => {
                self.trades_made += u64::from(!past);
                self.highest.trade_id = self.highest.trade_id.max(trade.id);
                self.trades.entry(instrument).or_default().push(trade);
            }
            Event::Opened { .. } => self.sessions.push(Session { opened_ms: at_ms, ..Session::default() }),
            Event::Confirmed { session, channel, from } => {
                let subscription = Subscription { channel, confirmed_ms: at_ms, from, ended: None };
                self.session_mut(session, |session| session.subscriptions.push(subscription));
            }
            Event::Unsubscribed { session, channel } => self.end_subscriptions(session, at_ms, Some(&channel)),
            Event::Sent { session, frames } => self.sent(session, at_ms, frames),
            Event::Ended { session, why } => self.end(session, at_ms, why),
        }
        self.highest.at_ms = at_ms;
    }

    fn list(&mut self, instrument: Instrument) {
        let (name, is_option) = (instrument.name.clone(), instrument.option.is_some());
        self.instruments.push(Listed { instrument, expired_ms: None, epoch: 0 });
        self.trades.entry(name.clone()).or_default();
        let live = self.sessions.iter_mut().filter(|session| session.ended_ms.is_none());
        for subscription in live.flat_map(|session| &mut session.subscriptions).filter(|one| one.ended.is_none()) {
            let kind = Channel::parse(&subscription.channel).map(|channel| channel.topic);
            if kind.is_some_and(|topic| matches!(topic, Topic::TradesOf(kind) if kind.includes(is_option))) {
                subscription.from.insert(name.clone(), Mark::default());
            }
        }
    }

    fn sent(&mut self, session: u64, at_ms: i64, frames: SentFrames) {
        for (instrument, volume) in &frames.tickers {
            raise(&mut self.highest.volume, instrument, *volume);
        }
        for (instrument, timestamp) in &frames.quotes {
            raise(&mut self.highest.quote, instrument, *timestamp);
        }
        for (_, key) in &frames.books {
            self.highest.change_id = self.highest.change_id.max(key.change_id);
        }
        self.session_mut(session, |session| {
            let SentFrames { tickers, quotes, books } = frames;
            tickers.into_iter().for_each(|(name, key)| push(&mut session.tickers, name, Handed { key, at_ms }));
            quotes.into_iter().for_each(|(name, key)| push(&mut session.quotes, name, Handed { key, at_ms }));
            books.into_iter().for_each(|(name, key)| push(&mut session.books, name, Handed { key, at_ms }));
        });
    }

    fn end(&mut self, session: u64, at_ms: i64, why: String) {
        self.end_subscriptions(session, at_ms, None);
        self.session_mut(session, |session| {
            session.ended_ms.get_or_insert(at_ms);
            session.why.get_or_insert(why);
        });
    }

    /// A venue that was killed could not write the ends of its sessions: they were over with the last that it wrote.
    fn end_all(&mut self, why: &str) {
        let at_ms = self.highest.at_ms;
        for session in 1..=self.sessions.len() as u64 {
            if self.sessions[session as usize - 1].ended_ms.is_none() {
                self.end(session, at_ms, why.to_owned());
            }
        }
    }

    /// Ends a session's subscriptions: that of `channel`, or all of them because the session ended.
    fn end_subscriptions(&mut self, session: u64, at_ms: i64, channel: Option<&str>) {
        let Some(index) = usize::try_from(session).ok().and_then(|number| number.checked_sub(1)) else { return };
        let Some(found) = self.sessions.get(index) else { return };
        let ends: Vec<Option<Ended>> = found
            .subscriptions
            .iter()
            .map(|one| {
                let ends = one.ended.is_none() && channel.is_none_or(|channel| channel == one.channel);
                let to = || one.from.keys().map(|name| (name.clone(), self.mark(name))).collect();
                ends.then(|| Ended { at_ms, unsubscribed: channel.is_some(), to: to() })
            })
            .collect();
        for (subscription, ended) in self.sessions[index].subscriptions.iter_mut().zip(ends) {
            if ended.is_some() {
                subscription.ended = ended;
            }
        }
    }

    fn session_mut(&mut self, session: u64, change: impl FnOnce(&mut Session)) {
        let index = usize::try_from(session).ok().and_then(|number| number.checked_sub(1));
        if let Some(session) = index.and_then(|index| self.sessions.get_mut(index)) {
            change(session);
        }
    }

    fn listed_mut(&mut self, instrument: &str) -> Option<&mut Listed> {
        self.instruments.iter_mut().find(|listed| listed.instrument.name == instrument)
    }
}

fn raise<T: Copy + PartialOrd>(highest: &mut BTreeMap<String, T>, name: &str, value: T) {
    match highest.get_mut(name) {
        Some(known) if *known >= value => {}
        Some(known) => *known = value,
        None => {
            highest.insert(name.to_owned(), value);
        }
    }
}

fn push<T>(lists: &mut BTreeMap<String, Vec<T>>, name: String, key: T) {
    lists.entry(name).or_default().push(key);
}
