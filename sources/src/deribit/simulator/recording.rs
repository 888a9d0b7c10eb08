//! A capture as the venue plays it again: frames in their order and at their pace, and the trades of both live frames and
//! REST replies.
//!
//! It reads no clock: [`Recording::pass`] says how much time has passed. The capture is read twice: at the start for what a
//! venue knows (instruments, replies of the discovery, trades), then frame by frame, so that its length costs no memory.

mod book;
mod survey;

use std::{
    collections::{BTreeMap, HashMap},
    io,
    iter::Peekable,
    path::Path,
    time::Duration,
};

use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;
use tidegate_core::{
    connection::capture::{self, Body, Line, Reader},
    row::Timestamp,
};

use self::book::RecordedBook;
use self::survey::Survey;
use super::{
    super::instrument as names,
    channel::{Channel, Topic},
    instrument::{CURRENCY, Instrument},
    lines::Key,
    oracle::{BookKey, Trade},
    rpc::Params,
};

/// A capture that is being played.
#[derive(Debug)]
pub(super) struct Recording {
    lines: Peekable<Reader>,
    /// The venue's clock, in nanoseconds since 1970: that of the recording.
    now: i64,
    speed: f64,
    survey: Survey,
    /// The book of each channel, as far as the frames have told.
    books: HashMap<String, RecordedBook>,
    /// Why a part could not be read, which could be at the start.
    unread: Option<String>,
}

/// What is due: trades that were made, and behind them a frame.
#[derive(Debug)]
pub(super) struct Due {
    pub(super) trades: Vec<(String, Trade)>,
    pub(super) frame: Option<Frame>,
}

/// A frame as it came.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) topic: Topic,
    pub(super) channel: String,
    pub(super) text: String,
    pub(super) key: Option<Key>,
}

impl Recording {
    /// Opens the capture in a folder, to be played at `speed` times its own pace.
    ///
    /// # Errors
    ///
    /// If there is none, it cannot be read, holds nothing that can be played, or two trades of one number.
    pub(super) fn open(from: &Path, speed: f64) -> io::Result<Self> {
        if !(speed.is_finite() && speed > 0.0) {
            return Err(refused(format!("a speed of {speed} is none")));
        }
        let survey = Survey::of(read(from)?)?;
        if survey.channels.is_empty() {
            return Err(refused(format!("`{}` holds no frame of a channel that can be played", from.display())));
        }
        let now = survey.began.0;
        Ok(Self { lines: read(from)?.peekable(), now, speed, survey, books: HashMap::new(), unread: None })
    }

    /// Returns the time by the recording's clock, in microseconds since 1970.
    pub(super) fn now_us(&self) -> i64 {
        self.now / 1000
    }

    /// Returns whether time has passed.
    pub(super) fn has_begun(&self) -> bool {
        self.now > self.survey.began.0
    }

    /// Lets time pass.
    pub(super) fn pass(&mut self, step: Duration) {
        self.now = self.now.saturating_add((step.as_nanos() as f64 * self.speed) as i64);
    }

    /// Returns whether all of it has been played.
    pub(super) fn is_over(&mut self) -> bool {
        self.lines.peek().is_none() && self.survey.to_come.values().all(BTreeMap::is_empty)
    }

    /// Returns what of the recorded feed is not played, a sentence each.
    pub(super) fn lacks(&self) -> Vec<String> {
        let Survey { left_out, dropped, cut, .. } = &self.survey;
        let left_out = (*left_out > 0).then(|| {
            format!("{left_out} frames are not played: they are broken, or no options or futures of {CURRENCY}")
        });
        let dropped = (*dropped > 0).then(|| format!("{dropped} lines are not in the capture: its disk was too slow"));
        let cut = cut.iter().map(|file| format!("what followed in `{}` is missing: the file is cut", file.display()));
        let unread = self.unread.as_ref().map(|why| format!("a part was not played: {why}"));
        [left_out, dropped, unread].into_iter().flatten().chain(cut).collect()
    }

    /// Returns what comes next, if its time has come.
    pub(super) fn next_due(&mut self) -> Option<Due> {
        // A trade is made at its time, and told later: who subscribes between the two was not there when it was made.
        while let Some((instrument, seq)) = self.survey.next_made(self.now) {
            let trades = self.survey.made_until(&instrument, seq);
            if !trades.is_empty() {
                return Some(Due { trades, frame: None });
            }
        }
        loop {
            let line = self.lines.next_if(|line| line.as_ref().map_or(true, |line| line.at.0 <= self.now))?;
            match line {
                Ok(line) => {
                    if let Some(due) = self.due(line) {
                        return Some(due);
                    }
                }
                Err(failed) => self.unread = Some(failed.to_string()),
            }
        }
    }

    fn due(&mut self, line: Line) -> Option<Due> {
        let capture::Event::Frame { body: Body::Text(text) } = line.event else { return None };
        let read = Read::of(&text)?;
        let mut trades = Vec::new();
        for trade in &read.trades {
            trades.append(&mut self.survey.made_until(&trade.instrument_name, trade.trade_seq));
        }
        let is_sent = match &read.book {
            Some(data) => RecordedBook::take(&mut self.books, &read.channel, data),
            None => true,
        };
        let Read { topic, channel, key, .. } = read;
        Some(Due { trades, frame: is_sent.then_some(Frame { topic, channel, text, key }) })
    }

    /// Returns whether a frame tells of a trade. Those that the recorder has by REST only are for the venue to tell: a
    /// subscriber who is there gets every trade.
    pub(super) fn tells(&self, trade: &Trade) -> bool {
        self.survey.told.contains(&trade.id)
    }

    /// Returns the instruments that were listed or that a channel names.
    pub(super) fn instruments(&self) -> Vec<Instrument> {
        self.survey.instruments.values().cloned().collect()
    }

