//! The venue's whole state, behind one lock: market, oracle, file, sessions.
//!
//! Everything that happens is noted first (`note`), then the file is flushed and only then anybody is told (`commit`).

use std::{
    io,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tokio_util::sync::CancellationToken;
use tracing::error;

use super::{
    calendar::DAY_MS,
    conditions::Conditions,
    config::{Credentials, SimulatorConfig},
    credits::Credits,
    fault::Fault,
    faults::Schedule,
    fold::{Event, SentFrames},
    lines::{Key, Lines, Mailbox},
    market::Market,
    oracle::Oracle,
    random::{Random, mix},
    recording::Recording,
    sent_file::{SentFile, VERSION},
};

/// Everything about the simulated venue that changes.
#[derive(Debug)]
pub(super) struct Venue {
    pub(super) market: Market,
    /// What is played instead of what the market would make.
    pub(super) recording: Option<Recording>,
    /// Cancelled when all of the recording has been played.
    pub(super) is_played: CancellationToken,
    pub(super) oracle: Oracle,
    pub(super) lines: Lines,
    pub(super) conditions: Conditions,
    pub(super) schedule: Schedule,
    pub(super) address_credits: Credits,
    pub(super) key_credits: Credits,
    /// Chooses whom a fault hits, apart from the market's own chance.
    pub(super) chance: Random,
    pub(super) frozen: bool,
    /// For how long the venue has run unfrozen.
    pub(super) running: Duration,
    pub(super) testnet: bool,
    pub(super) credentials: Option<Credentials>,
    pub(super) heartbeat_second: Duration,
    pub(super) history: Duration,
    backlog: usize,
    file: Option<SentFile>,
    failure: Option<io::Error>,
    /// Cancelled with the failure.
    pub(super) broken: CancellationToken,
}

/// A moment on both clocks; the venue's own may be wrong.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    pub(super) instant: Instant,
    /// Microseconds since 1970 by the venue's clock.
    pub(super) us: i64,
}

impl Now {
    pub(super) fn ms(self) -> i64 {
        self.us / 1000
    }
}

