//! The loop: waits for whatever comes first, tells the pure values, and carries out what they say is due.

mod commands;
mod frames;
mod history;
mod session;
mod timers;

use std::{
    borrow::Cow,
    future::{Future, pending, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{FutureExt, Sink, SinkExt, Stream, StreamExt, stream::FuturesUnordered};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use tokio_util::sync::CancellationToken;

use super::{
    backfill::Backfill,
    capture::{Capture, Event as Recorded},
    discovery::Discovery,
    liveness::Heard,
    reconnect::Reconnect,
    rest::{CallId, RestQueue},
    secrets::Secrets,
    standing::{Standing, Waiting},
    subscriptions::Subscriptions,
    transport::{NotConnected, Transport},
};
use crate::{
    Error, Kind, Result,
    catalog::Factory,
    caught::meet,
    config::ConnectionConfig,
    health::StageHealth,
    http::{Answer, Hosts, NoAnswer, Turn},
    intake::{Asks, Link, Step},
    metrics::{BreakerMetrics, ReconnectReason, SourceMetrics},
    policy::{Backoff, BreakerSnapshot},
    protocol::{Command, GapId, Limits, Outbox, Protocol},
    row::{Origin, Timestamp},
    source::SourceContext,
    spool::disk::Disk,
};
use history::Job;
use session::Session;
pub(super) use session::shown;

/// One connection of a venue, for as long as its source lives.
pub(super) struct Driver<T: Transport> {
    transport: T,
    config: ConnectionConfig,
    factory: Factory<Box<dyn Protocol>>,
    protocol: Box<dyn Protocol>,
    /// The protocol panicked and must not be called any more.
    has_panicked: bool,
    limits: Limits,
    health: StageHealth,
    metrics: SourceMetrics,
    /// That of the connection, then one for each host of the HTTP interface.
    breakers: Vec<ShownBreaker>,
    capture: Option<Capture>,
    /// What was sent and nobody may see.
    secrets: Secrets,
    /// Sessions that were opened so far.
    sessions: u64,
    link: Link,
    /// Whether the spool takes rows; while it does not, no line is open, and none outlives a change of it.
    room: watch::Receiver<bool>,
    asks: Asks,
    stop: CancellationToken,
    phase: Phase<T::Line>,
    subscriptions: Subscriptions,
    discovery: Discovery,
    /// Whether the wanted channels are known.
    is_discovered: bool,
    group: String,
    reconnect: Reconnect,
    rest: RestQueue<Job>,
    /// What hosts allow all sources together.
    hosts: Arc<Hosts>,
    calls: FuturesUnordered<Pin<Box<dyn Future<Output = Called> + Send>>>,
    backfill: Backfill,
    standing: Standing,
    wake_at: Option<Instant>,
    /// Since when an attempt to connect is due and the log has not taken yet what came before.
    held_up: Option<Instant>,
    commands: Vec<(usize, Command)>,
    answered: Vec<GapId>,
    /// Frames and events that could not be read, since that was said last.
    unreadable: u64,
    unreadable_told: Option<Instant>,
    /// Something has happened that may make something due before `next_at`.
    is_dirty: bool,
    next_at: Instant,
}

/// A breaker as it was shown last.
struct ShownBreaker {
    name: String,
    gauge: BreakerMetrics,
    last: Option<BreakerSnapshot>,
}

enum Phase<L> {
    /// No connection, and none on its way.
    Idle,
    /// One attempt is under way.
    Dialing(Dial<L>),
    /// A session is up.
    Open(Box<Session<L>>),
}

/// How a call got on.
enum Called {
    /// It may be made now.
    InTurn(CallId, Turn),
    Ended(CallId, Result<Answer, NoAnswer>),
}

struct Dial<L> {
    shown: String,
    since: Instant,
    outcome: Pin<Box<dyn Future<Output = Result<L, NotConnected>> + Send>>,
}

/// Why something cannot go on.
#[derive(Debug)]
enum Stop {
    /// The session is over; the next one follows.
    Session(End),
    /// The source is over until a person acts.
    Source(Error),
}

/// How a session, or the attempt at one, ended.
#[derive(Debug)]
struct End {
    why: String,
    reason: ReconnectReason,
    retry_after: Option<Duration>,
}

/// What woke the loop.
enum Event<L> {
    Connected(Result<L, NotConnected>),
    Message(Option<Result<Message, WsError>>),
    Called(Called),
    Asks(bool),
    HandedOver(Result<()>),
    /// There is no room in the spool any more, or room again, or there was none for a while.
    Room,
    Timer,
    Stop,
}

impl<T: Transport> Driver<T> {
    /// Returns the driver of a protocol. Nothing happens before [`run`](Self::run).
    ///
    /// # Errors
    ///
    /// What the factory returned.
    pub(super) fn new(
        transport: T,
        factory: Factory<Box<dyn Protocol>>,
        config: ConnectionConfig,
        cx: SourceContext,
    ) -> Result<Self> {
        let protocol = factory()?;
        let limits = protocol.limits();
        let (first, longest) = (config.reconnect.first.0, config.reconnect.longest.0);
        let link = cx.link(usize::try_from(config.queue.0).unwrap_or(usize::MAX)).live();
        // Two pipelines of one host lose a venue at the same moment, and must not come back at the same one.
        let seed = transport.wall().0.cast_unsigned() ^ std::ptr::from_ref(&*cx.name).addr() as u64;
        let now = Instant::now();
        // Twice the time in which a dead link is found: by then it is this driver that is stuck. Where nobody pings, a quiet
        // line shows nothing.
        let dead_after =
            if config.ping.every.0.is_zero() { Duration::ZERO } else { config.ping.every.0 + config.ping.timeout.0 };
        cx.health.overdue_after(dead_after * 2);
        Ok(Self {
            subscriptions: Subscriptions::new(&limits, config.subscribe_timeout.0),
            discovery: Discovery::new(limits.refresh, Backoff::new(first, longest).seeded(seed), now),
            reconnect: Reconnect::new(&config, seed),
            rest: RestQueue::new(&config.rest),
            hosts: Arc::clone(cx.http.hosts()),
            breakers: Vec::new(),
            transport,
            config,
            factory,
            protocol,
            has_panicked: false,
            limits,
            health: cx.health,
            metrics: cx.metrics,
            capture: None,
            secrets: Secrets::default(),
            sessions: 0,
            link,
            room: cx.room,
            asks: cx.asks,
            stop: cx.stop,
            phase: Phase::Idle,
            is_discovered: false,
            group: String::new(),
            calls: FuturesUnordered::new(),
            backfill: Backfill::new(first, longest, seed),
            standing: Standing::default(),
            wake_at: None,
            held_up: None,
            commands: Vec::new(),
            answered: Vec::new(),
            unreadable: 0,
            unreadable_told: None,
            is_dirty: true,
            next_at: now,
        })
    }

    /// Records everything that the venue says. A disk that cannot be had degrades the source, and no more.
    pub(super) fn record(&mut self, disk: impl FnOnce() -> Result<Arc<dyn Disk>> + Send + 'static, source: &str) {
        let config = self.config.capture.clone().unwrap_or_default();
        self.capture = Some(Capture::start(disk, source, &config, self.transport.wall()));
    }

    /// Keeps the connection until it is told to stop.
    ///
    /// # Errors
    ///
    /// `Permanent` and `Config`: a person has to act.
    pub(super) async fn run(mut self) -> Result<()> {
        self.show_asks();
        let outcome = self.turns().await;
        let why = outcome.as_ref().err().map_or_else(|| "stopped".to_owned(), Error::to_string);
        self.close(&why).await;
        outcome
    }

    async fn turns(&mut self) -> Result<()> {
        let mut timer = std::pin::pin!(sleep_until(Instant::now()));
        loop {
            let outcome = self.read_ready();
            self.settle(outcome)?;
            self.drive()?;
            if self.is_dirty {
                continue;
            }
            if timer.deadline() != self.next_at {
                timer.as_mut().reset(self.next_at);
            }
            let may_hear_asks = !self.backfill.is_deaf();
            // The next attempt to connect waits for this.
            let waits_for_log = matches!(self.phase, Phase::Idle) && !self.link.is_logged();
            if !waits_for_log && self.held_up.take().is_some() {
                self.is_dirty = true;
                continue;
            }
            let event = tokio::select! {
                () = self.stop.cancelled() => Event::Stop,
                event = next_event(&mut self.phase) => event,
                Some(called) = self.calls.next() => Event::Called(called),
                changed = self.asks.changed(), if may_hear_asks => Event::Asks(changed.is_ok()),
                () = changed(&mut self.room) => Event::Room,
                outcome = taken(&mut self.link, waits_for_log), if waits_for_log || self.link.is_pending() => {
                    Event::HandedOver(outcome)
                }
                () = failed(self.capture.as_ref()) => Event::Timer,
                () = timer.as_mut() => Event::Timer,
            };
            if matches!(event, Event::Stop) {
                return Ok(());
            }
            self.look_for_standstill(timer.deadline());
            let outcome = self.on_event(event);
            self.settle(outcome)?;
        }
    }

    /// Finds out whether the process stood still: a paused machine, a disk that hangs. The venue may have given up meanwhile,
    /// and what it had not sent yet is behind what is left to read: that nothing is left then tells nothing.
    fn look_for_standstill(&mut self, was_due: Instant) {
        let late = Instant::now().saturating_duration_since(was_due);
        if let Phase::Open(session) = &mut self.phase
            && late > STANDSTILL
        {
            session.stood_still.get_or_insert(late);
        }
    }

    fn on_event(&mut self, event: Event<T::Line>) -> Result<(), Stop> {
        match event {
            Event::Message(message) => return self.on_message(message),
            Event::Connected(outcome) => self.on_connected(outcome)?,
            Event::Called(Called::InTurn(id, turn)) => self.make_call(id, turn),
            Event::Called(Called::Ended(id, outcome)) => self.on_called(id, outcome)?,
            Event::Asks(true) => self.show_asks(),
            Event::Asks(false) => self.backfill.deafen(),
            Event::HandedOver(outcome) => outcome.map_err(Stop::Source)?,
            Event::Room => {
                if let Phase::Open(session) = &mut self.phase {
                    session.is_refused = true;
                }
            }
            Event::Timer | Event::Stop => {}
        }
        self.is_dirty = true;
        Ok(())
    }

    /// Does what is due, and works out when the next thing is.
    fn drive(&mut self) -> Result<()> {
        let now = Instant::now();
        if self.is_dirty || now >= self.next_at {
            self.is_dirty = false;
            let outcome = self.look_at_session(now);
            self.settle(outcome)?;
            let outcome = self.discover_when_due(now);
            self.settle(outcome)?;
            let outcome = self.ask_for_gaps(now);
            self.settle(outcome)?;
            self.send_calls(now);
            self.look_at_rest(now);
            self.dial_when_due(now)?;
            self.show_breakers(now);
            self.look_at_capture();
            self.next_at = self.earliest(now).max(now + SHORTEST_NAP);
        }
        if let Err(error) = self.link.hand_over() {
            self.overflow(error)?;
        }
        Ok(())
    }

    /// Returns whether the spool takes rows.
    fn has_room(&self) -> bool {
        *self.room.borrow()
    }

    fn overflow(&mut self, error: Error) -> Result<()> {
        if error.kind() == Kind::Permanent {
            return Err(error);
        }
        let Phase::Open(session) = &mut self.phase else { return Ok(()) };
        let why = error.to_string();
        // What was heard last is not in the log.
        session.heard = Heard::new(session.opened_at);
        self.settle(Err(Stop::session(why, ReconnectReason::Overflow)))
    }

    /// Ends the session or the source, if that is the outcome.
    fn settle(&mut self, outcome: Result<(), Stop>) -> Result<()> {
        match outcome {
            Ok(()) => Ok(()),
            Err(Stop::Source(error)) => Err(match self.secrets.hide(&error.chain()) {
                Cow::Borrowed(_) => error,
                // What it came from says the same.
                Cow::Owned(hidden) => Error::permanent(hidden),
            }),
            Err(Stop::Session(mut end)) => {
                self.secrets.hide_in(&mut end.why);
                self.end_session(end)
            }
        }
    }

    /// Calls the protocol, and records that: a call that a replay has to make too.
    fn call_recorded<R>(
        &mut self,
        origin: Origin,
        event: impl FnOnce() -> Recorded,
        call: impl FnOnce(&mut dyn Protocol, &mut Outbox) -> Result<R>,
    ) -> Result<R> {
        let at = self.transport.wall();
        self.keep(at, event);
        self.call_at(at, origin, call)
    }

    /// Calls the protocol.
    fn call<R>(&mut self, origin: Origin, call: impl FnOnce(&mut dyn Protocol, &mut Outbox) -> Result<R>) -> Result<R> {
        self.call_at(self.transport.wall(), origin, call)
    }

    /// Calls the protocol. The rows of a call that fails are taken back; what else it asked for stays.
    fn call_at<R>(
        &mut self,
        at: Timestamp,
        origin: Origin,
        call: impl FnOnce(&mut dyn Protocol, &mut Outbox) -> Result<R>,
    ) -> Result<R> {
        let outbox = self.link.outbox();
        outbox.begin(at, origin);
        let before = outbox.records().len();
        let protocol = &mut *self.protocol;
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            meet("the protocol");
            call(protocol, outbox)
        }));
        let outcome = outcome.unwrap_or_else(|panic| {
            self.has_panicked = true;
            Err(panicked(&*panic))
        });
        if outcome.is_err() {
            self.link.outbox().forget_records(before);
        }
        outcome
    }

    /// Records what a replay has no call to make for.
    fn note(&mut self, event: impl FnOnce() -> Recorded) {
        self.keep(self.transport.wall(), event);
    }

    fn keep(&mut self, at: Timestamp, event: impl FnOnce() -> Recorded) {
        if let Some(capture) = &mut self.capture {
            let mut event = event();
            event.texts(|text| self.secrets.hide_in(text));
            capture.write(at, self.sessions, event);
        }
    }

    fn look_at_capture(&mut self) {
        let trouble = self.capture.as_ref().and_then(Capture::trouble);
        if trouble != self.standing.capture {
            self.standing.capture = trouble;
            self.standing.show(&self.health);
        }
    }

    /// Ends what is open, says so in the log, and takes leave of the venue.
    async fn close(&mut self, why: &str) {
        let line = self.leave(why);
        if timeout(LAST_HANDOVER, self.link.handed_over()).await.is_err() {
            tracing::warn!(stage = %self.health.id(), "the end of the session could not be handed to the spool in time");
        }
        if let Some(mut line) = line {
            // Nobody is helped by an answer to it, so an error is none.
            _ = timeout(FAREWELL, line.close()).await;
        }
        if let Some(capture) = self.capture.take() {
            capture.finish().await;
        }
    }
}

