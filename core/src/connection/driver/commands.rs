//! Carries out what a protocol asked for.

use super::{timers::named, *};
use crate::{
    connection::vouch::{Confirmations, ended_streams},
    health::printable,
    protocol::Covered,
    spool::LeftBy,
};
use session::{Refusals, shown};

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
        let mut confirmations = Confirmations::default();
        let (mut ended, mut ended_by_venue) = (Vec::new(), Vec::new());
        let mut outcome = Ok(());
        let (mut has_confirmed, mut has_answers) = (false, false);
        for (place, command) in commands.drain(..) {
            if let Command::Confirm(channel, at) = command {
                let Some(streams) = self.confirm(&channel, now) else { continue };
                (has_confirmed, has_answers) = (true, true);
                confirmations.add(&mut self.link, place, at, streams);
                continue;
            }
            confirmations.enter(&mut self.link);
            match command {
                Command::Confirm(..) => {}
                Command::Send(text) => {
                    self.note(|| Recorded::Sent { text: text.clone() });
                    let sent = self.send(text);
                    outcome = outcome.and(sent);
                }
                Command::SendSecret(text, secret) => {
                    self.secrets.learn(&secret);
                    self.note(|| Recorded::Sent { text: "***".to_owned() });
                    let sent = self.send(text);
                    outcome = outcome.and(sent);
                }
                Command::Ready => self.ready(now),
                Command::Refuse(channel, why) => {
                    has_answers = true;
                    if let Some(pause) = self.subscriptions.refused(&channel, now)
                        && let Phase::Open(session) = &mut self.phase
                    {
                        let (longest, channels) = session.refusals.entry(why).or_default();
                        *longest = pause.max(*longest);
                        channels.push(channel);
                    }
                }
                Command::Unsubscribed(channel) => {
                    has_answers = true;
                    let is_wanted = self.subscriptions.wants(&channel);
                    if self.subscriptions.unsubscribed(&channel, now) {
                        if is_wanted { &mut ended_by_venue } else { &mut ended }.push(channel);
                    }
                }
                Command::WakeAfter(pause) => self.wake_at = Some(now + pause),
                Command::Rediscover => self.discovery.wish(now),
                Command::Restart(key) => self.link.step_before(place, Step::Restart(key)),
                Command::Reject(raw, error) => self.malformed(raw.as_bytes(), &error),
                Command::Ignore(reason) => self.metrics.ignored.of(reason).increment(1),
                Command::Answered(gap) => self.answered.push(gap),
                Command::Tell(what, text) => {
                    let (pipeline, stage) = (self.health.id().pipeline(), self.health.id().stage());
                    tracing::info!(pipeline, stage, "{what} {} {text}", self.health.subject());
                }
                Command::Lacking(what) => {
                    self.standing.lacking = what;
                    self.standing.show(&self.health);
                }
            }
        }
        confirmations.enter(&mut self.link);
        if has_confirmed && let Phase::Open(session) = &mut self.phase {
            session.liveness.expect(now);
        }
        self.left(ended);
        self.unsubscribed(&ended_by_venue, LeftBy::Venue);
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
        let Phase::Open(session) = &mut self.phase else { return None };
        let took = self.subscriptions.waits(channel, now);
        if !self.subscriptions.confirmed(channel) {
            return None;
        }
        // A ping measures the line better than a venue's work on a request.
        if let Some(took) = took.filter(|_| !session.heard.has_pong()) {
            self.health.took(took);
        }
        let wall = self.link.outbox().now();
        self.link.outbox().watch(channel, true);
        session.quiet.confirmed(channel, wall, now);
        Some(self.streams(channel))
    }

    /// Tells what was refused.
    pub(super) fn tell_refused(&self, refusals: &Refusals) {
        let (pipeline, stage) = (self.health.id().pipeline(), self.health.id().stage());
        for words in worded(refusals) {
            tracing::warn!(pipeline, stage, "refused {} {words}", self.health.subject());
        }
    }

    /// Enters the end of channels that are not wanted any more, with why.
    pub(super) fn left(&mut self, channels: Vec<String>) {
        let protocol = &*self.protocol;
        let parted = catch_unwind(AssertUnwindSafe(|| {
            channels.iter().cloned().partition(|channel| protocol.has_ended(channel))
        }));
        let (ended, others): (Vec<String>, Vec<String>) = parted.unwrap_or_else(|_| {
            self.has_panicked = true;
            (Vec::new(), channels)
        });
        self.unsubscribed(&ended, LeftBy::Expiry);
        self.unsubscribed(&others, LeftBy::Choice);
    }

    /// Enters the end of channels: of their streams, those that no other channel carries.
    pub(super) fn unsubscribed(&mut self, channels: &[String], by: LeftBy) {
        if channels.is_empty() {
            return;
        }
        for channel in channels {
            self.link.outbox().watch(channel, false);
            if let Phase::Open(session) = &mut self.phase {
                session.quiet.ended(channel);
            }
        }
        let (protocol, vouched) = (&*self.protocol, self.subscriptions.vouched());
        let streams = catch_unwind(AssertUnwindSafe(|| {
            meet("the protocol's streams that end");
            ended_streams(protocol, channels, vouched)
        }));
        match streams {
            Ok(streams) if streams.is_empty() => {}
            Ok(streams) => self.link.step(Step::Left { streams, by }),
            Err(_) => self.has_panicked = true,
        }
    }

    /// Returns the streams of a channel. A panic shows at the end of the turn.
    fn streams(&mut self, channel: &str) -> Vec<Covered> {
        let protocol = &self.protocol;
        catch_unwind(AssertUnwindSafe(|| {
            meet("the protocol's streams");
            protocol.streams(channel)
        }))
        .unwrap_or_else(|_| {
            self.has_panicked = true;
            Vec::new()
        })
    }
}

