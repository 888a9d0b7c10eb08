//! The life of a session: dialled, opened, ended.

use std::collections::{BTreeMap, VecDeque};

use super::*;
use crate::{
    connection::{liveness::Liveness, quiet::Quiet},
    protocol::Close,
};

/// An open connection.
pub(super) struct Session<L> {
    pub(super) line: L,
    /// Where it leads, without what may be secret.
    pub(super) opened_at: Instant,
    pub(super) liveness: Liveness,
    pub(super) quiet: Quiet,
    /// Until when the handshake has to be done; `None` once it is.
    pub(super) greet_by: Option<Instant>,
    /// When to say next that frames still come.
    pub(super) alive_at: Instant,
    pub(super) heard: Heard,
    /// For how long the process stood still while it was open. What has waited in the socket is still read.
    pub(super) stood_still: Option<Duration>,
    /// Up to when frames came, as the log was told.
    pub(super) told: Instant,
    /// When it will have held for the stable period; `None` once it has.
    pub(super) stable_at: Option<Instant>,
    /// The spool was full for however short a time, and has taken for over what it was told of this session.
    pub(super) is_refused: bool,
    /// Every wanted channel has been answered for.
    pub(super) is_subscribed: bool,
    /// What the venue refused and nobody was told of yet.
    pub(super) refusals: Refusals,
    /// Ends the calls that were made for this session.
    pub(super) over: CancellationToken,
    outgoing: VecDeque<Message>,
    outgoing_bytes: usize,
    is_flushed: bool,
}

/// Refused channels by the reason, with the longest pause after which they are asked for again.
pub(super) type Refusals = BTreeMap<String, (Duration, Vec<String>)>;

