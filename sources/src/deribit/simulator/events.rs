//! What the venue makes as it runs, and to whom each kind of it goes.

use super::{
    book::BookChange,
    channel::{Kind, Topic},
    fold::Event,
    instrument::Instrument,
    lines::Key,
    market::Step,
    methods::moment,
    numbers::write_array,
    oracle::{BookKey, Trade},
    payload,
    venue::{Now, Venue},
};

/// A trade with the instrument that it is of.
pub(super) type Made = (String, Trade);

impl Venue {
    /// Makes `count` events and tells everybody who subscribed to them.
    pub(super) fn make_events(&mut self, count: usize) {
        if self.frozen {
            return;
        }
        let now = self.now();
        let mut trades = Vec::new();
        for _ in 0..count {
            match self.market.step(now.ms()) {
                Step::Trade { listing, trade } => trades.push(self.note_trade(listing, trade)),
                Step::Update { listing, change } => self.publish_update(listing, &change, now),
                Step::Nothing => {}
            }
        }
        self.publish_trades(&trades);
        self.commit();
    }

    /// Makes a trade that nobody is told of yet.
    pub(super) fn trade(&mut self, listing: usize, now: Now) -> Made {
        let trade = self.market.trade(listing, now.ms());
        self.note_trade(listing, trade)
    }

    fn note_trade(&mut self, listing: usize, trade: Trade) -> Made {
        let instrument = self.market.listings[listing].instrument.name.clone();
        self.note(Event::Trade { instrument: instrument.clone(), trade: trade.clone(), past: false });
        (instrument, trade)
    }

    /// Sends trades, those of a channel in one frame.
    pub(super) fn publish_trades(&mut self, trades: &[Made]) {
        for (instrument, of_one) in grouped(trades) {
            self.publish_list(&Topic::Trades(instrument), &of_one);
        }
        for kind in [Kind::Option, Kind::Future, Kind::Any] {
            let topic = Topic::TradesOf(kind);
            if self.lines.has(&topic) {
                let of_kind: Vec<&Made> =
                    trades.iter().filter(|(_, trade)| kind.includes(trade.iv.is_some())).collect();
                self.publish_list(&topic, &of_kind);
            }
        }
    }

    fn publish_list(&mut self, topic: &Topic, trades: &[&Made]) {
        if trades.is_empty() {
            return;
        }
        self.lines.publish(topic, |channel| {
            let list = |out: &mut String| {
                write_array(out, trades, |out, (instrument, trade)| payload::write_trade(out, instrument, trade, true));
            };
            (payload::notification(channel, list), None)
        });
    }

    /// Sends a change of the book, with the quote if the best level moved, and the ticker.
    pub(super) fn publish_update(&mut self, listing: usize, change: &BookChange, now: Now) {
        self.publish_book_change(listing, change, now);
        self.publish_book_top(listing, now);
        if change.best_moved {
            self.publish_quote(listing, now);
        }
        self.publish_ticker(listing, now);
    }

    fn publish_book_change(&mut self, listing: usize, change: &BookChange, now: Now) {
        let changed = &self.market.listings[listing];
        let name = &changed.instrument.name;
        self.lines.publish(&Topic::Book(name.clone()), |channel| {
            let text = payload::notification(channel, |out| payload::write_book_change(out, changed, change, now.ms()));
            (text, Some(Key::Book(name.clone(), BookKey { change_id: change.id, snapshot: false })))
        });
    }

    fn publish_book_top(&mut self, listing: usize, now: Now) {
        let changed = &self.market.listings[listing];
        self.lines.publish(&Topic::BookTop(changed.instrument.name.clone()), |channel| {
            (payload::notification(channel, |out| payload::write_book_top(out, changed, now.ms())), None)
        });
    }

    /// A quote's time always grows, so that it tells one quote from another.
    fn publish_quote(&mut self, listing: usize, now: Now) {
        let quoted = &mut self.market.listings[listing];
        quoted.quoted_ms = now.ms().max(quoted.quoted_ms + 1);
        let (name, timestamp) = (&quoted.instrument.name, quoted.quoted_ms);
        self.lines.publish(&Topic::Quote(name.clone()), |channel| {
            let text = payload::notification(channel, |out| payload::write_quote(out, quoted));
            (text, Some(Key::Quote(name.clone(), timestamp)))
        });
    }

    /// A ticker's volume always grows, so that it tells one ticker from another. Its time sometimes steps back.
    fn publish_ticker(&mut self, listing: usize, now: Now) {
        let mut at = moment(self, now);
        let ticked = &mut self.market.listings[listing];
        let name = ticked.instrument.name.clone();
        if ticked.volume_halves.is_multiple_of(97) {
            at.timestamp -= 250;
        }
        self.lines.publish(&Topic::Ticker(name.clone()), |channel| {
            ticked.volume_halves += 1;
            let text = payload::notification(channel, |out| payload::ticker(out, ticked, at).end());
            (text, Some(Key::Ticker(name.clone(), ticked.volume())))
        });
    }

