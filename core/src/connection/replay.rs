//! Replays a capture: the same calls of the same protocol, so the same rows.
//!
//! The rows go through the spool like those of any source, with the times at which they came, and so does what the log is
//! told beside them: the ledger of a replay says what that of the recorded run said. What a protocol sends is thrown away,
//! since its answers are in the capture.

use std::{
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};

use super::{
    capture::{self, Body, Event, Line},
    played::{Begun, Played},
    vouch::{ALIVE_EVERY, Confirmations, ended_streams, malformed},
};
use crate::{
    Error, Kind, Result,
    catalog::Factory,
    config::{ReplayConfig, Speed},
    intake::{Ask, Link, Step},
    protocol::{Close, Command, Frame, Gap, GapId, Outbox, Protocol, Remedy, Reply, Request},
    row::{Origin, Table, Timestamp},
    source::{Source, SourceContext},
    spool::LeftBy,
};

/// A capture, as a source.
pub struct ReplaySource {
    factory: Factory<Box<dyn Protocol>>,
    from: PathBuf,
    speed: Speed,
    tables: Vec<Table>,
}

impl ReplaySource {
    /// Returns the source of a capture of this protocol.
    ///
    /// # Errors
    ///
    /// What the factory returned.
    pub fn new(factory: Factory<Box<dyn Protocol>>, config: ReplayConfig) -> Result<Self> {
        let tables = factory()?.tables();
        Ok(Self { factory, from: config.from, speed: config.speed, tables })
    }
}

#[async_trait]
impl Source for ReplaySource {
    fn tables(&self) -> Vec<Table> {
        self.tables.clone()
    }

    async fn run(self: Box<Self>, cx: SourceContext) -> Result<()> {
        let (from, folder) = (self.from.clone(), cx.folder.clone());
        let (lines, begun) = blocking(move || Ok((capture::read(&from)?, Played::begin(&folder, &from)?))).await?;
        let played = match begun {
            Begun::New(played) => played,
            Begun::Before(how) => {
                let from = self.from.display();
                tracing::info!(pipeline = cx.health.id().pipeline(), "replayed `{from}` was played before, {how}");
                return Ok(());
            }
        };
        let (queue, mut read) = mpsc::channel(LINES_AHEAD);
        // Reading waits for the disk and unpacks, which is no work for the runtime's threads.
        let reader = tokio::task::spawn_blocking(move || {
            for line in lines {
                if queue.blocking_send(line).is_err() {
                    return;
                }
            }
        });
        let protocol = (self.factory)()?;
        let link = cx.link(usize::MAX);
        let mut replay = Replay {
            factory: self.factory,
            protocol,
            link,
            cx,
            vouched: BTreeSet::new(),
            alive_at: None,
            heard_at: None,
            commands: Vec::new(),
            is_open: false,
            cut: None,
        };
        let outcome = replay.run(&mut read, self.speed).await;
        drop(read);
        // It ends with its queue. What a panic has left unread was not played.
        let is_read =
            reader.await.map_err(|error| Error::permanent("reading the recording has panicked").because(error));
        let outcome = outcome.and_then(|end| is_read.map(|()| end));
        let logged = replay.finish(outcome.as_ref().err()).await?;
        // At a stop a full spool is not waited for.
        if outcome? == End::OfRecording && !replay.link.was_refused() {
            replay.cx.synced(logged).await?;
            let cut = replay.cut.take();
            blocking(move || played.end(cut.as_deref())).await?;
        }
        Ok(())
    }
}

/// Does what waits for the disk where it holds up nobody.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Error::permanent("looking at the recording has panicked").because(error))?
}

/// Why a replay ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// All of it was played.
    OfRecording,
    /// It was told to.
    Told,
}

struct Replay {
    factory: Factory<Box<dyn Protocol>>,
    protocol: Box<dyn Protocol>,
    link: Link,
    cx: SourceContext,
    /// The channels that the venue has confirmed.
    vouched: BTreeSet<String>,
    alive_at: Option<i64>,
    /// When the last frame of the session came.
    heard_at: Option<Timestamp>,
    commands: Vec<(usize, Command)>,
    is_open: bool,
    /// The last file that ended before its end.
    cut: Option<PathBuf>,
}

