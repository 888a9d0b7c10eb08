//! What is due by the clock: pings, subscriptions, discovery; and what health shows of them.

use super::*;
use crate::{
    connection::{
        liveness::Sign,
        quiet::Changed,
        subscriptions::{Asking, Overdue},
    },
    metrics::SubscriptionState,
    protocol::{Discovery as Found, Reply},
};
use session::{HELD_UP_TOLD, shown};

impl<T: Transport> Driver<T> {
    /// Looks at every timer of the session.
    pub(super) fn look_at_session(&mut self, now: Instant) -> Result<(), Stop> {
        if self.has_panicked {
            return Err(Stop::session("the protocol panicked", ReconnectReason::Refused));
        }
        let Phase::Open(session) = &mut self.phase else { return Ok(()) };
        if session.is_refused {
            return Err(Stop::session("the spool is full", ReconnectReason::Overflow));
        }
        if session.greet_by.is_some_and(|at| at <= now) {
            let limit = humantime::format_duration(self.config.subscribe_timeout.0);
            return Err(Stop::session(format!("no end of the handshake for {limit}"), ReconnectReason::Silence));
        }
        if session.stable_at.is_some_and(|at| at <= now) {
            session.stable_at = None;
            self.reconnect.is_stable(self.config.reconnect.stable_after.0, now);
        }
        self.look_at_liveness(now)?;
        self.look_at_quiet(now);
        if self.wake_at.is_some_and(|at| at <= now) && self.subscriptions.is_ready() {
            self.wake_at = None;
            let outcome = self.call_recorded(Origin::Live, || Recorded::Wake, |protocol, out| protocol.on_wake(out));
            self.carry_out(now)?;
            outcome.map_err(|error| Stop::of(error, ReconnectReason::Refused))?;
        }
        self.look_at_subscriptions(now)
    }

    fn look_at_liveness(&mut self, now: Instant) -> Result<(), Stop> {
        let Phase::Open(session) = &mut self.phase else { return Ok(()) };
        match session.liveness.poll(now) {
            None => Ok(()),
            Some(Sign::Ping) => {
                session.ping(now);
                Ok(())
            }
            Some(Sign::Dead(after)) => {
                Err(Stop::session(format!("no pong for {}", shown(after)), ReconnectReason::DeadLink))
            }
            Some(Sign::Mute(after)) => {
                Err(Stop::session(format!("no data for {}", shown(after)), ReconnectReason::Silence))
            }
            Some(Sign::Silent(after)) => {
                let then = match self.config.silence.reconnect.0 {
                    Duration::ZERO => "the connection is up".to_owned(),
                    after => format!("the connection is up, and is opened anew after {}", shown(after)),
                };
                self.standing.silence = Some(format!("no data for {}; {then}", shown(after)));
                self.standing.show(&self.health);
                Ok(())
            }
        }
    }

    fn look_at_quiet(&mut self, now: Instant) {
        let Phase::Open(session) = &mut self.phase else { return };
        if session.quiet.next_at().is_none_or(|at| at > now) {
            return;
        }
        let Changed { never, ceased, again } = session.quiet.look(self.link.outbox().heard_at(), now);
        let (pipeline, stage) = (self.health.id().pipeline(), self.health.id().stage());
        let (subject, limit) = (self.health.subject(), humantime::format_duration(self.config.quiet_after.0));
        if !never.is_empty() {
            let (names, stays) = (named(&never), stays(never.len()));
            tracing::warn!(
                pipeline,
                stage,
                "quiet {subject} subscribed for {limit}, but never a message: {names}; {stays}"
            );
        }
        if !ceased.is_empty() {
            let (names, stays) = (named(&ceased), stays(ceased.len()));
            tracing::info!(pipeline, stage, "quiet {subject} no message for {limit}: {names}; {stays}");
        }
        if !again.is_empty() {
            let names = named(&again);
            tracing::info!(pipeline, stage, "speaking {subject} again, after no message for {limit} or more: {names}");
        }
        if !(never.is_empty() && ceased.is_empty() && again.is_empty()) {
            self.show_quiet();
        }
    }

