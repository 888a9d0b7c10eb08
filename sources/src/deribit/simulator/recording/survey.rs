//! What a capture tells before it is played: instruments, channels, replies, and every trade that it holds.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    path::PathBuf,
};

use serde::Deserialize;
use serde_json::value::RawValue;
use tidegate_core::connection::capture::{Asked, Body, Event};
use url::Url;

use super::{
    super::instrument::OptionTerms, Channel, Instrument, Params, Read, Reader, RecordedTrade, Timestamp, Trade, io,
    is_played, refused,
};

/// What is known of a capture.
#[derive(Debug, Default)]
pub(super) struct Survey {
    pub(super) began: Timestamp,
    pub(super) instruments: BTreeMap<String, Instrument>,
    /// Those that were asked for or of which a frame came.
    pub(super) channels: HashSet<String>,
    /// Results of the discovery's requests, and when they came.
    pub(super) replies: HashMap<String, Vec<(Timestamp, String)>>,
    /// Trades that have not been made yet, by instrument and number.
    pub(super) to_come: BTreeMap<String, BTreeMap<u64, Trade>>,
    /// Ids of trades that a frame holds.
    pub(super) told: HashSet<u64>,
    /// When each of them was made: milliseconds, instrument, number.
    in_time: VecDeque<(i64, String, u64)>,
    /// Frames that cannot be played.
    pub(super) left_out: u64,
    /// Lines that the recorder left out.
    pub(super) dropped: u64,
    /// Files that end before their end.
    pub(super) cut: Vec<PathBuf>,
}

impl Survey {
    /// Reads a capture to its end.
    pub(super) fn of(lines: Reader) -> io::Result<Self> {
        let mut survey = Self::default();
        for line in lines {
            let line = line.map_err(|error| refused(error.to_string()))?;
            if survey.began == Timestamp::default() {
                survey.began = line.at;
            }
            match line.event {
                Event::Frame { body: Body::Text(text) } => survey.on_frame(&text)?,
                Event::Subscribe { channels } => {
                    channels.into_iter().for_each(|channel| survey.on_channel(channel, line.at));
                }
                Event::Discovered { request, status: 200, body } => survey.on_reply(&request, line.at, &body.bytes()),
                Event::Reply { status: 200, body, .. } => survey.on_page(&body.bytes())?,
                Event::Dropped { lines } => survey.dropped += lines,
                Event::Cut { file } => survey.cut.push(file),
                // What the recorder did, and replies that are errors or none.
                Event::Start { .. } | Event::Anew | Event::Discover | Event::Open { .. } | Event::Wake => {}
                Event::Unsubscribe { .. } | Event::Unended { .. } | Event::Sent { .. } | Event::Closed { .. } => {}
                Event::Gaps { .. } => {}
                Event::Frame { .. } | Event::Discovered { .. } | Event::Reply { .. } | Event::End { .. } => {}
            }
        }
        survey.finish();
        Ok(survey)
    }