impl Replay {
    async fn run(&mut self, lines: &mut mpsc::Receiver<Result<Line>>, speed: Speed) -> Result<End> {
        self.cx.health.subscribed();
        self.cx.health.healthy("replaying a capture");
        let mut began: Option<(Instant, Timestamp)> = None;
        let mut waiting = 0;
        loop {
            let line = tokio::select! {
                () = self.cx.stop.cancelled() => return Ok(End::Told),
                line = lines.recv() => line,
            };
            let Some(line) = line else { return Ok(End::OfRecording) };
            let line = line?;
            let (start, first) = *began.get_or_insert_with(|| (Instant::now(), line.at));
            if let Some(pause) = speed.of(line.at.0.saturating_sub(first.0)) {
                // Whoever keeps to a pace has nothing to collect.
                self.link.handed_over().await?;
                tokio::select! {
                    () = self.cx.stop.cancelled() => return Ok(End::Told),
                    () = sleep_until(start + pause) => {}
                }
            }
            self.line(line).await?;
            waiting += 1;
            if waiting >= HAND_OVER_EACH || lines.is_empty() {
                waiting = 0;
                self.link.handed_over().await?;
            }
        }
    }

    /// Makes the call of one line.
    async fn line(&mut self, line: Line) -> Result<()> {
        let at = line.at;
        self.link.recorded(at);
        match line.event {
            Event::Start { .. } | Event::Anew => {
                self.end("the capture of another run begins");
                self.protocol = (self.factory)()?;
            }
            Event::Discover => self.discover(None, at)?,
            Event::Discovered { request, status, body } => {
                let (request, bytes) = (Request::get(request.url), body.bytes());
                self.discover(Some(&Reply { request: &request, status, body: &bytes }), at)?;
            }
            Event::Open { .. } => self.open(at)?,
            Event::Subscribe { channels } => {
                let names: Vec<&str> = channels.iter().map(String::as_str).collect();
                self.call(at, Origin::Live, |protocol, out| protocol.subscribe(&names, out))?;
            }
            Event::Unsubscribe { channels } => {
                let names: Vec<&str> = channels.iter().map(String::as_str).collect();
                self.call(at, Origin::Live, |protocol, out| protocol.unsubscribe(&names, out))?;
            }
            Event::Unended { channels } => {
                channels.iter().for_each(|channel| _ = self.vouched.remove(channel));
                self.unsubscribed(&channels);
            }
            Event::Frame { body } => self.frame(&body, at)?,
            Event::Wake => self.call(at, Origin::Live, |protocol, out| protocol.on_wake(out))?,
            Event::End { why } => self.end(&why),
            Event::Reply { request, status, body, gaps } => {
                let (request, bytes) = (Request::get(request.url), body.bytes());
                let reply = Reply { request: &request, status, body: &bytes };
                self.reply(&reply, &gaps, at).await?;
            }
            Event::Dropped { lines } => {
                tracing::warn!(stage = %self.cx.health.id(), lines, "lines are missing in the capture");
                self.end("lines are missing in the capture");
            }
            Event::Cut { file } => {
                let why = format!("the capture's file `{}` is cut, and what followed in it is missing", file.display());
                tracing::warn!(stage = %self.cx.health.id(), "{why}");
                self.end(&why);
                self.cut = Some(file);
            }
            Event::Gaps { gaps, calls } => self.gaps(gaps, calls, at).await?,
            Event::Closed { code, reason } => self.call(at, Origin::Live, |protocol, _| {
                protocol.on_close(&Close { code, reason: &reason });
                Ok(())
            })?,
            Event::Sent { .. } => {}
        }
        Ok(())
    }

    fn open(&mut self, at: Timestamp) -> Result<()> {
        self.end("the capture has no end of this session");
        self.link.step(Step::Opened);
        (self.is_open, self.alive_at) = (true, Some(at.0));
        // The driver asks for the address before every attempt, and a protocol may count that.
        self.call(at, Origin::Live, |protocol, _| protocol.endpoint("", at).map(drop))?;
        self.call(at, Origin::Live, |protocol, out| protocol.on_open(out))
    }

    fn discover(&mut self, reply: Option<&Reply<'_>>, at: Timestamp) -> Result<()> {
        let before = self.link.outbox().records().len();
        self.call(at, Origin::Live, |protocol, out| protocol.discover(reply, out).map(drop))?;
        if !self.is_open && self.link.outbox().records().len() > before {
            self.link.step_before(before, Step::Opened);
            self.link.step(Step::Ended { why: "discovery is done".to_owned() });
        }
        Ok(())
    }