/// A driver that is so late has not run at all.
const STANDSTILL: Duration = Duration::from_secs(10);

/// Waits until the log takes what waits for it, or has it.
///
/// # Cancel safety
///
/// Cancel safe.
async fn taken(link: &mut Link, until_logged: bool) -> Result<()> {
    if until_logged { link.logged().await.map(drop) } else { link.handed_over().await }
}

/// Waits until there is no room in the spool any more, or room again.
async fn changed(room: &mut watch::Receiver<bool>) {
    // Whoever tells it has ended, as others will show.
    if room.changed().await.is_err() {
        pending().await
    }
}

/// Waits until the capture fails, if there is one.
async fn failed(capture: Option<&Capture>) {
    match capture {
        Some(capture) => capture.failed().await,
        None => pending().await,
    }
}

/// Waits for the connection attempt, or for the next message while what waits to be sent is sent.
///
/// # Cancel safety
///
/// Cancel safe: what was not sent stays in the session.
async fn next_event<L>(phase: &mut Phase<L>) -> Event<L>
where
    L: Stream<Item = Result<Message, WsError>> + Sink<Message, Error = WsError> + Unpin,
{
    match phase {
        Phase::Idle => pending().await,
        Phase::Dialing(dial) => Event::Connected(dial.outcome.as_mut().await),
        Phase::Open(session) => poll_fn(|cx| session.poll(cx)).await,
    }
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> Error {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message");
    Error::transient(format!("the protocol panicked: {text}"))
}

impl Stop {
    /// Sorts an error of the protocol: what cannot mend itself ends the source.
    fn of(error: Error, reason: ReconnectReason) -> Self {
        match error.kind() {
            Kind::Permanent | Kind::Config => Self::Source(error),
            Kind::Malformed => Self::Session(End { why: error.to_string(), reason, retry_after: None }),
            Kind::Transient { retry_after } => Self::Session(End { why: error.to_string(), reason, retry_after }),
        }
    }

    fn session(why: impl Into<String>, reason: ReconnectReason) -> Self {
        Self::Session(End { why: why.into(), reason, retry_after: None })
    }
}

/// A value that says "now" again and again costs a thousand turns a second, and not a core.
const SHORTEST_NAP: Duration = Duration::from_millis(1);
/// How long the venue may take over our leave.
const FAREWELL: Duration = Duration::from_secs(1);
const LAST_HANDOVER: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests;
