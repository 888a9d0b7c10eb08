//! A source's way to the log: what one connection received, handed over in the order in which it happened.

use tokio::sync::mpsc;

use crate::{
    Error, Result,
    deadletter::Redrive,
    protocol::{Covered, GapId, Outbox},
    row::{Records, StreamKey, Table, Timestamp},
    rules::{Rule, holds},
    spool::LeftBy,
};

/// How many buffers go round between a link and intake: one is filled while intake works at the other.
const BUFFERS: usize = 2;

/// Names a link within a pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId {
    /// The source's number in the pipeline.
    pub source: u16,
    /// The source's connection: shards and A/B lines have one each.
    pub line: u16,
}

/// Something that happened on a link besides records. Intake decides what it means and enters it in the log.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// What follows is of a recording: it happened at this time, and each record when it came. Of a link that never says so
    /// it happens when intake takes it.
    Recorded {
        /// When, by the clock of the machine that recorded it.
        at: Timestamp,
    },
    /// A session began; its streams follow as they are confirmed.
    Opened,
    /// The venue vouches for these streams from `at` on, by its own clock. Those of one channel come in one step.
    Confirmed {
        /// The streams, as far as they are known in advance.
        streams: Vec<Covered>,
        /// The venue's time of the confirmation.
        at: Timestamp,
    },
    /// These streams are no longer subscribed to; the session goes on.
    Left {
        /// The streams.
        streams: Vec<StreamKey>,
        /// By whom, or what.
        by: LeftBy,
    },
    /// Frames still came at this time.
    Alive {
        /// When the last one came, by this machine's clock.
        at: Timestamp,
    },
    /// The session is over.
    Ended {
        /// Why, in words for the log and the ledger.
        why: String,
    },
    /// The venue numbers this stream anew.
    Restart(StreamKey),
    /// A frame, or an event of one, that cannot be read.
    Malformed {
        /// As it came.
        raw: Vec<u8>,
        /// What was wrong with it.
        error: String,
    },
    /// A reply answered this gap in full.
    Answered {
        /// The gap.
        gap: GapId,
        /// The number under which it was published when the request was sent: an answer to an older question is none.
        ask: u64,
    },
    /// A reply to a request for this gap came, and brought nothing new of it if no rows came with it.
    Asked {
        /// The gap.
        gap: GapId,
    },
    /// A dead letter goes to its sink again.
    Redrive(Box<Redrive>),
    /// Nothing can be done about this gap.
    Lost {
        /// The gap.
        gap: GapId,
        /// The reason, in the words of the ledger.
        why: String,
    },
}

/// What a link hands over at once. Goes round: intake sends it back empty when the log has it.
#[derive(Debug)]
pub struct Handover {
    /// Whose.
    pub link: LinkId,
    /// The records.
    pub records: Records,
    /// What else happened, each before the record of this number.
    pub steps: Vec<(usize, Step)>,
    /// Set by intake: the log's end behind what came of this.
    pub logged: u64,
    /// Set by intake: it had no room for the rows, and has ended the session in the log.
    pub(super) is_refused: bool,
    home: mpsc::Sender<Self>,
    /// Whether its source cannot wait for room in the spool.
    pub(super) is_live: bool,
    /// Whether the link numbers its streams from the beginning again.
    pub(crate) is_anew: bool,
    /// Whether nothing comes of this link behind it.
    is_last: bool,
}

impl Handover {
    /// Returns the word that a link is gone, on behalf of a link that cannot say it any more. It does not come back.
    pub(crate) fn gone(link: LinkId, why: &str) -> Self {
        let (home, _) = mpsc::channel(1);
        let steps = vec![(0, Step::Ended { why: why.to_owned() })];
        let (records, logged) = (Records::default(), 0);
        Self { link, records, steps, logged, is_refused: false, home, is_live: true, is_anew: false, is_last: true }
    }

    /// Returns whether the link is gone, and this is the last of it.
    pub(super) fn is_last(&self) -> bool {
        self.is_last
    }

    /// Sends the buffer back to its link, empty. A link that is gone does not want it.
    pub(crate) fn done(mut self, logged: u64) {
        self.records.clear();
        self.steps.clear();
        self.logged = logged;
        let home = self.home.clone();
        // There is room for every buffer; the only failure is that the link is gone.
        drop(home.try_send(self));
    }
}

