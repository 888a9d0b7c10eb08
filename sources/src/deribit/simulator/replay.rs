//! How the venue plays a capture: as with a market, what was made is noted first, then those are told who subscribed.

use std::time::Duration;

use super::{
    events::Made,
    fold::Event,
    oracle::Trade,
    recording::{Due, Recording},
    venue::Venue,
};

impl Venue {
    /// Plays what is due after another `step`. The recording waits for the first subscription.
    pub(super) fn play(&mut self, step: Duration) {
        let Some(recording) = &mut self.recording else { return };
        if !recording.has_begun() && self.lines.topics().is_empty() {
            return;
        }
        recording.pass(step);
        while let Some(Due { trades, frame }) = self.recording.as_mut().and_then(Recording::next_due) {
            for (instrument, trade) in &trades {
                self.note_recorded(instrument.clone(), trade.clone(), false);
            }
            let is_untold =
                |(_, trade): &Made| self.recording.as_ref().is_some_and(|recording| !recording.tells(trade));
            let untold: Vec<Made> = trades.into_iter().filter(is_untold).collect();
            self.publish_trades(&untold);
            if let Some(frame) = frame {
                self.lines.publish_as(&frame.topic, &frame.channel, frame.text, frame.key.as_ref());
            }
        }
        self.commit();
        if self.recording.as_mut().is_some_and(Recording::is_over) {
            self.is_played.cancel();
        }
    }

    /// Takes down a trade of the recording.
    pub(super) fn note_recorded(&mut self, instrument: String, trade: Trade, past: bool) {
        let traded = self.market.listings.iter_mut().find(|listing| listing.instrument.name == instrument);
        if let Some(listing) = traded {
            listing.remember(trade.clone());
        }
        self.note(Event::Trade { instrument, trade, past });
    }

    /// Sends a book as it is now to a session that has just got its channel. The other channels have no first message:
    /// what they said last has been sent in its time.
    pub(super) fn send_recorded_book(&mut self, session: u64, channel: &str) {
        let book = self.recording.as_ref().and_then(|recording| recording.snapshot(channel));
        if let Some((text, key)) = book {
            self.lines.queue_text(session, text, Some(key));
        }
    }
}