    fn frame(&mut self, body: &Body, at: Timestamp) -> Result<()> {
        self.heard_at = Some(at);
        if self.alive_at.is_some_and(|due| at.0 >= due) {
            self.alive_at = Some(at.0.saturating_add(ALIVE_EVERY.as_nanos() as i64));
            self.link.step(Step::Alive { at });
        }
        let bytes;
        let frame = match body {
            Body::Text(text) => Frame::Text(text),
            Body::Hex(_) => {
                bytes = body.bytes();
                Frame::Binary(&bytes)
            }
        };
        let before = self.link.outbox().records().len();
        let outcome = self.attempt(at, Origin::Live, |protocol, out| protocol.on_frame(frame, out));
        let rows = (self.link.outbox().records().len() - before) as u64;
        self.cx.metrics.frames.increment(1);
        self.cx.metrics.records.increment(rows);
        let now = Instant::now();
        self.cx.health.frame(now);
        if rows > 0 {
            self.cx.health.received(now, rows);
        }
        self.settle(
            outcome,
            match frame {
                Frame::Text(text) => text.as_bytes(),
                Frame::Binary(bytes) => bytes,
            },
        )
    }

    /// Asks what to do about gaps. Replies and subscriptions that come of it are in the recording, but a protocol may keep in
    /// mind what it was asked; and what it gives up is lost here, too.
    async fn gaps(&mut self, mut open: Vec<Gap>, calls: usize, at: Timestamp) -> Result<()> {
        for _ in 0..calls {
            let mut remedy = None;
            self.call(at, Origin::Backfill, |protocol, _| {
                remedy = Some(protocol.on_gap(&open));
                Ok(())
            })?;
            let Some(remedy) = remedy else { continue };
            if let Remedy::Lost { gaps, why } = &remedy {
                self.link.logged().await?;
                let lost: Vec<&Gap> = open.iter().filter(|gap| gaps.contains(&gap.id)).collect();
                for (gap, _) in self.shown(&lost).await {
                    self.link.step(Step::Lost { gap, why: (*why).to_owned() });
                }
            }
            let covered = remedy.into_gaps();
            open.retain(|gap| !covered.contains(&gap.id));
        }
        Ok(())
    }

    /// Emits the rows of a reply, and closes the gaps of this pipeline that are the captured ones.
    async fn reply(&mut self, reply: &Reply<'_>, gaps: &[Gap], at: Timestamp) -> Result<()> {
        // Live, a reply comes after the log has the gap that it is for; its rows are judged by that gap.
        self.link.logged().await?;
        let outcome = self.attempt(at, Origin::Backfill, |protocol, out| protocol.on_reply(reply, gaps, out));
        let is_answered = |gap: &&Gap| self.commands.iter().any(|(_, command)| *command == Command::Answered(gap.id));
        let answered: Vec<&Gap> = gaps.iter().filter(is_answered).collect();
        let is_read = outcome.is_ok();
        self.settle(outcome, reply.body)?;
        if is_read && !answered.is_empty() {
            for (gap, ask) in self.shown(&answered).await {
                self.link.step(Step::Answered { gap, ask });
            }
        }
        Ok(())
    }

    /// Returns the gaps of this pipeline that are the captured ones, as far as the board shows them in time.
    async fn shown(&mut self, gaps: &[&Gap]) -> Vec<(GapId, u64)> {
        let is_of = |ask: &Ask, gap: &Gap| ask.gap.stream == gap.stream && ask.gap.after == gap.after;
        let has_all = |asks: &Arc<[Ask]>| gaps.iter().all(|gap| asks.iter().any(|ask| is_of(ask, gap)));
        // Those that it does not show by then were closed in another way.
        _ = timeout(BOARD_DELAY, self.cx.asks.wait_for(has_all)).await;
        let board = Arc::clone(&self.cx.asks.borrow());
        let here = board.iter().filter(|ask| gaps.iter().any(|gap| is_of(ask, gap)));
        here.map(|ask| (ask.gap.id, ask.number)).collect()
    }