impl<L> Session<L>
where
    L: Stream<Item = Result<Message, WsError>> + Sink<Message, Error = WsError> + Unpin,
{
    /// Queues a message, and returns whether there was room: a venue that does not read may not cost memory.
    pub(super) fn send(&mut self, message: Message) -> bool {
        self.outgoing_bytes += message.len();
        self.outgoing.push_back(message);
        self.outgoing.len() <= MOST_UNSENT && self.outgoing_bytes <= MOST_UNSENT_BYTES
    }

    /// Asks the venue to say that it has sent all that it had to send.
    pub(super) fn ping(&mut self, now: Instant) {
        if let Some(payload) = self.heard.ping(now) {
            self.send(Message::Ping(payload.to_vec().into()));
        }
    }

    /// Sends what waits, and looks whether a message is there.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Event<L>> {
        if let Poll::Ready(Err(error)) = self.poll_send(cx) {
            return Poll::Ready(Event::Message(Some(Err(error))));
        }
        self.line.poll_next_unpin(cx).map(Event::Message)
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WsError>> {
        while !self.outgoing.is_empty() {
            std::task::ready!(self.line.poll_ready_unpin(cx))?;
            let Some(message) = self.outgoing.pop_front() else { break };
            self.outgoing_bytes -= message.len();
            self.line.start_send_unpin(message)?;
            self.is_flushed = false;
        }
        if !self.is_flushed {
            std::task::ready!(self.line.poll_flush_unpin(cx))?;
            self.is_flushed = true;
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: Transport> Driver<T> {
    /// Begins an attempt to connect, if there is a reason to and the time has come. Waits until the log has the end of the
    /// last session: a venue is not read faster than its rows can be kept.
    pub(super) fn dial_when_due(&mut self, now: Instant) -> Result<()> {
        if !self.may_dial() || self.reconnect.at(now) > now {
            return Ok(());
        }
        if !self.has_room() {
            self.standing.line = Some(format!("no connection: {WAITING_FOR_ROOM}"));
            self.standing.show(&self.health);
            return Ok(());
        }
        if !self.link.is_logged() {
            if *self.held_up.get_or_insert(now) + HELD_UP_TOLD <= now {
                let why = "no connection: the spool has not taken yet what came before; dialling as soon as it has";
                self.standing.line = Some(why.to_owned());
                self.standing.show(&self.health);
            }
            return Ok(());
        }
        self.held_up = None;
        if !self.reconnect.dial(now) {
            return Ok(());
        }
        let (group, at) = (self.group.clone(), self.transport.wall());
        let endpoint = match self.call(Origin::Live, |protocol, _| protocol.endpoint(&group, at)) {
            Ok(endpoint) => endpoint,
            Err(error) => return self.settle(Err(Stop::of(error, ReconnectReason::Refused))),
        };
        let rate = self.limits.messages.map(|pool| self.hosts.rate(&endpoint.host(), pool));
        self.subscriptions.keep_to(rate);
        let shown = endpoint.shown();
        let outcome = timeout(self.config.connect_timeout.0, self.transport.connect(endpoint));
        let limit = humantime::format_duration(self.config.connect_timeout.0).to_string();
        let outcome = async move {
            let late = |_| NotConnected::Failed(format!("no connection after {limit}"));
            outcome.await.map_err(late).and_then(|outcome| outcome)
        };
        self.phase = Phase::Dialing(Dial { shown, since: now, outcome: Box::pin(outcome) });
        Ok(())
    }

    pub(super) fn may_dial(&self) -> bool {
        let has_reason = self.is_discovered && self.subscriptions.counts().wanted > 0;
        matches!(self.phase, Phase::Idle) && has_reason && !self.has_panicked
    }

    pub(super) fn on_connected(&mut self, outcome: Result<T::Line, NotConnected>) -> Result<(), Stop> {
        let Phase::Dialing(dial) = std::mem::replace(&mut self.phase, Phase::Idle) else { return Ok(()) };
        match outcome {
            Ok(line) => self.open(line, &dial),
            Err(NotConnected::Failed(why)) => {
                Err(Stop::session(format!("{}: {why}", dial.shown), ReconnectReason::ConnectFailed))
            }
            Err(NotConnected::Answered { status, body }) => {
                let body = self.secrets.hide(&body).into_owned();
                let close = Close { code: status, reason: &body };
                self.note(|| Recorded::Closed { code: status, reason: body.clone() });
                let sorted = self.call(Origin::Live, |protocol, _| Ok(protocol.on_close(&close)));
                Err(Stop::of(sorted.unwrap_or_else(|panic| panic), ReconnectReason::ConnectFailed))
            }
        }
    }

    fn open(&mut self, line: T::Line, dial: &Dial<T::Line>) -> Result<(), Stop> {
        let now = Instant::now();
        let took = now.saturating_duration_since(dial.since).as_millis();
        let (pipeline, stage) = (self.health.id().pipeline(), self.health.id().stage());
        tracing::info!(pipeline, stage, took, "connected {} {} in {took} ms", self.health.subject(), dial.shown);
        self.phase = Phase::Open(Box::new(Session {
            line,
            opened_at: now,
            liveness: Liveness::new(&self.config.ping, &self.config.silence, now),
            quiet: Quiet::new(self.config.quiet_after.0),
            greet_by: Some(now + self.config.subscribe_timeout.0),
            alive_at: now,
            heard: Heard::new(now),
            stood_still: None,
            told: now,
            stable_at: Some(now + self.config.reconnect.stable_after.0),
            is_refused: !*self.room.borrow_and_update(),
            is_subscribed: false,
            refusals: Refusals::new(),
            over: CancellationToken::new(),
            outgoing: VecDeque::new(),
            outgoing_bytes: 0,
            is_flushed: true,
        }));
        self.link.forget_streams();
        self.link.step(Step::Opened);
        self.sessions += 1;
        self.health.connections(1);
        self.metrics.connections.set(1.0);
        let event = || Recorded::Open { url: dial.shown.clone() };
        let outcome = self.call_recorded(Origin::Live, event, |protocol, out| protocol.on_open(out));
        self.carry_out(now)?;
        outcome.map_err(|error| Stop::of(error, ReconnectReason::Refused))
    }

    /// Ends the session, or the attempt at one, and says when the next attempt begins.
    pub(super) fn end_session(&mut self, end: End) -> Result<()> {
        let End { why, reason, retry_after } = end;
        let now = Instant::now();
        if let Phase::Open(session) = &self.phase {
            let lasted = now.saturating_duration_since(session.opened_at);
            self.reconnect.is_stable(lasted, now);
        }
        let was_up = matches!(self.phase, Phase::Open(_));
        drop(self.leave(&why));
        self.metrics.reconnects.of(&reason).increment(1);
        self.metrics.session_overflows.increment(u64::from(was_up && reason == ReconnectReason::Overflow));
        self.replace_protocol(now)?;
        if !self.has_room() {
            self.reconnect.put_off(now);
            self.standing.line = Some(format!("connection closed: {WAITING_FOR_ROOM}"));
            self.standing.show(&self.health);
            return Ok(());
        }
        let Some(pause) = self.reconnect.failed(retry_after, &why, now) else {
            let attempts = self.reconnect.in_vain();
            return Err(Error::permanent(format!("gave up after {attempts} attempts, the last one: {why}")));
        };
        let what = if was_up { "connection lost" } else { "no connection" };
        let breaker =
            if self.reconnect.breaker(now).reason.is_some() { ", held back after failures in a row" } else { "" };
        let (pause, attempt) = (shown(pause), self.reconnect.attempt());
        self.standing.line = Some(format!("{what}: {why}; trying again in {pause} (attempt {attempt}{breaker})"));
        self.standing.show(&self.health);
        Ok(())
    }

    /// Takes down the session, and writes its end to the log.
    pub(super) fn leave(&mut self, why: &str) -> Option<T::Line> {
        self.is_dirty = true;
        let Phase::Open(session) = std::mem::replace(&mut self.phase, Phase::Idle) else { return None };
        session.over.cancel();
        self.tell_refused(&session.refusals);
        self.rest.retain(|job| matches!(job, Job::Discover(_)));
        self.backfill.session_ended();
        for channel in self.subscriptions.vouched() {
            self.link.outbox().watch(channel, false);
        }
        self.subscriptions.reset();
        if let Some(heard) = session.heard.until().filter(|heard| *heard > session.told) {
            // From then on nobody has listened.
            self.link.step(Step::Alive { at: self.wall_of(heard) });
        }
        self.link.step(Step::Ended { why: why.to_owned() });
        self.note(|| Recorded::End { why: why.to_owned() });
        self.standing.silence = None;
        self.standing.channels = None;
        self.health.unsubscribed();
        self.health.connections(0);
        self.metrics.connections.set(0.0);
        self.show_subscriptions();
        self.show_quiet();
        Some(session.line)
    }

    /// Returns what the wall clock would have shown, as it goes now.
    pub(super) fn wall_of(&self, at: Instant) -> Timestamp {
        let ago = i64::try_from(at.elapsed().as_nanos()).unwrap_or(i64::MAX);
        Timestamp(self.transport.wall().0.saturating_sub(ago))
    }

    /// Puts a new protocol in the place of one that panicked: nothing that it knew can be trusted.
    pub(super) fn replace_protocol(&mut self, now: Instant) -> Result<()> {
        if !std::mem::take(&mut self.has_panicked) {
            return Ok(());
        }
        self.protocol = (self.factory)()?;
        self.note(|| Recorded::Anew);
        self.rest.retain(|_| false);
        self.is_discovered = false;
        self.wake_at = None;
        self.discovery.restart(now);
        Ok(())
    }
}

/// Returns a pause as people read it: whole seconds, or milliseconds below one.
pub(in crate::connection) fn shown(pause: Duration) -> String {
    let pause = match pause {
        pause if pause < Duration::from_secs(1) => Duration::from_millis(pause.as_millis() as u64),
        pause => Duration::from_secs(pause.as_secs_f64().round() as u64),
    };
    humantime::format_duration(pause).to_string()
}

/// Why nobody dials while the spool is full.
const WAITING_FOR_ROOM: &str = "waiting for room in the spool";
/// A spool that takes longer than this over what came before a dial is worth a word.
pub(super) const HELD_UP_TOLD: Duration = Duration::from_secs(1);
const MOST_UNSENT: usize = 1_024;
const MOST_UNSENT_BYTES: usize = 4 << 20;