/// One connection's side of the queue to intake.
///
/// Never waits for intake while frames come: what intake cannot take yet is collected, up to a limit in bytes.
#[derive(Debug)]
pub struct Link {
    id: LinkId,
    outbox: Outbox,
    steps: Vec<(usize, Step)>,
    queue: mpsc::Sender<Handover>,
    returned: mpsc::Receiver<Handover>,
    /// Buffers that are back: what they carried is in the log.
    idle: Vec<Handover>,
    limit: usize,
    /// What the steps take, which a venue that sends nothing but what cannot be read could grow without end.
    step_bytes: usize,
    /// When what comes next was recorded, where no step says so yet.
    recorded_at: Option<Timestamp>,
    logged: u64,
    is_refused: bool,
    is_live: bool,
    is_anew: bool,
}

impl Link {
    /// Returns a link that hands over to `queue` and collects at most `limit` bytes meanwhile.
    pub fn new(id: LinkId, tables: Vec<Table>, queue: mpsc::Sender<Handover>, limit: usize) -> Self {
        let (home, returned) = mpsc::channel(BUFFERS);
        for _ in 0..BUFFERS {
            let (records, home_again) = (Records::default(), home.clone());
            let handover = Handover {
                link: id,
                records,
                steps: Vec::new(),
                logged: 0,
                is_refused: false,
                home: home_again,
                is_live: false,
                is_anew: false,
                is_last: false,
            };
            home.try_send(handover).expect("the channel was made for this many");
        }
        Self {
            id,
            outbox: Outbox::new(tables),
            steps: Vec::new(),
            queue,
            returned,
            idle: Vec::with_capacity(BUFFERS),
            limit,
            step_bytes: 0,
            recorded_at: None,
            logged: 0,
            is_refused: false,
            is_live: false,
            is_anew: false,
        }
    }

    /// Forgets the streams that have no record any more, so that a link takes memory for those of one session: their numbers
    /// begin again. Does nothing while something is on the way that has the old ones.
    pub(crate) fn forget_streams(&mut self) {
        if self.is_logged() {
            self.outbox.forget_streams();
            self.is_anew = true;
        }
    }

    /// Returns the link of a feed that does not wait: where there is no room for what it hands over, the session ends in the
    /// log at once. What any other link hands over waits for room.
    pub(crate) fn live(self) -> Self {
        Self { is_live: true, ..self }
    }

    /// Returns its name.
    pub fn id(&self) -> LinkId {
        self.id
    }

    /// Returns where rows and commands go.
    pub fn outbox(&mut self) -> &mut Outbox {
        &mut self.outbox
    }

    /// Says that what follows was recorded at this time.
    pub(crate) fn recorded(&mut self, at: Timestamp) {
        self.recorded_at = Some(at);
    }

    /// Notes something that happened behind the records so far.
    pub fn step(&mut self, step: Step) {
        self.step_before(self.outbox.records().len(), step);
    }

    /// Notes something that happened before the record of this number, and behind what was noted so far.
    pub(crate) fn step_before(&mut self, record: usize, step: Step) {
        if let Some(at) = self.recorded_at.take() {
            self.step_before(record, Step::Recorded { at });
        }
        // What was refused was of the session before.
        self.is_refused &= step != Step::Opened;
        self.step_bytes += size_of::<(usize, Step)>();
        if let Step::Malformed { raw, error } = &step {
            self.step_bytes += raw.len() + error.len();
        }
        if let Step::Redrive(redrive) = &step {
            self.step_bytes += redrive.row.len();
        }
        let earliest = self.steps.last().map_or(0, |(last, _)| *last);
        self.steps.push((record.clamp(earliest, self.outbox.records().len().max(earliest)), step));
    }

    /// Returns whether something waits to be handed over.
    pub fn is_pending(&self) -> bool {
        !self.steps.is_empty() || !self.outbox.records().is_empty()
    }

    /// Returns whether all that happened is in the log.
    pub fn is_logged(&mut self) -> bool {
        while let Ok(buffer) = self.returned.try_recv() {
            self.take_back(buffer);
        }
        !self.is_pending() && self.idle.len() == BUFFERS
    }

