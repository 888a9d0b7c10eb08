//! Whether a connection lives: no frame is a dead link, no record is a silent venue. Two timers, kept apart.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use crate::config::{Ping, Silence};

/// Watches one connection. Reads no clock.
#[derive(Debug)]
pub(super) struct Liveness {
    ping_every: Duration,
    ping_timeout: Duration,
    warn: Duration,
    reconnect: Duration,
    last_ping: Instant,
    /// The first ping that no frame has followed.
    unanswered: Option<Instant>,
    /// When the last record came, or data began to be owed; `None` while nothing is owed.
    last_record: Option<Instant>,
    is_silent: bool,
}

/// Up to when all that the venue sent was read. Reads no clock.
///
/// A process that stood still reads late what has waited for it in the socket, and never what the venue has thrown away
/// meanwhile: that a frame is read tells nothing of the time before. And a venue that is behind with sending leaves a socket
/// empty, too: what it has made since a ping that it has not answered may wait in front of the answer, and goes with the
/// line.
#[derive(Debug)]
pub(super) struct Heard {
    /// When the last frame was read.
    frame: Option<Instant>,
    /// When nothing was left to read, as a later look has shown.
    shown: Instant,
    /// When nothing seemed to be left at the last look.
    seen: Instant,
    /// The pings that are not answered, by their numbers, and when each was sent.
    unanswered: VecDeque<(u64, Instant)>,
    pings: u64,
    /// A ping was answered.
    has_pong: bool,
}

impl Heard {
    pub(super) fn new(now: Instant) -> Self {
        Self { frame: None, shown: now, seen: now, unanswered: VecDeque::new(), pings: 0, has_pong: false }
    }

    /// Notes that a frame was read.
    pub(super) fn frame(&mut self, now: Instant) {
        self.frame = Some(now);
    }

    /// Notes that nothing is left to read. Between two looks the runtime learns what has come: the first one alone may have
    /// been blind.
    pub(super) fn nothing_left(&mut self, now: Instant) {
        self.shown = self.seen;
        self.seen = now;
    }

    /// Notes that a ping goes out, and returns what it carries; none where far too many are unanswered.
    pub(super) fn ping(&mut self, now: Instant) -> Option<[u8; 8]> {
        if self.unanswered.len() >= MOST_PINGS {
            return None;
        }
        self.pings += 1;
        self.unanswered.push_back((self.pings, now));
        Some(self.pings.to_be_bytes())
    }

    /// Notes an answer: all that was sent before its ping came has been read. A venue may answer only the newest of several.
    /// Returns how long it took from its ping; `None` where it answers none that waits.
    pub(super) fn pong(&mut self, payload: &[u8], now: Instant) -> Option<Duration> {
        let number = payload.try_into().map(u64::from_be_bytes).ok().filter(|number| *number <= self.pings)?;
        let sent = self.unanswered.iter().find(|(ping, _)| *ping == number).map(|(_, sent)| *sent);
        self.unanswered.retain(|(ping, _)| *ping > number);
        let took = now.saturating_duration_since(sent?);
        self.has_pong = true;
        Some(took)
    }

    /// Returns whether a ping was answered.
    pub(super) fn has_pong(&self) -> bool {
        self.has_pong
    }

    /// Returns up to when frames came and all of them were read.
    pub(super) fn until(&self) -> Option<Instant> {
        let read = self.frame?.min(self.shown);
        Some(self.unanswered.front().map_or(read, |(_, sent)| read.min(*sent)))
    }

    /// Returns when to look again, so that of the last frame it is known that it was the last one.
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.frame.filter(|frame| *frame > self.shown).map(|_| self.seen + LOOK_AGAIN)
    }
}

/// More pings than these need not be told apart: a venue that is so far behind is lost.
const MOST_PINGS: usize = 4_096;
/// So long after the last look another one is made.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// What the watch has found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Sign {
    /// Send a ping.
    Ping,
    /// No record for this long: tell.
    Silent(Duration),
    /// No record for this long: open the connection anew.
    Mute(Duration),
    /// No frame for this long after a ping: open the connection anew.
    Dead(Duration),
}

