//! Messages as they come: the hot path.

use tokio::task::unconstrained;
use tokio_tungstenite::tungstenite::error::{CapacityError, ProtocolError};

use super::{session::shown, *};
use crate::{
    connection::vouch::{ALIVE_EVERY, malformed},
    health::printable,
    http::root_cause,
    protocol::{Close, Frame},
};

impl<T: Transport> Driver<T> {
    /// Reads the messages that are there, without waiting for one. After it a silence is one of the venue, even if this
    /// process stood still in the meantime.
    pub(super) fn read_ready(&mut self) -> Result<(), Stop> {
        for _ in 0..MOST_AT_ONCE {
            let Phase::Open(session) = &mut self.phase else { return Ok(()) };
            // The runtime's fairness budget makes a socket look empty that is not.
            let Some(message) = unconstrained(session.line.next()).now_or_never() else {
                if let Some(still) = session.stood_still {
                    let why = format!("this process stood still for {}", shown(still));
                    return Err(Stop::session(why, ReconnectReason::StoodStill));
                }
                session.heard.nothing_left(Instant::now());
                return Ok(());
            };
            self.on_message(message)?;
        }
        Ok(())
    }

    pub(super) fn on_message(&mut self, message: Option<Result<Message, WsError>>) -> Result<(), Stop> {
        let message = match message {
            Some(Ok(message)) => message,
            Some(Err(error)) => return Err(self.broken(error)),
            None => return Err(Stop::session("the venue hung up", ReconnectReason::Broken)),
        };
        let now = Instant::now();
        if let Phase::Open(session) = &mut self.phase {
            session.liveness.frame();
            session.heard.frame(now);
            if let Message::Pong(payload) = &message
                && let Some(took) = session.heard.pong(payload, now)
            {
                self.health.took(took);
            }
            if now >= session.alive_at {
                // While data comes: a pong that is life enough is followed by no ping.
                if matches!(message, Message::Text(_) | Message::Binary(_)) && session.liveness.asks_for_proof() {
                    session.ping(now);
                }
                session.alive_at = now + ALIVE_EVERY;
                session.told = session.heard.until().unwrap_or(now);
                let told = session.told;
                self.link.step(Step::Alive { at: self.wall_of(told) });
            }
        }
        self.health.frame(now);
        match &message {
            Message::Text(text) => self.on_frame(Frame::Text(text), now),
            Message::Binary(bytes) => self.on_frame(Frame::Binary(bytes), now),
            Message::Close(frame) => {
                let (code, reason) = frame.as_ref().map_or((NO_CODE, ""), |f| (u16::from(f.code), f.reason.as_str()));
                let reason = &*self.secrets.hide(reason);
                let close = Close { code, reason };
                self.note(|| Recorded::Closed { code, reason: reason.to_owned() });
                let sorted = self.call(Origin::Live, |protocol, _| Ok(protocol.on_close(&close)));
                Err(Stop::of(sorted.unwrap_or_else(|panic| panic), ReconnectReason::Closed))
            }
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => Ok(()),
        }
    }

    fn on_frame(&mut self, frame: Frame<'_>, now: Instant) -> Result<(), Stop> {
        let raw = match frame {
            Frame::Text(text) => text.as_bytes(),
            Frame::Binary(bytes) => bytes,
        };
        self.metrics.frames.increment(1);
        self.metrics.received_bytes.increment(raw.len() as u64);
        let before = self.link.outbox().records().len();
        let event = || Recorded::frame(frame);
        let outcome = self.call_recorded(Origin::Live, event, |protocol, out| protocol.on_frame(frame, out));
        let rows = self.link.outbox().records().len() - before;
        if rows > 0 {
            self.on_rows(rows as u64, now);
        }
        if self.link.outbox().has_commands() {
            self.carry_out(now)?;
        }
        match outcome {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == Kind::Malformed => {
                self.malformed(raw, &error.to_string());
                Ok(())
            }
            Err(error) => Err(Stop::of(error, ReconnectReason::Refused)),
        }
    }

    fn on_rows(&mut self, rows: u64, now: Instant) {
        self.metrics.records.increment(rows);
        self.health.received(now, rows);
        if let Phase::Open(session) = &mut self.phase
            && session.liveness.record(now)
        {
            self.standing.silence = None;
            self.standing.show(&self.health);
        }
    }

    /// Keeps what could not be read, raw.
    pub(super) fn malformed(&mut self, raw: &[u8], error: &str) {
        self.metrics.malformed.increment(1);
        self.link.step(malformed(raw, error));
        self.unreadable += 1;
        let now = Instant::now();
        if self.unreadable_told.is_none_or(|told| now >= told + TELL_UNREADABLE_EVERY) {
            let (pipeline, stage, subject) =
                (self.health.id().pipeline(), self.health.id().stage(), self.health.subject());
            let (count, error) = (std::mem::take(&mut self.unreadable), self.secrets.hide(error));
            let error = printable(&error);
            let what = match count {
                1 => format!("1 frame or event could not be read and is kept raw in the spool: {error}"),
                _ => format!(
                    "{count} frames or events could not be read and are kept raw in the spool; the last: {error}"
                ),
            };
            tracing::warn!(pipeline, stage, "malformed {subject} {what}");
            self.unreadable_told = Some(now);
        }
    }

    /// Words the end of a connection that was not closed.
    fn broken(&self, error: WsError) -> Stop {
        let why = if let WsError::Capacity(CapacityError::MessageTooLong { size, max_size }) = &error {
            format!("a message of {size} bytes is longer than `max_message` allows, {max_size} bytes")
        } else if let WsError::Protocol(ProtocolError::ResetWithoutClosingHandshake) | WsError::ConnectionClosed =
            &error
        {
            "the venue hung up".to_owned()
        } else if let WsError::Utf8(_) = &error {
            "a text frame is not UTF-8".to_owned()
        } else {
            root_cause(&error)
        };
        Stop::session(why, ReconnectReason::Broken)
    }
}

/// What cannot be read is said at once, and then as a number, so often.
const TELL_UNREADABLE_EVERY: Duration = Duration::from_secs(60);
/// So many messages are read before anything else is looked at.
const MOST_AT_ONCE: usize = 64;
/// The code of a close frame without one (RFC 6455, 7.4.1).
const NO_CODE: u16 = 1005;