/// Words what was refused: in one line what was for the same reason, in however many replies, and in one line what was for
/// other than the first few reasons.
fn worded(refusals: &Refusals) -> Vec<String> {
    let line = |(why, (pause, channels)): (&String, &(Duration, Vec<String>))| {
        format!("{}: {}; asked again in {}", named(channels), printable(why), shown(*pause))
    };
    let mut lines: Vec<String> = refusals.iter().take(MOST_REASONS).map(line).collect();
    let rest: Vec<&String> = refusals.values().skip(MOST_REASONS).flat_map(|(_, channels)| channels).collect();
    if !rest.is_empty() {
        lines.push(format!("{} for {} other reasons; asked again", named(&rest), refusals.len() - MOST_REASONS));
    }
    lines
}

/// So many reasons why channels were refused have a line of their own.
const MOST_REASONS: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_thousand_channels_that_are_refused_at_once_are_a_few_short_lines_however_many_reasons_there_are() {
        let channels = |count: usize| (0..count).map(|n| format!("trades.ETH-{n}.100ms")).collect::<Vec<_>>();
        let one = Refusals::from([("no such channel".to_owned(), (Duration::from_secs(60), channels(10_000)))]);
        let line = "`trades.ETH-0.100ms`, `trades.ETH-1.100ms`, `trades.ETH-2.100ms`, `trades.ETH-3.100ms`, \
                    `trades.ETH-4.100ms` and 9995 more: no such channel; asked again in 1m";
        assert_eq!(worded(&one), [line]);
        let each = |channel: String| (format!("no {channel}"), (Duration::from_secs(60), vec![channel]));
        let many: Refusals = channels(10_000).into_iter().map(each).collect();
        let lines = worded(&many);
        assert_eq!(lines.len(), MOST_REASONS + 1);
        assert!(lines[MOST_REASONS].ends_with(" and 9990 more for 9995 other reasons; asked again"), "{lines:#?}");
        assert!(lines.iter().all(|line| line.len() < 200), "{lines:#?}");
    }
}
