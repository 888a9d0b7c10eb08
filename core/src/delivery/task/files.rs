//! What a delivery keeps beside the log, and what it says of it at the end: dead letters, the last known position.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    super::{
        event::Event,
        guard::{blocking, locked},
        known::Noted,
        log::Log,
        setup::{Floor, Outcome},
    },
    Delivery, fits, strange_refusals,
};
use crate::{
    Error, Result,
    caught::caught,
    deadletter::{DeadLetter, DeadLetters, Sent},
    row::Timestamp,
    spool::{SpoolPosition, Standing},
};

impl<L: Log> Delivery<L> {
    /// Notes where a sink begins that was never written to. Nothing more may come into the spool before: with `start = "latest"`
    /// a kill would move it.
    ///
    /// # Errors
    ///
    /// `Transient` while the disk does not take the note.
    pub fn begin(&self) -> Result<()> {
        let (Some(known), Noted { position: None, begins_at: None, .. }) = (&self.known, self.noted) else {
            return Ok(());
        };
        let Some(begins_at) = self.begins_at else { return Ok(()) };
        locked(known).write(Noted { begins_at: Some(begins_at), ..Noted::default() })
    }

    /// Throws away the dead letters of rows that are read again now.
    pub(super) async fn discard(&mut self) -> Event {
        let (disk, letters) = (self.disk.clone(), self.letters.clone());
        let from = self.machine.read_to().offset;
        let discarded = blocking(&self.feeder, move |feeder| {
            // Letters of rows that the log has no more, or of another history, are all that is left of them.
            let (log, after) = (feeder.log(), from.max(feeder.log().extent().first.offset));
            let comes_again = |row: SpoolPosition| row.offset > after && log.standing(row) == Standing::Retained;
            let Some(letters) = letters else {
                return DeadLetters::open(disk, comes_again).map(|(letters, _)| Arc::new(Mutex::new(letters)));
            };
            locked(&letters).discard(after, comes_again)?;
            Ok(letters)
        });
        match discarded.await {
            Ok(letters) => {
                self.reporter.dead_letters(locked(&letters).count());
                self.letters = Some(letters);
                Event::Discarded
            }
            Err(error) => Event::NotBuried(error),
        }
    }

    /// Makes the refused rows dead letters.
    pub(super) async fn bury(&mut self) -> Event {
        let (from, derived) = (self.machine.in_hand().from, self.feeder().derived_among(&self.refusals));
        let origins = match blocking(&self.feeder, move |feeder| feeder.origins(from, &derived)).await {
            Ok(origins) => origins,
            Err(error) => return Event::NotBuried(error),
        };
        let Some(letters) = self.feeder().letters(&self.rows, &self.refusals, Timestamp::now(), &origins) else {
            return Event::Failed(strange_refusals());
        };
        match self.append(letters).await {
            Ok(()) => {
                self.reporter.refused(&self.refusals, Instant::now());
                let causes: Vec<_> = self.refusals.drain(..).map(|refusal| refusal.cause).collect();
                self.feeder().leave_out(causes);
                self.rows.clear();
                Event::Buried
            }
            Err(error) => Event::NotBuried(error),
        }
    }

    /// Makes rows dead letters that no chunk has: they are left out of the next one.
    pub(super) async fn leave_out(&mut self, letters: Vec<DeadLetter>) -> Event {
        let causes: Vec<_> = letters.iter().map(DeadLetter::cause).collect();
        match self.append(letters).await {
            Ok(()) => {
                self.feeder().leave_out(causes);
                Event::Buried
            }
            Err(error) => Event::NotBuried(error),
        }
    }

    pub(super) async fn append(&mut self, batch: Vec<DeadLetter>) -> Result<()> {
        self.note_segment().await?;
        let Some(letters) = &self.letters else { return Err(Error::transient("the dead letters are not open")) };
        let began = Instant::now();
        let letters = blocking(letters, move |letters| letters.append(&batch).map(|()| letters.count())).await?;
        self.reporter.buried(began, letters);
        Ok(())
    }

    /// Returns when the position is to be noted, if it is not yet: also where no more is committed for a long time, since the
    /// log keeps everything behind it.
    pub(super) fn note_at(&self) -> Option<Instant> {
        let noted = locked(self.known.as_ref()?).noted().position;
        let is_news = self.machine.stored().is_some_and(|stored| noted != Some(stored));
        is_news.then_some(self.remember_at)
    }

