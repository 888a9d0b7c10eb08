//! How a fault is done to the venue and its sessions.

use tokio_tungstenite::tungstenite::Message;

use super::{
    calendar::{DAY_MS, expiries, format_day},
    channel::Topic,
    fault::Fault,
    fold::Event,
    instrument::{CURRENCY, Instrument},
    lines::{End, Item},
    venue::Venue,
};

/// A frame that no reader of JSON takes.
const MALFORMED: &str = r#"{"jsonrpc":"2.0","method":"subscription","params":{"channel":"ticker.ETH-PERPETUAL.100ms","data":{"timestamp":}}}"#;

/// A frame that ends in the middle, as after a broken proxy.
const TRUNCATED: &str =
    r#"{"jsonrpc":"2.0","method":"subscription","params":{"channel":"trades.ETH-PERPETUAL.100ms","data":[{"timest"#;

impl Venue {
    /// Does a fault to every session, or to the venue, and returns how many sessions or instruments it hit.
    pub(super) fn inject(&mut self, fault: Fault) -> usize {
        let everybody = self.lines.sessions();
        self.do_to(fault, &everybody)
    }

    /// Does a fault of the schedule: one session is hit.
    pub(super) fn strike(&mut self, fault: Fault) -> usize {
        let sessions = self.lines.sessions();
        let chosen: Vec<u64> = sessions.get(self.chance.below(sessions.len())).copied().into_iter().collect();
        self.do_to(fault, &chosen)
    }

    fn do_to(&mut self, fault: Fault, sessions: &[u64]) -> usize {
        if self.recording.is_some() && fault.is_of_market() {
            return 0;
        }
        let now = self.now();
        match fault {
            Fault::Cut => self.end_all(sessions, End::Cut),
            Fault::Torn => self.end_all(sessions, End::Torn),
            Fault::Close { code } => self.end_all(sessions, End::Close(code)),
            Fault::HalfOpen => self.end_all(sessions, End::HalfOpen),
            Fault::Malformed => self.send_all(sessions, &Message::text(MALFORMED)),
            Fault::Truncated => self.send_all(sessions, &Message::text(TRUNCATED)),
            Fault::Oversized { bytes } => self.send_all(sessions, &Message::text("x".repeat(bytes))),
            Fault::Binary => self.send_all(sessions, &Message::binary(vec![0, 159, 146, 150])),
            Fault::Frame(text) => self.send_all(sessions, &Message::text(text)),
            Fault::Duplicate => self.hit_traded(Self::duplicate_trade),
            Fault::Reorder => self.hit_traded(Self::reorder_trades),
            Fault::Skip => self.hit_traded(Self::skip_trade),
            Fault::SkipBook => self.hit_booked(),
            Fault::Restart => self.hit_traded(Self::restart_sequence),
            Fault::Expire => match self.market.any_open_option(&mut self.chance) {
                Some(listing) => {
                    self.expire(listing);
                    1
                }
                None => 0,
            },
            Fault::List => usize::from(self.list_another(now.ms())),
            Fault::Lasting(condition, lasting) => {
                self.conditions.begin(condition, now.instant, lasting);
                1
            }
        }
    }

    fn end_all(&mut self, sessions: &[u64], end: End) -> usize {
        sessions.iter().for_each(|session| self.lines.queue(*session, Item::End(end)));
        self.commit();
        sessions.len()
    }

    fn send_all(&mut self, sessions: &[u64], message: &Message) -> usize {
        for session in sessions {
            self.lines.queue(*session, Item::Send { message: message.clone(), key: None });
        }
        self.commit();
        sessions.len()
    }

    /// Does something to an instrument whose trades somebody gets.
    fn hit_traded(&mut self, fault: impl FnOnce(&mut Self, usize)) -> usize {
        self.hit_any(
            |topic, venue, listing| {
                let listing = &venue.market.listings[listing];
                topic.carries_trades_of(&listing.instrument.name, listing.is_option())
            },
            fault,
        )
    }

    fn hit_booked(&mut self) -> usize {
        self.hit_any(|topic, venue, listing| {
            matches!(topic, Topic::Book(name) if *name == venue.market.listings[listing].instrument.name)
        }, Self::skip_book_change)
    }

    fn hit_any(&mut self, suits: impl Fn(&Topic, &Self, usize) -> bool, fault: impl FnOnce(&mut Self, usize)) -> usize {
        let topics = self.lines.topics();
        let suitable = |listing: &usize| {
            let candidate = &self.market.listings[*listing];
            candidate.open && !candidate.quiet && topics.iter().any(|topic| suits(topic, self, *listing))
        };
        let candidates: Vec<usize> = (0..self.market.listings.len()).filter(suitable).collect();
        let Some(chosen) = candidates.get(self.chance.below(candidates.len())) else { return 0 };
        fault(self, *chosen);
        1
    }

    /// Makes a trade and sends it.
    pub(super) fn make_trade(&mut self, listing: usize) {
        let made = self.trade(listing, self.now());
        self.publish_trades(&[made]);
        self.commit();
    }

    /// Makes a trade and sends it twice.
    pub(super) fn duplicate_trade(&mut self, listing: usize) {
        let made = [self.trade(listing, self.now())];
        self.publish_trades(&made);
        self.publish_trades(&made);
        self.commit();
    }

    /// Makes two trades and sends the second one first.
    pub(super) fn reorder_trades(&mut self, listing: usize) {
        let now = self.now();
        let (first, second) = (self.trade(listing, now), self.trade(listing, now));
        self.publish_trades(&[second]);
        self.publish_trades(&[first]);
        self.commit();
    }

    /// Makes two trades and sends the second only.
    pub(super) fn skip_trade(&mut self, listing: usize) {
        let now = self.now();
        let (_unsent, sent) = (self.trade(listing, now), self.trade(listing, now));
        self.publish_trades(&[sent]);
        self.commit();
    }

    /// Changes a book twice and sends the second change only.
    pub(super) fn skip_book_change(&mut self, listing: usize) {
        let _unsent = self.market.update(listing);
        self.update_book(listing);
    }

    /// Changes a book and sends the change, with quote and ticker.
    pub(super) fn update_book(&mut self, listing: usize) {
        let change = self.market.update(listing);
        self.publish_update(listing, &change, self.now());
        self.commit();
    }

    /// Numbers an instrument's trades from 1 again, and makes the first of them.
    pub(super) fn restart_sequence(&mut self, listing: usize) {
        let epoch = self.market.restart_sequence(listing);
        let instrument = self.market.listings[listing].instrument.name.clone();
        self.note(Event::Restarted { instrument, epoch });
        self.make_trade(listing);
    }

    /// Lists an option of a later expiry, with a strike that is not listed yet.
    pub(super) fn list_another(&mut self, now_ms: i64) -> bool {
        let listed = self.market.listings.len();
        let days = expiries(now_ms / DAY_MS);
        let (day, _) = days[self.chance.below(days.len())];
        let at_the_money = (self.market.spot / 25.0).round() as i64;
        for distance in 0..1000 {
            let strike = 25 * (at_the_money + if distance % 2 == 0 { distance / 2 } else { -(distance / 2) });
            let side = if self.chance.one_in(2) { 'C' } else { 'P' };
            let name = format!("{CURRENCY}-{}-{strike}-{side}", format_day(day));
            let unused = self.market.listings.iter().all(|listing| listing.instrument.name != name);
            if let Some(instrument) = Instrument::from_name(&name, 650_000 + listed as u64, now_ms).filter(|_| unused) {
                self.list(instrument);
                return true;
            }
        }
        false
    }
}