    /// Shows which subscriptions are quiet. They degrade nothing: an option that few trade is quiet for hours.
    pub(super) fn show_quiet(&mut self) {
        let (is_open, quiet) = match &self.phase {
            Phase::Open(session) => (true, session.quiet.channels()),
            Phase::Idle | Phase::Dialing(_) => (false, Vec::new()),
        };
        let count = quiet.len();
        self.metrics.subscriptions.of(&SubscriptionState::Quiet).set(count as f64);
        self.health.quiet(count as u64, quiet.into_iter().take(MOST_NAMED));
        if is_open && self.standing.well.is_some() {
            let counts = self.subscriptions.counts();
            self.standing.well = Some(well(counts.confirmed, counts.wanted, count));
            self.standing.show(&self.health);
        }
    }

    fn look_at_subscriptions(&mut self, now: Instant) -> Result<(), Stop> {
        let Overdue { unanswered, unended } = self.subscriptions.overdue(now);
        if !unanswered.is_empty() {
            let (pipeline, stage) = (self.health.id().pipeline(), self.health.id().stage());
            let (subject, names) = (self.health.subject(), named(&unanswered));
            let limit = humantime::format_duration(self.config.subscribe_timeout.0);
            tracing::warn!(
                pipeline,
                stage,
                "unanswered {subject} neither confirmed nor refused for {limit}: {names}; asked again"
            );
        }
        if !unended.is_empty() {
            let channels = owned(&unended);
            self.note(|| Recorded::Unended { channels: channels.clone() });
            self.left(channels);
        }
        let has_overdue = !unanswered.is_empty() || !unended.is_empty();
        while let Some(asking) = self.subscriptions.poll(now) {
            let (outcome, reason) = match &asking {
                Asking::Subscribe(channels) => {
                    let names: Vec<&str> = channels.iter().map(|name| &**name).collect();
                    let event = || Recorded::Subscribe { channels: owned(channels) };
                    let outcome =
                        self.call_recorded(Origin::Live, event, |protocol, out| protocol.subscribe(&names, out));
                    (outcome, ReconnectReason::Refused)
                }
                Asking::Unsubscribe(channels) => {
                    let names: Vec<&str> = channels.iter().map(|name| &**name).collect();
                    let event = || Recorded::Unsubscribe { channels: owned(channels) };
                    let outcome =
                        self.call_recorded(Origin::Live, event, |protocol, out| protocol.unsubscribe(&names, out));
                    (outcome, ReconnectReason::Planned)
                }
            };
            self.carry_out(now)?;
            outcome.map_err(|error| Stop::of(error, reason))?;
        }
        if has_overdue {
            self.show_subscriptions();
        }
        Ok(())
    }

    /// Shows how many channels are subscribed to, and tells when all that are wanted have been answered for.
    pub(super) fn show_subscriptions(&mut self) {
        let counts = self.subscriptions.counts();
        let (wanted, confirmed, refused) = (counts.wanted, counts.confirmed, counts.refused);
        self.health.subscriptions(wanted as u64, confirmed as u64, refused as u64);
        let gauges = &self.metrics.subscriptions;
        gauges.of(&SubscriptionState::Wanted).set(wanted as f64);
        gauges.of(&SubscriptionState::Confirmed).set(confirmed as f64);
        gauges.of(&SubscriptionState::Refused).set(refused as f64);
        let missing = refused + counts.unanswered;
        if counts.open > 0 {
            self.health.starting(format!("{confirmed} of {wanted} channels subscribed, {refused} refused"));
        }
        let Phase::Open(session) = &mut self.phase else { return };
        if counts.open > 0 || wanted == 0 {
            return;
        }
        let is_news = counts.unanswered == 0 && !std::mem::replace(&mut session.is_subscribed, true);
        let refusals = std::mem::take(&mut session.refusals);
        self.tell_refused(&refusals);
        self.standing.channels = (missing > 0).then(|| {
            let refused: Vec<&str> = self.subscriptions.refusals().collect();
            let refused = if refused.is_empty() { String::new() } else { format!(", refused: {}", named(&refused)) };
            format!("{confirmed} of {wanted} channels subscribed{refused}; the others are asked for again")
        });
        if is_news {
            self.health.subscribed();
            let (pipeline, stage) = (self.health.id().pipeline(), self.health.id().stage());
            tracing::info!(pipeline, stage, "subscribed {} {confirmed} of {wanted} channels", self.health.subject());
        }
        self.standing.line = None;
        self.standing.well = Some(well(confirmed, wanted, 0));
        // Shows the rest, too.
        self.show_quiet();
    }

