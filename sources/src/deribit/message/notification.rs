//! A notification, read in one pass: the name of its channel says what its data are read as.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeSeed, IgnoredAny, MapAccess, Visitor},
};

use super::{Book, BookTop, InstrumentState, PriceIndex, Quote, Ticker, Trades};
use crate::{deribit::channel::Channel, json::Reader};

/// The data of a notification.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "it stays where it was read, for as long as one frame")]
pub(in super::super) enum Payload<'a> {
    Ticker(Ticker<'a>),
    Trades(Trades<'a>),
    Quote(Quote<'a>),
    Book(Book<'a>),
    BookTop(BookTop<'a>),
    Index(PriceIndex<'a>),
    State(InstrumentState<'a>),
}

impl<'a> Payload<'a> {
    /// Reads what the channel carries.
    #[inline]
    pub(in super::super) fn read<D: Deserializer<'a>>(channel: Channel, data: D) -> Result<Self, D::Error> {
        match channel {
            Channel::Tickers => Ticker::deserialize(data).map(Self::Ticker),
            Channel::Trades => {
                let mut trades = Trades::default();
                (&mut trades).deserialize(data).map(|()| Self::Trades(trades))
            }
            Channel::Quotes => Quote::deserialize(data).map(Self::Quote),
            Channel::BookChanges => Book::deserialize(data).map(Self::Book),
            Channel::BookTops => BookTop::deserialize(data).map(Self::BookTop),
            Channel::IndexPrices => PriceIndex::deserialize(data).map(Self::Index),
            Channel::InstrumentStatus => InstrumentState::deserialize(data).map(Self::State),
        }
    }
}

/// A notification on its way from the frame into `payload`, where it stays: the largest is too large to be handed on
/// from one level of the frame to the next.
#[derive(Debug)]
pub(in super::super) struct Notification<'n, 'a, F> {
    /// What the channel of this name carries, if that is read.
    carried: F,
    channel: &'n mut &'a str,
    payload: &'n mut Option<Payload<'a>>,
}

impl<'n, 'a, F: Fn(&str) -> Option<Channel>> Notification<'n, 'a, F> {
    /// Reads the frame, and returns the name of its channel. `None`: it is none of a channel whose data are read, is
    /// written in another way (the data in front of the channel, escapes in its name), or is broken.
    #[inline]
    pub(in super::super) fn read(
        mut reader: Reader<'a, '_>,
        carried: F,
        payload: &'n mut Option<Payload<'a>>,
    ) -> Option<&'a str> {
        let mut channel = "";
        Notification { carried, channel: &mut channel, payload: &mut *payload }.deserialize(&mut reader).ok()?;
        reader.end().ok()?;
        payload.is_some().then_some(channel)
    }
}

impl<'de, F: Fn(&str) -> Option<Channel>> DeserializeSeed<'de> for Notification<'_, 'de, F> {
    type Value = ();

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, frame: D) -> Result<(), D::Error> {
        frame.deserialize_struct("Notification", &["jsonrpc", "method", "params"], self)
    }
}

/// Reads the frame, and in it `params`.
impl<'de, F: Fn(&str) -> Option<Channel>> Visitor<'de> for Notification<'_, 'de, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a notification")
    }

    #[inline]
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { carried, channel, payload } = self;
        while let Some(key) = map.next_key()? {
            match key {
                Key::Params if channel.is_empty() => {
                    let params = Params { carried: &carried, channel: &mut *channel, payload: &mut *payload };
                    map.next_value_seed(params)?;
                }
                Key::Params => return Err(de::Error::duplicate_field("params")),
                Key::Channel | Key::Data | Key::Other => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        Ok(())
    }
}

struct Params<'n, 'a, F> {
    carried: &'n F,
    channel: &'n mut &'a str,
    payload: &'n mut Option<Payload<'a>>,
}

impl<'de, F: Fn(&str) -> Option<Channel>> DeserializeSeed<'de> for Params<'_, 'de, F> {
    type Value = ();

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, params: D) -> Result<(), D::Error> {
        params.deserialize_struct("Params", &["channel", "data"], self)
    }
}

impl<'de, F: Fn(&str) -> Option<Channel>> Visitor<'de> for Params<'_, 'de, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a channel and its data")
    }

    #[inline]
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { carried, channel, payload } = self;
        let mut known = None;
        while let Some(key) = map.next_key()? {
            match (key, known) {
                (Key::Channel, None) => {
                    *channel = map.next_value()?;
                    known = carried(channel);
                    if known.is_none() {
                        return Err(de::Error::custom("a channel that is not read"));
                    }
                }
                (Key::Data, Some(channel)) if payload.is_none() => {
                    map.next_value_seed(Data { channel, payload: &mut *payload })?;
                }
                (Key::Channel | Key::Data, _) => return Err(de::Error::custom("members in another order")),
                (Key::Params | Key::Other, _) => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        Ok(())
    }
}

struct Data<'n, 'a> {
    channel: Channel,
    payload: &'n mut Option<Payload<'a>>,
}

impl<'de> DeserializeSeed<'de> for Data<'_, 'de> {
    type Value = ();

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, data: D) -> Result<(), D::Error> {
        *self.payload = Some(Payload::read(self.channel, data)?);
        Ok(())
    }
}

/// A member of a frame, or of its `params`.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Key {
    Params,
    Channel,
    Data,
    #[serde(other)]
    Other,
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;
    use crate::{deribit::message, json::Orders};

    #[test]
    fn every_frame_of_a_channel_is_read_in_one_pass_and_means_what_serde_json_says() {
        let fixtures = [include_str!("../fixtures/option.jsonl"), include_str!("../fixtures/perpetual.jsonl")];
        let mut orders = Orders::default();
        for frame in fixtures.iter().flat_map(|fixture| fixture.lines()) {
            let message: message::Message<'_> = serde_json::from_str(frame).unwrap();
            let slowly: message::Data<'_, &RawValue> = serde_json::from_str(message.params.unwrap().get()).unwrap();
            let channel = Channel::of(&slowly.channel).unwrap();
            let theirs = Payload::read(channel, slowly.data).unwrap();

            let mut ours = None;
            let name = Notification::read(Reader::new(frame, &mut orders), Channel::of, &mut ours);
            assert_eq!(name, Some(&*slowly.channel), "{frame}");
            assert_eq!(format!("{:?}", ours.unwrap()), format!("{theirs:?}"), "{frame}");
        }
    }
}