impl Venue {
    /// Opens a venue that begins, or goes on where its file ends.
    pub(super) fn open(config: &SimulatorConfig) -> io::Result<Self> {
        let mut recording = match &config.replay {
            Some(from) => Some(Recording::open(from, config.replay_speed)?),
            None => None,
        };
        let (file, oracle) = match &config.sent {
            Some(path) => {
                let (file, oracle) = SentFile::open(path)?;
                (Some(file), oracle)
            }
            None => (None, Oracle::default()),
        };
        let begins = oracle.instruments.is_empty();
        if recording.is_some() && !begins {
            let why = "the `sent` file has begun already, and a replay begins at its beginning: name another file";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        let today = recording.as_ref().map_or_else(real_us, Recording::now_us) / 1000 / DAY_MS;
        let step_ms = 1000.0 / config.rate;
        let past = recording.as_mut().map(Recording::past);
        let market = if let Some(recording) = &recording {
            Market::of(recording.instruments(), config.seed, today)
        } else if begins {
            Market::new(config.seed, today, config.instruments, step_ms)
        } else {
            Market::resumed(config.seed, &oracle, today, step_ms)
        };
        let now = Instant::now();
        let mut venue = Self {
            market,
            recording,
            is_played: CancellationToken::new(),
            oracle,
            lines: Lines::default(),
            conditions: Conditions::default(),
            schedule: Schedule::new(&config.faults, mix(config.seed ^ 0xFA)),
            address_credits: Credits::new(config.credits, now),
            key_credits: Credits::new(config.credits, now),
            chance: Random::new(mix(config.seed ^ 0xCE)),
            frozen: config.paused,
            running: Duration::ZERO,
            testnet: config.testnet,
            credentials: config.credentials.clone(),
            heartbeat_second: config.heartbeat_second,
            history: config.history,
            backlog: config.backlog,
            file,
            failure: None,
            broken: CancellationToken::new(),
        };
        venue.note(Event::Started { version: VERSION, seed: config.seed });
        if let Some(past) = past {
            venue.list_first();
            past.into_iter().for_each(|(instrument, trade)| venue.note_recorded(instrument, trade, true));
        } else if begins {
            venue.begin();
        }
        venue.commit();
        venue.failure.take().map_or(Ok(venue), Err)
    }

    /// Lists the first instruments and makes up trades of the last days, so that REST has a past to show.
    fn begin(&mut self) {
        let now_ms = self.now().ms();
        self.list_first();
        for listing in 0..self.market.listings.len() {
            let past = if self.market.listings[listing].seq == 0 { 0 } else { 1 + self.chance.below(5) };
            // One instrument in four last traded before what the main host remembers.
            let newest = if self.chance.one_in(4) { 26 } else { 1 };
            for back in (0..past).rev() {
                let age_ms = 3_600_000 * (newest + 2 * back as i64) - self.chance.below(3_600_000) as i64;
                let trade = self.market.trade(listing, now_ms - age_ms);
                let instrument = self.market.listings[listing].instrument.name.clone();
                self.note(Event::Trade { instrument, trade, past: true });
            }
        }
    }

    fn list_first(&mut self) {
        let listed: Vec<_> = self.market.listings.iter().map(|listing| listing.instrument.clone()).collect();
        listed.into_iter().for_each(|instrument| self.note(Event::Listed(instrument)));
    }

    /// Returns the time by the venue's clock, which is the recording's where one is played.
    pub(super) fn now(&self) -> Now {
        let instant = Instant::now();
        let us = self.recording.as_ref().map_or_else(real_us, Recording::now_us);
        Now { instant, us: us + self.conditions.skew_ms(instant) * 1000 }
    }

    /// Takes down what has happened. It is in the file after the next `commit`.
    pub(super) fn note(&mut self, event: Event) {
        let at_ms = real_us() / 1000;
        if let Some(file) = &mut self.file {
            file.append(at_ms, &event);
        }
        self.oracle.apply(at_ms, event);
    }

    /// Flushes the file, then tells everybody. What cannot be written down is told to nobody.
    pub(super) fn commit(&mut self) {
        self.flush();
        if !self.broken.is_cancelled() {
            self.lines.dispatch();
        }
    }

    fn flush(&mut self) {
        if let Some(file) = &mut self.file
            && let Err(failed) = file.flush()
        {
            error!(error = %failed, "the simulated venue stops: what it sends cannot be written down");
            self.failure.get_or_insert(failed);
            self.broken.cancel();
            self.frozen = true;
            self.lines.give_up();
        }
    }

    /// Returns why the venue could not go on, once.
    pub(super) fn take_failure(&mut self) -> Option<io::Error> {
        self.failure.take()
    }

    /// Opens a session.
    pub(super) fn open_session(&mut self) -> Mailbox {
        let session = self.oracle.sessions.len() as u64 + 1;
        self.note(Event::Opened { session });
        self.commit();
        self.lines.open(session, self.backlog)
    }

    /// Takes down what is about to be handed to a socket, and returns false if it must not be.
    pub(super) fn handing_over(&mut self, session: u64, keys: impl IntoIterator<Item = Key>) -> bool {
        let mut frames = SentFrames::default();
        for key in keys {
            match key {
                Key::Ticker(instrument, volume) => frames.tickers.push((instrument, volume)),
                Key::Quote(instrument, timestamp) => frames.quotes.push((instrument, timestamp)),
                Key::Book(instrument, key) => frames.books.push((instrument, key)),
            }
        }
        if frames != SentFrames::default() {
            self.note(Event::Sent { session, frames });
            self.flush();
        }
        !self.broken.is_cancelled()
    }

    /// Ends a session; the first reason counts.
    pub(super) fn end_session(&mut self, session: u64, why: &str) {
        if self.lines.close(session) {
            self.note(Event::Ended { session, why: why.to_owned() });
            self.commit();
        }
    }

    /// Returns the index of an instrument that is listed and trades.
    pub(super) fn open_listing(&self, instrument: &str) -> Option<usize> {
        self.market.listings.iter().position(|listing| listing.open && listing.instrument.name == instrument)
    }

    pub(super) fn is_open(&self, instrument: &str) -> bool {
        self.open_listing(instrument).is_some()
    }

    /// Returns the faults that are due now that the venue has run for `step` longer.
    pub(super) fn faults_due(&mut self, step: Duration) -> Vec<Fault> {
        self.running += step;
        self.schedule.due(self.running)
    }
}

/// Microseconds since 1970 by the real clock.
fn real_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
