//! Intake on its caller's thread: what benches measure and what the test of allocations counts.

use std::{sync::Arc, time::Instant};

use tokio::sync::mpsc;

use super::{
    Handover, Link, LinkId, Setup,
    entry::{Accepted, Intake, Now, Place, Rows},
    opening::open_on,
};
use crate::{
    Error, Result,
    row::{Table, Timestamp},
    spool::{SpoolReader, disk::Disk},
};

/// A pipeline's intake without its task: the caller says when handovers are entered and when they become durable.
#[derive(Debug)]
pub struct InlineIntake {
    intake: Intake,
    queue: mpsc::Sender<Handover>,
    handovers: mpsc::Receiver<Handover>,
    began: Instant,
}

impl InlineIntake {
    /// Opens a spool as a pipeline does, on a disk of the caller's choice.
    ///
    /// # Errors
    ///
    /// Those of [`intake::start`](crate::intake::start).
    pub fn open(disk: Arc<dyn Disk>, setup: Setup) -> Result<Self> {
        let intake = open_on(disk, setup)?.task.into_intake();
        let (queue, handovers) = mpsc::channel(QUEUE);
        Ok(Self { intake, queue, handovers, began: Instant::now() })
    }

    /// Returns a new link of the first source.
    pub fn link(&self, line: u16, tables: Vec<Table>) -> Link {
        Link::new(LinkId { source: 0, line }, tables, self.queue.clone(), usize::MAX)
    }

    /// Enters what the links have handed over, and returns how many rows were written.
    ///
    /// # Errors
    ///
    /// Those of [`SpoolWriter::append`](crate::spool::SpoolWriter::append). `Transient` when the spool takes no more now.
    pub fn enter(&mut self) -> Result<u64> {
        let mut rows = 0;
        while let Ok(handover) = self.handovers.try_recv() {
            let mut place = Place::default();
            let logged = loop {
                let now = Now { wall: Timestamp::now(), mono: self.began.elapsed() };
                let accepted = self.intake.accept(now, &handover, place, Rows::Keep)?;
                match accepted {
                    Accepted::Done(logged) => {
                        rows += self.intake.rows();
                        break logged;
                    }
                    Accepted::Part(next) => {
                        rows += self.intake.rows();
                        place = next;
                    }
                    Accepted::Behind => self.sync()?,
                    Accepted::Full => return Err(Error::transient("the spool is full")),
                }
            };
            handover.done(logged);
            if self.intake.spool.wants_roll() {
                self.intake.spool.roll(self.intake.continuity.snapshot())?;
            }
        }
        Ok(rows)
    }

    /// Makes all that was entered durable, and waits for it.
    ///
    /// # Errors
    ///
    /// Those of [`SpoolWriter::synced`](crate::spool::SpoolWriter::synced).
    pub fn sync(&mut self) -> Result<()> {
        match self.intake.spool.sync_job() {
            Some(job) => self.intake.spool.synced(job.run()),
            None => Ok(()),
        }
    }

    /// Returns the readers' side of the spool.
    pub fn reader(&self) -> SpoolReader {
        self.intake.spool.reader()
    }

    /// Returns how many bytes the spool has.
    pub fn bytes(&self) -> u64 {
        self.intake.spool.bytes()
    }
}

/// Places in the queue: two for each link that a bench may have.
const QUEUE: usize = 64;