    /// Returns the trades that were made before the recording began, each instrument's in their order.
    pub(super) fn past(&mut self) -> Vec<(String, Trade)> {
        let began_ms = self.survey.began.as_millis();
        self.survey.made_before(began_ms)
    }

    /// Returns whether the recording has this channel, by this very name.
    pub(super) fn has(&self, channel: &str) -> bool {
        self.survey.channels.contains(channel)
    }

    /// Returns what was answered to the same request of the discovery last, or first if that is still to come.
    pub(super) fn reply(&self, method: &str, params: &Params) -> Option<&str> {
        let replies = self.survey.replies.get(&survey::request(method, params))?;
        let given = replies.iter().rev().find(|(at, _)| at.0 <= self.now).or_else(|| replies.first());
        given.map(|(_, result)| result.as_str())
    }

    /// Writes the book of a channel as its first message, if it is known.
    pub(super) fn snapshot(&self, channel: &str) -> Option<(String, Key)> {
        let Channel { topic, .. } = Channel::parse(channel)?;
        let (name, book) = (topic.instrument()?, self.books.get(channel)?);
        let key = BookKey { change_id: book.change_id, snapshot: true };
        Some((book.snapshot(channel, name), Key::Book(name.to_owned(), key)))
    }
}

/// A frame of data, read as far as the venue must know it.
#[derive(Debug)]
struct Read {
    topic: Topic,
    channel: String,
    key: Option<Key>,
    trades: Vec<RecordedTrade>,
    book: Option<book::Data>,
}

impl Read {
    /// Reads a frame; none if it is not of a channel that can be played.
    fn of(text: &str) -> Option<Self> {
        let Notification { params: Data { channel, data } } = serde_json::from_str(text).ok()?;
        let Channel { topic, .. } = Channel::parse(&channel)?;
        if topic.instrument().is_some_and(|name| !is_played(name)) {
            return None;
        }
        let data = data.get();
        let mut read = Self { key: None, trades: Vec::new(), book: None, topic, channel };
        match &read.topic {
            Topic::Trades(_) | Topic::TradesOf(_) => read.trades = trades(data)?,
            Topic::Ticker(name) => {
                let TickerData { stats } = serde_json::from_str(data).ok()?;
                read.key = Some(Key::Ticker(name.clone(), stats.volume.unwrap_or_default()));
            }
            Topic::Quote(name) => {
                let QuoteData { timestamp } = serde_json::from_str(data).ok()?;
                read.key = Some(Key::Quote(name.clone(), timestamp));
            }
            Topic::Book(name) => {
                let data: book::Data = serde_json::from_str(data).ok()?;
                read.key = Some(Key::Book(name.clone(), data.key()));
                read.book = Some(data);
            }
            Topic::BookTop(_) | Topic::Index | Topic::State(_) | Topic::Platform | Topic::PublicMethods => {
                let _: IgnoredAny = serde_json::from_str(data).ok()?;
            }
        }
        Some(read)
    }
}

/// A trade, with the text that it came as.
#[derive(Debug, Deserialize)]
struct RecordedTrade {
    instrument_name: String,
    trade_seq: u64,
    trade_id: String,
    timestamp: i64,
    price: f64,
    amount: f64,
    direction: super::oracle::Direction,
    #[serde(default)]
    index_price: f64,
    #[serde(default)]
    mark_price: f64,
    iv: Option<f64>,
    #[serde(default)]
    tick_direction: u8,
    #[serde(skip)]
    raw: String,
}

impl RecordedTrade {
    fn id(&self) -> Option<u64> {
        self.trade_id.strip_prefix(CURRENCY)?.strip_prefix('-')?.parse().ok()
    }

    fn made(self) -> Option<Trade> {
        Some(Trade {
            epoch: 0,
            seq: self.trade_seq,
            id: self.id()?,
            timestamp: self.timestamp,
            price: self.price,
            amount: self.amount,
            direction: self.direction,
            index_price: self.index_price,
            mark_price: self.mark_price,
            iv: self.iv,
            tick_direction: self.tick_direction,
            raw: Some(self.raw),
        })
    }
}

/// Reads a list of trades; none if one of them is not of an instrument that can be played, or cannot be read.
fn trades(list: &str) -> Option<Vec<RecordedTrade>> {
    let list: Vec<&RawValue> = serde_json::from_str(list).ok()?;
    let trade = |raw: &&RawValue| {
        let trade: RecordedTrade = serde_json::from_str(raw.get()).ok()?;
        let is_played = is_played(&trade.instrument_name) && trade.id().is_some();
        is_played.then(|| RecordedTrade { raw: raw.get().to_owned(), ..trade })
    };
    list.iter().map(trade).collect()
}

/// Returns whether an instrument is of those that are simulated: options and futures of the one currency.
fn is_played(instrument: &str) -> bool {
    let of = names::market(instrument);
    of.is_some_and(|of| of.currency == CURRENCY && matches!(of.kind, names::Kind::Option | names::Kind::Future))
}

fn read(from: &Path) -> io::Result<Reader> {
    capture::read(from).map_err(|error| refused(error.to_string()))
}

fn refused(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

#[derive(Deserialize)]
struct Notification<'a> {
    #[serde(borrow)]
    params: Data<'a>,
}

#[derive(Deserialize)]
struct Data<'a> {
    channel: String,
    #[serde(borrow)]
    data: &'a RawValue,
}

#[derive(Deserialize)]
struct TickerData {
    stats: Stats,
}

#[derive(Deserialize)]
struct Stats {
    volume: Option<f64>,
}

#[derive(Deserialize)]
struct QuoteData {
    timestamp: i64,
}

#[cfg(test)]
mod tests;