impl Liveness {
    /// Begins to watch a connection that was opened now. A time of zero turns its check off.
    pub(super) fn new(ping: &Ping, silence: &Silence, now: Instant) -> Self {
        Self {
            ping_every: ping.every.0,
            ping_timeout: ping.timeout.0,
            warn: silence.warn.0,
            reconnect: silence.reconnect.0,
            last_ping: now,
            unanswered: None,
            last_record: None,
            is_silent: false,
        }
    }

    /// Notes that a frame came, of any kind.
    pub(super) fn frame(&mut self) {
        self.unanswered = None;
    }

    /// Notes that a record came, and returns whether that ends a silence.
    pub(super) fn record(&mut self, now: Instant) -> bool {
        self.last_record = Some(now);
        std::mem::take(&mut self.is_silent)
    }

    /// Says that a channel is confirmed: data is owed from now on.
    pub(super) fn expect(&mut self, now: Instant) {
        self.last_record.get_or_insert(now);
    }

    /// Returns what is due. To be called only after the frames that are there were read, so that a process that stood
    /// still does not take itself for a dead link.
    pub(super) fn poll(&mut self, now: Instant) -> Option<Sign> {
        if let Some(since) = self.unanswered
            && now >= since + self.ping_timeout
        {
            return Some(Sign::Dead(now - since));
        }
        if !self.ping_every.is_zero() && now >= self.last_ping + self.ping_every {
            self.last_ping = now;
            self.unanswered.get_or_insert(now);
            return Some(Sign::Ping);
        }
        let silent_for = now.saturating_duration_since(self.last_record?);
        if !self.reconnect.is_zero() && silent_for >= self.reconnect {
            return Some(Sign::Mute(silent_for));
        }
        let is_news = !self.is_silent && !self.warn.is_zero() && silent_for >= self.warn;
        self.is_silent |= is_news;
        is_news.then_some(Sign::Silent(silent_for))
    }

    /// Returns whether data is owed, and pings are wanted at all: then it matters up to when it has come.
    pub(super) fn asks_for_proof(&self) -> bool {
        !self.ping_every.is_zero() && self.last_record.is_some()
    }