    /// Sends the index.
    pub(super) fn publish_index(&mut self) {
        if self.frozen || self.recording.is_some() {
            return;
        }
        let at = moment(self, self.now());
        let write = |channel: &str| (payload::notification(channel, |out| payload::write_index(out, at)), None);
        self.lines.publish(&Topic::Index, write);
        self.commit();
    }

    /// Sends the present state of a channel to a session that has just got it.
    pub(super) fn send_first(&mut self, session: u64, channel: &str, now: Now) {
        if self.recording.is_some() {
            return self.send_recorded_book(session, channel);
        }
        let Some(topic) = super::channel::Channel::parse(channel).map(|channel| channel.topic) else { return };
        let listing = topic.instrument().and_then(|name| self.open_listing(name));
        let at = moment(self, now);
        let first = match (&topic, listing) {
            (Topic::Ticker(name), Some(listing)) => {
                let ticked = &mut self.market.listings[listing];
                ticked.volume_halves += 1;
                let text = payload::notification(channel, |out| payload::ticker(out, ticked, at).end());
                (text, Some(Key::Ticker(name.clone(), ticked.volume())))
            }
            (Topic::Quote(name), Some(listing)) => {
                let quoted = &mut self.market.listings[listing];
                quoted.quoted_ms = now.ms().max(quoted.quoted_ms + 1);
                let text = payload::notification(channel, |out| payload::write_quote(out, quoted));
                (text, Some(Key::Quote(name.clone(), quoted.quoted_ms)))
            }
            (Topic::Book(name), Some(listing)) => {
                let booked = &self.market.listings[listing];
                let key = BookKey { change_id: booked.book.change_id, snapshot: true };
                let text = payload::notification(channel, |out| payload::write_snapshot(out, booked, now.ms()));
                (text, Some(Key::Book(name.clone(), key)))
            }
            (Topic::BookTop(_), Some(listing)) => {
                let booked = &self.market.listings[listing];
                (payload::notification(channel, |out| payload::write_book_top(out, booked, now.ms())), None)
            }
            (Topic::Index, _) => (payload::notification(channel, |out| payload::write_index(out, at)), None),
            (Topic::Platform, _) => (
                payload::notification(channel, |out| out.push_str(r#"{"price_index":"eth_usd","locked":false}"#)),
                None,
            ),
            _ => return,
        };
        self.lines.queue_text(session, first.0, first.1);
    }

    /// Expires an instrument: its state is told, its channels fall quiet.
    pub(super) fn expire(&mut self, listing: usize) {
        self.close(listing);
        self.publish_state(listing, "settlement");
        self.publish_state(listing, "delivered");
        self.commit();
    }

    fn close(&mut self, listing: usize) {
        let name = self.market.listings[listing].instrument.name.clone();
        self.market.close(listing);
        self.note(Event::Expired { instrument: name });
    }

    /// Lists an instrument and tells its state.
    pub(super) fn list(&mut self, instrument: Instrument) {
        self.note(Event::Listed(instrument.clone()));
        let listing = self.market.list(instrument);
        self.publish_state(listing, "open");
        self.commit();
    }

    /// Expires what has reached its time, and lists as many options of a later one.
    pub(super) fn expire_due(&mut self) {
        let now_ms = self.now().ms();
        let due = |listing: &super::market::Listing| listing.open && listing.instrument.expiration_ms <= now_ms;
        let due: Vec<usize> =
            (0..self.market.listings.len()).filter(|index| due(&self.market.listings[*index])).collect();
        for listing in due {
            if self.recording.is_some() {
                // The frames tell it, and what was listed afterwards.
                self.close(listing);
                continue;
            }
            self.expire(listing);
            self.list_another(now_ms);
        }
    }

    fn publish_state(&mut self, listing: usize, state: &str) {
        let now_ms = self.now().ms();
        let listing = &self.market.listings[listing];
        for kind in
            [Kind::Option, Kind::Future, Kind::Any].into_iter().filter(|kind| kind.includes(listing.is_option()))
        {
            self.lines.publish(&Topic::State(kind), |channel| {
                let write = |out: &mut String| payload::write_state(out, &listing.instrument.name, state, now_ms);
                (payload::notification(channel, write), None)
            });
        }
    }
}

/// Trades by instrument, in the order in which each instrument first traded.
fn grouped(trades: &[Made]) -> Vec<(String, Vec<&Made>)> {
    let mut groups: Vec<(String, Vec<&Made>)> = Vec::new();
    for made in trades {
        match groups.iter_mut().find(|(name, _)| *name == made.0) {
            Some((_, group)) => group.push(made),
            None => groups.push((made.0.clone(), vec![made])),
        }
    }
    groups
}