    /// Shows a breaker that has changed.
    pub(super) fn show_breakers(&mut self, now: Instant) {
        let rest = self.rest.breakers(now).map(|(host, mut breaker)| {
            breaker.next_probe_in = breaker.next_probe_in.map(|pause| pause.max(self.hosts.pause_left(host, now)));
            (Some(host), breaker)
        });
        let seen = std::iter::once((None, self.reconnect.breaker(now))).chain(rest);
        for (number, (host, snapshot)) in seen.enumerate() {
            if number == self.breakers.len() {
                let name = host.map_or_else(|| "connection".to_owned(), |host| format!("rest {host}"));
                let gauge = BreakerMetrics::new(self.health.id(), &name);
                self.breakers.push(ShownBreaker { name, gauge, last: None });
            }
            let ShownBreaker { name, gauge, last } = &mut self.breakers[number];
            let is_same = last.as_ref().is_some_and(|last| {
                last.state == snapshot.state
                    && last.reason == snapshot.reason
                    && last.next_probe_in.is_some() == snapshot.next_probe_in.is_some()
            });
            if !is_same {
                gauge.show(snapshot.state);
                self.health.breaker(name, now, snapshot.clone());
                *last = Some(snapshot);
            }
        }
    }

    /// Begins a discovery if one is due, and there is room for what it may find.
    pub(super) fn discover_when_due(&mut self, now: Instant) -> Result<(), Stop> {
        if self.has_room() && self.discovery.begin(now) {
            return self.discover(None, now);
        }
        Ok(())
    }

    /// Takes the next step of the discovery that is under way.
    pub(super) fn discover(&mut self, reply: Option<&Reply<'_>>, now: Instant) -> Result<(), Stop> {
        let before = self.link.outbox().records().len();
        let event = || reply.map_or(Recorded::Discover, Recorded::discovered);
        let outcome = self.call_recorded(Origin::Live, event, |protocol, out| protocol.discover(reply, out));
        if !matches!(self.phase, Phase::Open(_)) && self.link.outbox().records().len() > before {
            // Rows belong to a session, and there is none: they get a short one.
            self.link.step_before(before, Step::Opened);
            self.link.step(Step::Ended { why: "discovery is done".to_owned() });
        }
        self.carry_out(now)?;
        match outcome {
            Ok(Found::Fetch(request)) => {
                self.push_call(Job::Discover(request), None);
                Ok(())
            }
            Ok(Found::Channels(channels)) => self.discovered(&channels, now),
            Err(error) => self.not_discovered(error, now),
        }
    }

    fn discovered(&mut self, channels: &[String], now: Instant) -> Result<(), Stop> {
        if let Err(error) = self.fits(channels) {
            if !self.is_discovered {
                return Err(Stop::Source(error));
            }
            return self.not_discovered(error, now);
        }
        self.discovery.succeeded(now);
        self.subscriptions.want(channels, now);
        self.is_discovered = true;
        self.is_dirty = true;
        self.standing.discovery = channels.is_empty().then(|| match self.limits.refresh {
            Some(refresh) => format!("the venue has no channel that is wanted; asked again in {}", shown(refresh)),
            None => "the venue has no channel that is wanted".to_owned(),
        });
        self.show_subscriptions();
        self.standing.show(&self.health);
        Ok(())
    }