    /// Returns when to look again.
    pub(super) fn next_at(&self) -> Option<Instant> {
        let ping = (!self.ping_every.is_zero()).then(|| self.last_ping + self.ping_every);
        let dead = self.unanswered.map(|since| since + self.ping_timeout);
        let silence = self.last_record.and_then(|since| {
            let warn = (!self.is_silent && !self.warn.is_zero()).then(|| since + self.warn);
            let reconnect = (!self.reconnect.is_zero()).then(|| since + self.reconnect);
            warn.into_iter().chain(reconnect).min()
        });
        ping.into_iter().chain(dead).chain(silence).min()
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Duration as Configured;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn pings_each_period_and_any_frame_counts_as_an_answer() {
        let (mut liveness, start) = liveness();
        assert_eq!(liveness.poll(start + SECOND * 19), None);
        assert_eq!(liveness.poll(start + SECOND * 20), Some(Sign::Ping));
        assert_eq!(liveness.next_at(), Some(start + SECOND * 30), "the answer's deadline comes before the next ping");
        liveness.frame();
        assert_eq!(liveness.poll(start + SECOND * 30), None, "it was answered");
        assert_eq!(liveness.poll(start + SECOND * 40), Some(Sign::Ping));
    }

    #[test]
    fn without_a_frame_after_a_ping_the_link_is_dead() {
        let (mut liveness, start) = liveness();
        assert_eq!(liveness.poll(start + SECOND * 20), Some(Sign::Ping));
        assert_eq!(liveness.poll(start + SECOND * 30 - SECOND / 2), None);
        assert_eq!(liveness.poll(start + SECOND * 30), Some(Sign::Dead(SECOND * 10)));
    }

    #[test]
    fn a_second_ping_does_not_give_a_dead_link_more_time() {
        let ping = Ping { every: Configured::from_secs(2), timeout: Configured::from_secs(5) };
        let start = Instant::now();
        let mut liveness = Liveness::new(&ping, &Silence::default(), start);
        for at in [2, 4, 6] {
            assert_eq!(liveness.poll(start + SECOND * at), Some(Sign::Ping));
        }
        assert_eq!(liveness.poll(start + SECOND * 7), Some(Sign::Dead(SECOND * 5)));
    }

    #[test]
    fn frames_without_records_are_a_silence_and_no_dead_link() {
        let (mut liveness, start) = liveness();
        liveness.expect(start);
        let mut found = Vec::new();
        for at in 1..=300 {
            liveness.frame();
            let signs = std::iter::from_fn(|| liveness.poll(start + SECOND * at)).take(3);
            found.extend(signs.filter(|sign| *sign != Sign::Ping));
            if !found.is_empty() && at == 300 {
                break;
            }
        }
        assert_eq!(found.first(), Some(&Sign::Silent(SECOND * 30)), "told once");
        assert!(found[1..].iter().all(|sign| *sign == Sign::Mute(SECOND * 300)), "{found:?}");
        assert!(found.len() > 1);
    }

    #[test]
    fn a_record_ends_the_silence_and_the_next_one_is_told_again() {
        let (mut liveness, start) = liveness();
        liveness.expect(start);
        liveness.poll(start + SECOND * 20);
        liveness.frame();
        assert_eq!(liveness.poll(start + SECOND * 30), Some(Sign::Silent(SECOND * 30)));
        assert!(liveness.record(start + SECOND * 31));
        assert!(!liveness.record(start + SECOND * 32), "over already");
        liveness.poll(start + SECOND * 62);
        liveness.frame();
        assert_eq!(liveness.poll(start + SECOND * 62), Some(Sign::Silent(SECOND * 30)));
    }

    #[test]
    fn without_a_confirmed_channel_nothing_is_owed() {
        let (mut liveness, start) = liveness();
        liveness.poll(start + SECOND * 3_000);
        liveness.frame();
        assert_eq!(liveness.poll(start + SECOND * 3_000), None);
    }

    #[test]
    fn a_time_of_zero_turns_a_check_off() {
        let ping = Ping { every: Configured::from_secs(0), ..Ping::default() };
        let silence = Silence { warn: Configured::from_secs(0), reconnect: Configured::from_secs(0) };
        let start = Instant::now();
        let mut liveness = Liveness::new(&ping, &silence, start);
        liveness.expect(start);
        assert_eq!(liveness.poll(start + SECOND * 100_000), None);
        assert_eq!(liveness.next_at(), None);
    }

    #[test]
    fn a_socket_that_is_empty_tells_nothing_of_what_came_after_a_ping_that_is_not_answered() {
        let start = Instant::now();
        let mut heard = Heard::new(start);
        let read = |heard: &mut Heard, second: u32| {
            heard.frame(start + SECOND * second);
            heard.nothing_left(start + SECOND * second);
            heard.nothing_left(start + SECOND * second);
            heard.until().map(|until| (until - start).as_secs())
        };
        assert_eq!(read(&mut heard, 10), Some(10), "nobody was asked");
        let pings: Vec<_> = (11..20).filter_map(|second| heard.ping(start + SECOND * second)).collect();
        assert_eq!(read(&mut heard, 100), Some(11), "frames come, and are of before the first ping");
        assert_eq!(heard.pong(&pings[0], start + SECOND * 100), Some(SECOND * 89), "sent at 11");
        assert!(heard.has_pong());
        assert_eq!(read(&mut heard, 101), Some(12));
        assert_eq!(heard.pong(b"unasked", start + SECOND * 101), None);
        assert_eq!(heard.pong(&u64::MAX.to_be_bytes(), start + SECOND * 101), None);
        assert_eq!(heard.pong(&pings[0], start + SECOND * 101), None, "answered already");
        assert_eq!(read(&mut heard, 102), Some(12), "a pong that answers nothing");
        assert_eq!(heard.pong(&pings[8], start + SECOND * 102), Some(SECOND * 83));
        assert_eq!(read(&mut heard, 103), Some(103), "the newest answer is one to all before it");
    }

    fn liveness() -> (Liveness, Instant) {
        let start = Instant::now();
        (Liveness::new(&Ping::default(), &Silence::default(), start), start)
    }
}