    /// Returns the end of what is known to be in the log: of all links, at the time that intake took what was handed over.
    pub(crate) fn logged_upto(&self) -> u64 {
        self.logged
    }

    /// Hands over what has been collected, if intake is ready for it; never waits.
    ///
    /// # Errors
    ///
    /// `Transient` when more than the limit has been collected, which is thrown away, and the session has ended with it, or
    /// intake had no room for what came before: the caller has to begin another session, since nobody knows any more what
    /// the venue sent. `Permanent` when the
    /// pipeline has ended.
    pub fn hand_over(&mut self) -> Result<()> {
        if !self.is_pending() {
            return Ok(());
        }
        // What came back says whether intake had room.
        match self.returned.try_recv().or_else(|empty| self.idle.pop().ok_or(empty)) {
            Ok(mut buffer) => {
                self.hear(&mut buffer);
                let was_refused = self.was_refused();
                // Of a session that it has ended, intake counts what still comes.
                self.send(buffer)?;
                if was_refused { Err(Error::transient("the spool is full")) } else { Ok(()) }
            }
            Err(mpsc::error::TryRecvError::Empty) if self.queue.is_closed() => Err(gone()),
            Err(mpsc::error::TryRecvError::Empty) if self.outbox.records().bytes() + self.step_bytes > self.limit => {
                self.forget();
                if !holds(Rule::OverflowIsSaid) {
                    return Ok(());
                }
                // The end of a session may be in what was thrown away.
                self.step(Step::Ended { why: OVERFLOW.to_owned() });
                Err(Error::transient(OVERFLOW))
            }
            Err(mpsc::error::TryRecvError::Empty) => Ok(()),
            Err(mpsc::error::TryRecvError::Disconnected) => Err(gone()),
        }
    }

    /// Waits until intake is ready, then hands over what has been collected.
    ///
    /// # Errors
    ///
    /// `Permanent` when the pipeline has ended.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: until it completes nothing has been handed over.
    pub async fn handed_over(&mut self) -> Result<()> {
        if !self.is_pending() {
            return Ok(());
        }
        let buffer = match self.idle.pop() {
            Some(buffer) => buffer,
            None => self.returned.recv().await.ok_or_else(gone)?,
        };
        self.send(buffer)
    }

    /// Hands over what has been collected, and waits until all of it is in the log (written, not yet fsynced); returns
    /// the offset of its end.
    ///
    /// # Errors
    ///
    /// `Permanent` when the pipeline has ended.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: what was handed over stays so.
    pub async fn logged(&mut self) -> Result<u64> {
        self.handed_over().await?;
        while self.idle.len() < BUFFERS {
            let buffer = self.returned.recv().await.ok_or_else(gone)?;
            self.take_back(buffer);
        }
        Ok(self.logged)
    }

    /// Returns whether intake has ended the session since it had no room: until the next [`Step::Opened`] it takes no row.
    /// Says so once.
    pub(crate) fn was_refused(&mut self) -> bool {
        std::mem::take(&mut self.is_refused)
    }

    /// Keeps a buffer for later.
    fn take_back(&mut self, mut buffer: Handover) {
        self.hear(&mut buffer);
        self.idle.push(buffer);
    }

    fn hear(&mut self, buffer: &mut Handover) {
        self.logged = self.logged.max(buffer.logged);
        self.is_refused |= std::mem::take(&mut buffer.is_refused);
    }

    fn forget(&mut self) {
        self.outbox.forget_records(0);
        self.steps.clear();
        self.step_bytes = 0;
    }

    fn send(&mut self, mut buffer: Handover) -> Result<()> {
        self.hear(&mut buffer);
        self.outbox.swap_records(&mut buffer.records);
        std::mem::swap(&mut self.steps, &mut buffer.steps);
        self.step_bytes = 0;
        buffer.is_live = self.is_live;
        buffer.is_anew = std::mem::take(&mut self.is_anew);
        // The pipeline's queue has a place for every buffer of every link.
        self.queue.try_send(buffer).map_err(|_| gone())
    }
}

const OVERFLOW: &str = "the log cannot keep up: what came meanwhile is thrown away";

fn gone() -> Error {
    Error::permanent("the pipeline has ended")
}