    /// Notes the position, if it is time.
    pub(super) async fn note_in_time(&mut self, now: Instant) {
        if self.note_at().is_some_and(|at| at <= now) {
            self.note().await;
            self.remember_at = now + REMEMBER_EVERY;
            self.show_floor();
        }
    }

    /// Says up to where the log is no longer needed.
    pub(super) fn show_floor(&self) {
        // A store that keeps its position itself needs no note: one that no disk takes must not keep the spool full.
        let is_needed = !(self.is_unnoted && self.keeps_position);
        let replay_from = self.known.as_ref().and_then(|known| locked(known).noted().position).filter(|_| is_needed);
        let floor = Floor { committed: self.machine.stored(), replay_from };
        self.floor.send_if_modified(|shown| std::mem::replace(shown, floor) != floor);
    }

    /// Asks the dead letters which of the rows that send one again go to the store.
    pub(super) async fn ask_letters(&mut self, rows: Vec<Sent>) -> Event {
        let Some(letters) = &self.letters else {
            return Event::NotBuried(Error::transient("the dead letters are not open"));
        };
        let asked = blocking(letters, move |letters| letters.redriven(&rows).map(|go| (rows, go, letters.count())));
        match asked.await {
            Ok((rows, go, letters)) => {
                self.reporter.dead_letters(letters);
                self.reporter.redriven(&go);
                self.feeder().redriven(rows, &go);
                Event::Buried
            }
            Err(error) => Event::NotBuried(error),
        }
    }

    /// Keeps what is known of the store beside the log; what no disk takes now is noted later.
    pub(super) async fn note(&mut self) {
        let written = self.keep().await;
        self.reporter.noted(written, Instant::now());
    }

    async fn keep(&mut self) -> Result<()> {
        let Some(known) = &self.known else { return Ok(()) };
        let position = self.machine.stored().or(self.noted.position);
        let entered = Some(self.feeder().log().entered()).filter(|entered| *entered > 0);
        // Where it began does not change any more: `verify` asks for it as long as the sink is there.
        let begins_at = if self.noted.position.is_some() { self.noted.begins_at } else { self.begins_at };
        let chain = position.map(|_| self.chain);
        let noted = Noted { position, begins_at, chain, entered, changed: self.noted.changed };
        let written = blocking(known, move |known| known.write(noted)).await;
        self.is_unnoted = written.is_err();
        written
    }

    /// Notes of which segment something may have a fate from now on, before the first of it has one: should nobody be able
    /// to say what became of that, the segment stays.
    ///
    /// # Errors
    ///
    /// When it is not durable, and the log drops its oldest segments when it is full: then nothing of the segment may go to
    /// the store, nor become a dead letter.
    pub(super) async fn note_segment(&mut self) -> Result<()> {
        let known = self.known.as_ref().and_then(|known| locked(known).noted().entered);
        if self.feeder().log().entered() <= known.unwrap_or_default() {
            return Ok(());
        }
        match self.keep().await {
            // Nobody drops it then, and a disk that takes no note must not keep the log full.
            Err(_) if !self.drops_oldest => Ok(()),
            kept => kept,
        }
    }

    pub(super) async fn end(mut self) -> Outcome {
        if self.machine.stored().is_some() {
            self.note().await;
        }
        let counted = caught("counting", self.count()).await.flatten();
        let (rows_left, more_left) = counted.unwrap_or((0, true));
        let failure = self.machine.failure().map(str::to_owned).or_else(|| self.fault.take());
        let balance = self.machine.balance().copied();
        let outcome = Outcome { balance, rows_stored: self.rows_stored, rows_left, more_left, failure };
        self.reporter.ended(&outcome, Instant::now());
        outcome
    }

    /// Counts the rows that wait for the store, up to a bound; then says that there are more.
    pub(super) async fn count(&mut self) -> Result<(u64, bool)> {
        let from = self.machine.balance().map(|balance| balance.upto).or(self.noted.position).or(self.begins_at);
        let synced = self.synced.borrow().offset;
        let counted = blocking(&self.feeder, move |feeder| {
            let oldest = feeder.log().extent().first;
            let from = from.filter(|from| fits(feeder.log().standing(*from))).unwrap_or(oldest);
            if from.offset < synced { feeder.count_rows(from, synced, MOST_COUNTED) } else { Ok((0, false)) }
        });
        counted.await
    }
}

/// How often a position is noted beside the log.
const REMEMBER_EVERY: Duration = Duration::from_secs(1);

/// How many offsets are looked at to say how many rows stay behind.
const MOST_COUNTED: u64 = 1_000_000;
