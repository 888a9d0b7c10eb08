//! A book as recorded frames tell it: the first message of somebody who subscribes in the middle.

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;

use super::super::{
    numbers::{Object, write_array, write_number},
    oracle::BookKey,
    payload,
};

/// A frame's data.
#[derive(Debug, Deserialize)]
pub(super) struct Data {
    #[serde(rename = "type")]
    kind: String,
    timestamp: i64,
    change_id: u64,
    prev_change_id: Option<u64>,
    bids: Vec<(String, f64, f64)>,
    asks: Vec<(String, f64, f64)>,
}

/// The levels of a channel's book: amounts by price.
#[derive(Debug, Default)]
pub(super) struct RecordedBook {
    pub(super) change_id: u64,
    timestamp: i64,
    bids: BTreeMap<Price, f64>,
    asks: BTreeMap<Price, f64>,
}

impl Data {
    pub(super) fn key(&self) -> BookKey {
        BookKey { change_id: self.change_id, snapshot: self.kind == "snapshot" }
    }
}

impl RecordedBook {
    /// Takes a frame of a channel, and returns whether it may be sent: a change of a book whose beginning nobody knows
    /// says nothing. Behind a change that is missing the book is unknown until its next snapshot.
    pub(super) fn take(books: &mut HashMap<String, Self>, channel: &str, data: &Data) -> bool {
        if data.key().snapshot {
            let book = books.entry(channel.to_owned()).or_default();
            *book = Self::default();
            book.apply(data);
            return true;
        }
        let Some(book) = books.get_mut(channel) else { return false };
        if data.prev_change_id == Some(book.change_id) {
            book.apply(data);
        } else if data.change_id != book.change_id {
            books.remove(channel);
        }
        true
    }

    fn apply(&mut self, data: &Data) {
        (self.change_id, self.timestamp) = (data.change_id, data.timestamp);
        for (side, changes) in [(&mut self.bids, &data.bids), (&mut self.asks, &data.asks)] {
            for (action, price, amount) in changes {
                match action.as_str() {
                    "delete" => side.remove(&Price(*price)),
                    _ => side.insert(Price(*price), *amount),
                };
            }
        }
    }

    /// Writes it as a channel's first message.
    pub(super) fn snapshot(&self, channel: &str, instrument: &str) -> String {
        payload::notification(channel, |out| {
            Object::begin(out)
                .integer("timestamp", self.timestamp)
                .text("type", "snapshot")
                .unsigned("change_id", self.change_id)
                .text("instrument_name", instrument)
                .with("bids", |out| write_array(out, self.bids.iter().rev(), write_level))
                .with("asks", |out| write_array(out, &self.asks, write_level))
                .end();
        })
    }
}

fn write_level(out: &mut String, (price, amount): (&Price, &f64)) {
    out.push_str("[\"new\",");
    write_number(out, price.0);
    out.push(',');
    write_number(out, *amount);
    out.push(']');
}

/// A price in order.
#[derive(Debug, Clone, Copy)]
struct Price(f64);

impl Ord for Price {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for Price {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Price {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Price {}