    fn on_frame(&mut self, text: &str) -> io::Result<()> {
        let Some(read) = Read::of(text) else {
            self.left_out += u64::from(text.contains(r#""method":"subscription""#));
            return Ok(());
        };
        self.on_channel(read.channel, self.began);
        for trade in read.trades {
            self.told.extend(trade.id());
            self.on_trade(trade, true)?;
        }
        Ok(())
    }

    fn on_channel(&mut self, channel: String, at: Timestamp) {
        let Some(Channel { topic, .. }) = Channel::parse(&channel) else { return };
        if let Some(name) = topic.instrument() {
            if !is_played(name) {
                return;
            }
            self.name(name, at);
        }
        self.channels.insert(channel);
    }

    /// Makes up an instrument from its name, until a reply tells more.
    fn name(&mut self, name: &str, at: Timestamp) {
        let id = 700_000 + self.instruments.len() as u64;
        let unknown =
            || Instrument::from_name(name, id, at.as_millis()).unwrap_or_else(|| Instrument::future(name, id));
        self.instruments.entry(name.to_owned()).or_insert_with(unknown);
    }

    fn on_reply(&mut self, request: &Asked, at: Timestamp, body: &[u8]) {
        let Ok(url) = Url::parse(&request.url) else { return };
        let Some((_, method)) = url.path().rsplit_once("/api/v2/") else { return };
        let Ok(Answered { result }) = serde_json::from_slice(body) else { return };
        let params = Params::of_query(url.query_pairs().into_owned().collect());
        self.replies.entry(self::request(method, &params)).or_default().push((at, result.get().to_owned()));

        if method == "public/get_instruments" {
            let rows: Vec<&RawValue> = serde_json::from_str(result.get()).unwrap_or_default();
            let rows = rows.into_iter().filter_map(|row| serde_json::from_str::<Row>(row.get()).ok());
            let instruments = rows.filter(|row| is_played(&row.instrument_name)).filter_map(Row::instrument);
            self.instruments.extend(instruments.map(|one| (one.name.clone(), one)));
        }
    }

    /// Takes the trades of a reply to a request for gaps.
    fn on_page(&mut self, body: &[u8]) -> io::Result<()> {
        let Ok(Answered { result }) = serde_json::from_slice(body) else { return Ok(()) };
        let Ok(Page { trades }) = serde_json::from_str(result.get()) else { return Ok(()) };
        for trade in super::trades(trades.get()).unwrap_or_default() {
            self.on_trade(trade, false)?;
        }
        Ok(())
    }

    /// Takes a trade; a live one says more of itself than the history host does.
    fn on_trade(&mut self, trade: RecordedTrade, is_live: bool) -> io::Result<()> {
        let (name, seq) = (trade.instrument_name.clone(), trade.trade_seq);
        self.name(&name, self.began);
        let Some(trade) = trade.made() else { return Ok(()) };
        let known = self.to_come.entry(name.clone()).or_default();
        match known.get(&seq) {
            Some(other) if other.id != trade.id => {
                let why = format!("`{name}` has two trades numbered {seq}: a capture of new numbers cannot be played");
                Err(refused(why))
            }
            Some(_) if !is_live => Ok(()),
            _ => {
                known.insert(seq, trade);
                Ok(())
            }
        }
    }

    fn finish(&mut self) {
        let all = self.to_come.iter().flat_map(|(name, trades)| trades.values().map(move |trade| (name, trade)));
        let mut in_time: Vec<_> = all.map(|(name, trade)| (trade.timestamp, name.clone(), trade.seq)).collect();
        in_time.sort();
        self.in_time = in_time.into();
    }

    /// Returns the next trade, if it was made by `now`, in nanoseconds since 1970.
    pub(super) fn next_made(&mut self, now: i64) -> Option<(String, u64)> {
        self.in_time.pop_front_if(|(at_ms, ..)| *at_ms <= now / 1_000_000).map(|(_, name, seq)| (name, seq))
    }

    /// Returns an instrument's trades up to a number that have not been made yet: now they are.
    pub(super) fn made_until(&mut self, instrument: &str, seq: u64) -> Vec<(String, Trade)> {
        let Some(to_come) = self.to_come.get_mut(instrument) else { return Vec::new() };
        let later = to_come.split_off(&(seq + 1));
        let made = std::mem::replace(to_come, later);
        made.into_values().map(|trade| (instrument.to_owned(), trade)).collect()
    }

    /// Returns the trades that were made before a time.
    pub(super) fn made_before(&mut self, at_ms: i64) -> Vec<(String, Trade)> {
        self.in_time.retain(|(made_ms, ..)| *made_ms > at_ms);
        let last = |trades: &BTreeMap<u64, Trade>| {
            trades.values().filter(|trade| trade.timestamp <= at_ms).map(|trade| trade.seq).max()
        };
        let until = self.to_come.iter().filter_map(|(name, trades)| Some((name.clone(), last(trades)?)));
        let until: Vec<(String, u64)> = until.collect();
        until.into_iter().flat_map(|(name, seq)| self.made_until(&name, seq)).collect()
    }
}

/// Returns what makes two requests the same.
pub(super) fn request(method: &str, params: &Params) -> String {
    let mut named: Vec<String> = params
        .0
        .iter()
        .map(|(key, value)| match value.as_str() {
            Some(text) => format!("{key}={text}"),
            None => format!("{key}={value}"),
        })
        .collect();
    named.sort();
    format!("{method}?{}", named.join("&"))
}

#[derive(Deserialize)]
struct Answered<'a> {
    #[serde(borrow)]
    result: &'a RawValue,
}

#[derive(Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    trades: &'a RawValue,
}

/// A row of `public/get_instruments`.
#[derive(Deserialize)]
struct Row {
    instrument_name: String,
    instrument_id: u64,
    kind: String,
    strike: Option<f64>,
    option_type: Option<String>,
    expiration_timestamp: i64,
    creation_timestamp: i64,
    settlement_period: String,
}

impl Row {
    fn instrument(self) -> Option<Instrument> {
        let option = match (self.kind.as_str(), self.strike, self.option_type) {
            ("option", Some(strike), Some(side)) => Some(OptionTerms { strike, call: side == "call" }),
            ("future", ..) => None,
            _ => return None,
        };
        Some(Instrument {
            name: self.instrument_name,
            id: self.instrument_id,
            option,
            expiration_ms: self.expiration_timestamp,
            creation_ms: self.creation_timestamp,
            settlement_period: self.settlement_period,
        })
    }
}
