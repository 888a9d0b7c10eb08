//! The `data` of `book.*` channels: changes of the whole book, and the top of it.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{self, IgnoredAny, SeqAccess, Visitor},
};
use tidegate_core::{
    Error, Result,
    row::{Level, Mark, Position},
};

use super::super::value::{Amount, Millis, Text, Whole};

/// The `data` of `book.{instrument}.{interval}`.
///
/// ```json
/// {"timestamp":1789344931957,"type":"change","change_id":1188509,"instrument_name":"ETH-PERPETUAL","bids":[["new",2722.4,1.0e3],["delete",2722.1,0.0]],"asks":[],"prev_change_id":1188507}
/// ```
#[derive(Debug, Deserialize)]
pub(in super::super) struct Book<'a> {
    timestamp: Millis,
    /// Left out in 2019.
    #[serde(rename = "type")]
    kind: Option<Kind>,
    #[serde(borrow)]
    instrument_name: Text<'a>,
    change_id: Whole<u64>,
    prev_change_id: Option<Whole<u64>>,
    /// A side without changes has been seen empty, and left out.
    #[serde(default)]
    bids: Side<Change>,
    #[serde(default)]
    asks: Side<Change>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Snapshot,
    Change,
}

impl Book<'_> {
    /// Returns the state that this message changes; `None` when it is a whole state.
    ///
    /// A snapshot that names a previous state has been seen: it is whole all the same. The state 0 is the empty book, so
    /// a change of it is whole too.
    ///
    /// # Errors
    ///
    /// `Malformed` for a change that does not say of what.
    pub(in super::super) fn prev(&self) -> Result<Option<u64>> {
        match (self.kind, self.prev_change_id) {
            (Some(Kind::Change), None) => Err(Error::malformed("a change of a book without `prev_change_id`")),
            (Some(Kind::Snapshot), _) | (_, None | Some(Whole(0))) => Ok(None),
            (Some(Kind::Change) | None, Some(prev)) => Ok(Some(prev.0)),
        }
    }

    /// Returns where the message belongs.
    pub(in super::super) fn mark(&self, prev: Option<u64>) -> Mark<'_> {
        Mark {
            symbol: &self.instrument_name,
            position: Position::Linked { id: self.change_id.0, prev },
            ts_event: self.timestamp.0,
        }
    }

    /// Returns bids and asks.
    pub(in super::super) fn levels(&self) -> (&[Level], &[Level]) {
        (&self.bids.levels, &self.asks.levels)
    }

    /// Puts bids and asks in order, best first.
    pub(in super::super) fn sort(&mut self) {
        self.bids.sort_descending();
        self.asks.sort_ascending();
    }
}

/// The `data` of `book.{instrument}.{group}.{depth}.{interval}`: whole each time.
///
/// ```json
/// {"timestamp":1789344931549,"change_id":1188509,"instrument_name":"ETH-PERPETUAL","bids":[[2722.4,1.0e3]],"asks":[[2722.5,999990.0]]}
/// ```
#[derive(Debug, Deserialize)]
pub(in super::super) struct BookTop<'a> {
    timestamp: Millis,
    #[serde(borrow)]
    instrument_name: Text<'a>,
    bids: Side<Plain>,
    asks: Side<Plain>,
}

impl BookTop<'_> {
    /// Returns where the message belongs.
    pub(in super::super) fn mark(&self) -> Mark<'_> {
        Mark { symbol: &self.instrument_name, position: Position::Unnumbered, ts_event: self.timestamp.0 }
    }

    /// Returns bids and asks.
    pub(in super::super) fn levels(&self) -> (&[Level], &[Level]) {
        (&self.bids.levels, &self.asks.levels)
    }

    /// Puts bids and asks in order, best first.
    pub(in super::super) fn sort(&mut self) {
        self.bids.sort_descending();
        self.asks.sort_ascending();
    }
}

/// The levels of one side, whose elements are written as `E`.
#[derive(Debug)]
struct Side<E> {
    levels: Vec<Level>,
    written: PhantomData<E>,
}

impl<E> Default for Side<E> {
    fn default() -> Self {
        Self { levels: Vec::new(), written: PhantomData }
    }
}

impl<E> Side<E> {
    fn sort_descending(&mut self) {
        if !self.levels.is_sorted_by(|a, b| a.price >= b.price) {
            self.levels.sort_by(|a, b| b.price.total_cmp(&a.price));
        }
    }

    fn sort_ascending(&mut self) {
        if !self.levels.is_sorted_by(|a, b| a.price <= b.price) {
            self.levels.sort_by(|a, b| a.price.total_cmp(&b.price));
        }
    }
}

/// How a level is written.
trait Written<'de>: Deserialize<'de> {
    fn level(self) -> Level;
}

impl<'de, E: Written<'de>> Deserialize<'de> for Side<E> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Levels<E>(PhantomData<E>);
        impl<'de, E: Written<'de>> Visitor<'de> for Levels<E> {
            type Value = Side<E>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of levels")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut levels = Vec::new();
                while let Some(element) = seq.next_element::<E>()? {
                    levels.push(element.level());
                }
                Ok(Side { levels, written: self.0 })
            }
        }
        deserializer.deserialize_seq(Levels(PhantomData))
    }
}

/// `[price, amount]`
#[derive(Debug, Deserialize)]
struct Plain(f64, Amount);

impl Written<'_> for Plain {
    #[inline]
    fn level(self) -> Level {
        Level { price: self.0, size: self.1.0 }
    }
}

/// `[action, price, amount]`; a deletion may leave the amount out.
#[derive(Debug)]
struct Change(Level);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Action {
    New,
    Change,
    Delete,
}

impl Written<'_> for Change {
    #[inline]
    fn level(self) -> Level {
        self.0
    }
}

impl<'de> Deserialize<'de> for Change {
    #[inline]
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(ChangeVisitor)
    }
}

struct ChangeVisitor;

impl<'de> Visitor<'de> for ChangeVisitor {
    type Value = Change;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("action, price and amount")
    }

    #[inline]
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Change, A::Error> {
        let short = |have| de::Error::invalid_length(have, &self);
        let action: Action = seq.next_element()?.ok_or_else(|| short(0))?;
        let price: f64 = seq.next_element()?.ok_or_else(|| short(1))?;
        let amount: Option<Amount> = seq.next_element()?;
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        let size = match (action, amount) {
            (Action::Delete, _) => 0.0,
            (Action::New | Action::Change, Some(amount)) => amount.0,
            (Action::New | Action::Change, None) => return Err(short(2)),
        };
        Ok(Change(Level { price, size }))
    }
}