    /// Makes a call whose failure the driver answered with the end of the session, which the capture has too.
    fn call(
        &mut self,
        at: Timestamp,
        origin: Origin,
        call: impl FnOnce(&mut dyn Protocol, &mut Outbox) -> Result<()>,
    ) -> Result<()> {
        let outcome = self.attempt(at, origin, call);
        self.settle(outcome, b"")
    }

    fn attempt(
        &mut self,
        at: Timestamp,
        origin: Origin,
        call: impl FnOnce(&mut dyn Protocol, &mut Outbox) -> Result<()>,
    ) -> Result<()> {
        let outbox = self.link.outbox();
        outbox.begin(at, origin);
        let before = outbox.records().len();
        let protocol = &mut *self.protocol;
        let outcome = catch_unwind(AssertUnwindSafe(|| call(protocol, outbox)));
        // The capture goes on with the protocol that was made anew.
        let outcome = outcome.unwrap_or_else(|_| Err(Error::transient("the protocol panicked")));
        let outbox = self.link.outbox();
        if outcome.is_err() {
            outbox.forget_records(before);
        }
        outbox.swap_commands(&mut self.commands);
        outcome
    }

    /// Enters what a call asked for, and what became of it.
    fn settle(&mut self, outcome: Result<()>, raw: &[u8]) -> Result<()> {
        let mut commands = std::mem::take(&mut self.commands);
        let mut confirmations = Confirmations::default();
        let mut ended = Vec::new();
        for (place, command) in commands.drain(..) {
            if let Command::Confirm(channel, at) = command {
                let streams = catch_unwind(AssertUnwindSafe(|| self.protocol.streams(&channel)));
                let streams = streams.map_err(|_| Error::permanent("the protocol panicked"))?;
                if self.vouched.insert(channel) {
                    confirmations.add(&mut self.link, place, at, streams);
                }
                continue;
            }
            confirmations.enter(&mut self.link);
            match command {
                Command::Unsubscribed(channel) if self.vouched.remove(&channel) => ended.push(channel),
                Command::Restart(key) => self.link.step_before(place, Step::Restart(key)),
                Command::Reject(raw, error) => self.link.step(malformed(raw.as_bytes(), &error)),
                // What it asks of the driver was done when the recording was made.
                Command::Unsubscribed(_)
                | Command::Confirm(..)
                | Command::Send(_)
                | Command::SendSecret(..)
                | Command::Ready
                | Command::Refuse(..)
                | Command::WakeAfter(_)
                | Command::Rediscover
                | Command::Ignore(_)
                | Command::Answered(_)
                | Command::Tell(..)
                | Command::Lacking(_) => {}
            }
        }
        confirmations.enter(&mut self.link);
        self.commands = commands;
        self.unsubscribed(&ended);
        match outcome {
            Err(error) if error.kind() == Kind::Malformed => self.link.step(malformed(raw, &error.to_string())),
            Err(error) if error.kind() == Kind::Config => return Err(error),
            Ok(()) | Err(_) => {}
        }
        Ok(())
    }

    fn unsubscribed(&mut self, channels: &[String]) {
        let vouched = self.vouched.iter().map(String::as_str);
        let streams = ended_streams(&*self.protocol, channels, vouched);
        if !streams.is_empty() {
            // Who has ended them is not recorded: mostly it was the choice, or they have expired.
            let by = if channels.iter().all(|channel| self.protocol.has_ended(channel)) {
                LeftBy::Expiry
            } else {
                LeftBy::Choice
            };
            self.link.step(Step::Left { streams, by });
        }
    }

    fn end(&mut self, why: &str) {
        self.vouched.clear();
        if std::mem::take(&mut self.is_open) {
            let last_said = self.alive_at.map_or(0, |due| due.saturating_sub(ALIVE_EVERY.as_nanos() as i64));
            if let Some(at) = self.heard_at.take().filter(|at| at.0 > last_said) {
                self.link.step(Step::Alive { at });
            }
            self.link.step(Step::Ended { why: why.to_owned() });
        }
    }

    /// Ends what is open, and returns the offset of the end in the log.
    async fn finish(&mut self, error: Option<&Error>) -> Result<u64> {
        let why = error.map_or_else(|| "the capture ends".to_owned(), Error::to_string);
        self.end(&why);
        self.link.logged().await
    }
}

const LINES_AHEAD: usize = 1_024;
const HAND_OVER_EACH: usize = 256;
const BOARD_DELAY: Duration = Duration::from_millis(100);
