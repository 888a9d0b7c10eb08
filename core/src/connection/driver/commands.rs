//! Carries out what a protocol asked for.

use super::*;
use crate::{
    protocol::Covered,
    row::{StreamKey, Timestamp},
};

/// Channels that were confirmed one after the other, at one time of the venue.
struct Confirmation {
    place: usize,
    at: Timestamp,
    streams: Vec<Covered>,
}

impl<T: Transport> Driver<T> {
    /// Carries out what the last call asked for, in order.
    pub(super) fn carry_out(&mut self, now: Instant) -> Result<(), Stop> {
        let mut commands = std::mem::take(&mut self.commands);
        self.link.outbox().swap_commands(&mut commands);
        let outcome = self.carry_out_all(&mut commands, now);
        commands.clear();
        self.commands = commands;
        self.is_dirty = true;
        outcome
    }

    fn carry_out_all(&mut self, commands: &mut Vec<(usize, Command)>, now: Instant) -> Result<(), Stop> {
        let mut confirmation: Option<Confirmation> = None;
        let mut ended = Vec::new();
        let mut outcome = Ok(());
        let (mut has_confirmed, mut has_answers) = (false, false);
        for (place, command) in commands.drain(..) {
            if let Command::Confirm(channel, at) = command {
                let Some(streams) = self.confirm(&channel, now) else { continue };
                (has_confirmed, has_answers) = (true, true);
                match &mut confirmation {
                    Some(open) if open.at == at => open.streams.extend(streams),
                    _ => self.confirmed(confirmation.replace(Confirmation { place, at, streams })),
                }
                continue;
            }
            self.confirmed(confirmation.take());
            match command {
                Command::Confirm(..) => {}
                Command::Send(text) => outcome = outcome.and(self.send(text)),
                Command::SendSecret(text) => outcome = outcome.and(self.send(text)),
                Command::Ready => self.ready(now),
                Command::Refuse(channel, why) => {
                    has_answers |= self.refuse(&channel, &why);
                }
                Command::Unsubscribed(channel) => {
                    has_answers = true;
                    if self.subscriptions.unsubscribed(&channel, now) {
                        ended.push(channel);
                    }
                }
                Command::WakeAfter(pause) => self.wake_at = Some(now + pause),
                Command::Rediscover => self.discovery.wish(now),
                Command::Restart(key) => self.link.step_before(place, Step::Restart(key)),
                Command::Reject(raw, error) => self.malformed(raw.as_bytes(), &error),
                Command::Ignore(_) => self.metrics.ignored.increment(1),
                Command::Answered(gap) => self.answered.push(gap),
            }
        }
        self.confirmed(confirmation);
        if has_confirmed && let Phase::Open(session) = &mut self.phase {
            session.liveness.expect(now);
        }
        self.unsubscribed(&ended);
        if has_answers {
            self.show_subscriptions();
        }
        outcome
    }

    fn send(&mut self, text: String) -> Result<(), Stop> {
        let Phase::Open(session) = &mut self.phase else { return Ok(()) };
        if session.send(Message::text(text)) {
            return Ok(());
        }
        Err(Stop::session("the venue does not read what is sent to it", ReconnectReason::DeadLink))
    }

    fn ready(&mut self, now: Instant) {
        let Phase::Open(session) = &mut self.phase else { return };
        if session.greet_by.take().is_some() {
            self.subscriptions.ready(now);
            self.reconnect.greeted();
        }
    }

    /// Notes a confirmation, and returns the streams that the venue vouches for from now on; `None` if it is no news.
    fn confirm(&mut self, channel: &str, now: Instant) -> Option<Vec<Covered>> {
        if !matches!(self.phase, Phase::Open(_)) || !self.subscriptions.confirmed(channel) {
            return None;
        }
        let wall = self.link.outbox().now();
        self.link.outbox().watch(channel, true);
        if let Phase::Open(session) = &mut self.phase {
            session.quiet.confirmed(channel, wall, now);
        }
        Some(self.streams(channel))
    }

    fn confirmed(&mut self, confirmation: Option<Confirmation>) {
        let Some(Confirmation { place, at, streams }) = confirmation else { return };
        if !streams.is_empty() {
            self.link.step_before(place, Step::Confirmed { streams, at });
        }
    }

    fn refuse(&mut self, channel: &str, why: &str) -> bool {
        let is_news = self.subscriptions.refused(channel);
        if is_news {
            let (pipeline, stage) = (self.health.id().pipeline(), self.health.id().stage());
            let subject = self.health.subject();
            tracing::warn!(
                pipeline,
                stage,
                channel,
                "refused {subject} `{channel}`: {why}; asked again at the next discovery"
            );
        }
        is_news
    }

    /// Enters the end of channels: of their streams, those that no other channel carries.
    pub(super) fn unsubscribed<C: AsRef<str>>(&mut self, channels: &[C]) {
        if channels.is_empty() {
            return;
        }
        let mut gone: Vec<StreamKey> = Vec::new();
        for channel in channels {
            self.link.outbox().watch(channel.as_ref(), false);
            if let Phase::Open(session) = &mut self.phase {
                session.quiet.ended(channel.as_ref());
            }
            gone.extend(self.streams(channel.as_ref()).into_iter().map(|covered| covered.key));
        }
        let vouched: Vec<String> = self.subscriptions.vouched().map(str::to_owned).collect();
        let ended = |channel: &str| channels.iter().any(|ended| ended.as_ref() == channel);
        let mut kept = std::collections::HashSet::new();
        for channel in vouched.iter().filter(|channel| !ended(channel)) {
            kept.extend(self.streams(channel).into_iter().map(|covered| covered.key));
        }
        gone.retain(|key| !kept.contains(key));
        if !gone.is_empty() {
            self.link.step(Step::Unsubscribed { streams: gone });
        }
    }

    /// Returns the streams of a channel. A panic shows at the end of the turn.
    fn streams(&mut self, channel: &str) -> Vec<Covered> {
        let protocol = &self.protocol;
        catch_unwind(AssertUnwindSafe(|| protocol.streams(channel))).unwrap_or_else(|_| {
            self.has_panicked = true;
            Vec::new()
        })
    }
}