    /// Refuses what needs more than one connection.
    fn fits(&mut self, channels: &[String]) -> Result<()> {
        let most = self.limits.channels_per_connection.unwrap_or(usize::MAX);
        if channels.len() > most {
            let wanted = channels.len();
            return Err(Error::config(format!(
                "{wanted} channels are wanted and the venue allows {most} on a connection: several connections are not in \
                 this version, ask for fewer `channels` or `instruments`"
            )));
        }
        let mut groups: Vec<&str> = channels.iter().map(|channel| self.protocol.group(channel)).collect();
        groups.sort_unstable();
        groups.dedup();
        if let [first, second, ..] = groups[..] {
            return Err(Error::config(format!(
                "the channels belong to the feeds `{first}` and `{second}`, which never share a connection: several \
                 connections are not in this version, use a source for each"
            )));
        }
        self.group = groups.first().copied().unwrap_or_default().to_owned();
        Ok(())
    }

    /// Tries again later; the channels that were known are kept.
    fn not_discovered(&mut self, error: Error, now: Instant) -> Result<(), Stop> {
        let retry_after = match error.kind() {
            Kind::Transient { retry_after } => retry_after,
            Kind::Malformed => None,
            Kind::Config if self.is_discovered => None,
            Kind::Permanent | Kind::Config => return Err(Stop::Source(error)),
        };
        let pause = shown(self.discovery.failed(retry_after, now));
        self.standing.discovery = Some(format!("discovery failed: {error}; trying again in {pause}"));
        self.standing.show(&self.health);
        Ok(())
    }

    /// Returns when the next thing is due.
    pub(super) fn earliest(&mut self, now: Instant) -> Instant {
        let has_room = self.has_room();
        let discover_at = self.discovery.next_at().filter(|_| has_room);
        let mut next = [discover_at, self.rest.next_at(now), None, None, None, None, None, None, None, None];
        if let Phase::Open(session) = &self.phase {
            let is_ready = self.subscriptions.is_ready();
            next[2] = session.greet_by;
            next[3] = session.stable_at;
            next[4] = session.liveness.next_at();
            next[5] = session.quiet.next_at();
            next[6] = self.wake_at.filter(|_| is_ready);
            next[7] = self.subscriptions.next_at();
            next[8] = self.backfill.next_at(now);
            next[9] = session.heard.next_at();
        } else if self.may_dial() && (has_room || self.reconnect.at(now) > now) {
            let waits = self.held_up.map(|since| since + HELD_UP_TOLD);
            next[2] = waits.or_else(|| Some(self.reconnect.at(now))).filter(|at| waits.is_none() || *at > now);
        }
        next.into_iter().flatten().min().unwrap_or(now + FAR)
    }
}

/// Says that all is well, as far as channels tell.
fn well(confirmed: usize, wanted: usize, quiet: usize) -> String {
    let quiet = if quiet == 0 { String::new() } else { format!(", {quiet} of them quiet") };
    format!("{confirmed} of {wanted} channels subscribed{quiet}")
}

fn owned(channels: &[Arc<str>]) -> Vec<String> {
    channels.iter().map(|channel| channel.to_string()).collect()
}

/// Lists names for a log line, not all of many.
pub(super) fn named<N: AsRef<str>>(names: &[N]) -> String {
    let shown: Vec<String> = names.iter().take(MOST_NAMED).map(|name| format!("`{}`", name.as_ref())).collect();
    let more = names.len().saturating_sub(MOST_NAMED);
    if more == 0 { shown.join(", ") } else { format!("{} and {more} more", shown.join(", ")) }
}

fn stays(channels: usize) -> &'static str {
    if channels == 1 { "it stays subscribed" } else { "they stay subscribed" }
}

const MOST_NAMED: usize = 5;
const FAR: Duration = Duration::from_secs(3_600);
