//! What a delivery keeps beside the log, and what it says of it at the end: dead letters, the last known position.

use std::sync::{Arc, Mutex};

use tokio::time::Instant;

use super::{
    super::{
        event::Event,
        guard::{blocking, locked},
        known::Noted,
        log::Log,
        setup::Outcome,
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
        let Some(letters) = self.feeder().letters(&self.rows, &self.refusals, Timestamp::now()) else {
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

    pub(super) async fn append(&mut self, batch: Vec<DeadLetter>) -> Result<()> {
        let Some(letters) = &self.letters else { return Err(Error::transient("the dead letters are not open")) };
        let letters = blocking(letters, move |letters| letters.append(&batch).map(|()| letters.count())).await?;
        self.reporter.dead_letters(letters);
        Ok(())
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

    /// Keeps what is known of the store beside the log.
    pub(super) async fn note(&mut self) {
        let Some(known) = &self.known else { return };
        let position = self.machine.stored().or(self.noted.position);
        let noted = match position {
            Some(_) => Noted { position, begins_at: None, chain: Some(self.chain) },
            None => Noted { position, begins_at: self.begins_at, chain: None },
        };
        let written = blocking(known, move |known| known.write(noted)).await;
        self.is_unnoted = written.is_err();
        self.reporter.noted(written, Instant::now());
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

/// How many offsets are looked at to say how many rows stay behind.
const MOST_COUNTED: u64 = 1_000_000;
