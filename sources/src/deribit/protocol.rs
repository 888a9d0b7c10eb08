//! What Deribit's frames mean, and what to answer.
//!
//! No book is kept, so that a crossed one is not seen here: whether bid and ask cross after a change is known only to who
//! keeps every level of every book, since a deletion uncovers the next one. What a crossed book would tell, that a change is
//! missing, the chain of `prev_change_id` tells at once and without it, and the venue has no checksum beside that.

use std::{collections::HashSet, ops::RangeInclusive, time::Duration};

use serde_json::{json, value::RawValue};
use tidegate_core::{
    Error, Result,
    config::Secret,
    protocol::{Close, Covered, Discovery, Endpoint, Frame, Gap, Limits, Outbox, Protocol, Remedy, Reply},
    row::{Label, Table, Timestamp, kinds},
};

use super::{
    backfill::{Backfill, each},
    channel::{Channel, state_channel},
    config::{Choice, DeribitConfig, Hosts},
    data::{belongs, on_book, on_book_top, on_index, on_quote, on_ticker, on_trades},
    instrument::is_name,
    message::{Data, Heartbeat, InstrumentState, Login, Message, Notification, Payload, Refusal, read},
    pools::{REQUESTS, SUBSCRIPTIONS},
    refusal::Verdict,
    selection::{Selection, later},
    session::{Asked, Session},
    value::{Lenient, Text},
};
use crate::json::{Orders, Reader};

/// Deribit's side of the conversation.
#[derive(Debug)]
pub(super) struct Deribit {
    config: DeribitConfig,
    hosts: Hosts,
    session: Session,
    selection: Selection,
    backfill: Backfill,
    /// In which order the venue writes.
    orders: Orders,
    /// When something last happened.
    now: Timestamp,
    /// When to choose the instruments anew, or to ask again for what was refused, for another reason than the refresh.
    choose_at: Option<Timestamp>,
    /// When to choose anew for what has happened since the last discovery began.
    anew_at: Option<Timestamp>,
    /// Replies in a row that refused a channel.
    refusals: u32,
    /// Whether this session is not the first.
    was_open: bool,
    /// When to log in again, before the login runs out.
    login_at: Option<Timestamp>,
    /// The secret of the last login.
    sent_secret: Option<Secret>,
}

/// The venue tests the line, and sends something, this often; the least that it takes.
const HEARTBEAT_SECONDS: u64 = 10;
/// States come in swarms, at 08:00 UTC of every instrument; and the lists may be asked for once in 10 s.
const AFTER_STATE: Duration = Duration::from_secs(10);
/// How long to wait before a channel is asked for again that was refused; twice as long each time, up to the longest.
const AFTER_REFUSAL: Duration = Duration::from_secs(10);
const LONGEST_AFTER_REFUSAL: Duration = Duration::from_secs(3600);
/// What a login may say of its life: an absurd number must neither overflow nor make a storm of logins.
const LOGIN_SECONDS: RangeInclusive<u64> = 60..=366 * 86_400;
/// What the venue's clock may show, in UTC nanoseconds: from 2016, when it began, to 2100.
const TIMES: RangeInclusive<i64> = 1_451_606_400_000_000_000..=4_102_444_800_000_000_000;
/// How long to wait for a discovery that was asked for before it is asked for again.
const DISCOVERY_AGAIN: Duration = Duration::from_secs(60);
/// A refused upgrade with the status 429 is the 33rd connection from this address.
const TOO_MANY_CONNECTIONS: Duration = Duration::from_secs(60);

impl Deribit {
    pub(super) fn new(config: DeribitConfig) -> Self {
        let hosts = config.endpoint.hosts();
        let selection = Selection::new(config.selectors().cloned());
        let backfill = Backfill::new(hosts.clone(), config.interval);
        let (session, now) = (Session::default(), Timestamp::default());
        Self {
            config,
            hosts,
            session,
            selection,
            backfill,
            orders: Orders::default(),
            now,
            choose_at: None,
            anew_at: None,
            refusals: 0,
            was_open: false,
            login_at: None,
            sent_secret: None,
        }
    }

    /// Returns the channels of the names and of what the selectors chose.
    fn channels(&self) -> Vec<String> {
        let named = self.config.instruments.iter().filter_map(|choice| match choice {
            Choice::Name(name) => Some(name.as_str()),
            Choice::Selector(_) => None,
        });
        let names: Vec<&str> = named.chain(self.selection.names()).collect();
        let states = self.config.selectors().map(|selector| state_channel(selector.kind.name(), &selector.currency));
        let mut channels: Vec<String> = states.collect();
        for channel in &self.config.channels {
            channels.extend(names.iter().filter_map(|name| channel.name(name, self.config.interval)));
        }
        let mut seen = HashSet::new();
        channels.retain(|channel| seen.insert(channel.clone()));
        channels
    }

    fn log_in(&mut self, out: &mut Outbox) -> Result<()> {
        let (Some(id), Some(secret)) = (&self.config.client_id, &self.config.client_secret) else { return Ok(()) };
        let secret = secret.reveal()?;
        let params = json!({
            "grant_type": "client_credentials",
            "client_id": id,
            "client_secret": secret,
            "scope": "connection account:read",
        });
        self.session.ask_with(&secret, "public/auth", &params, out);
        self.sent_secret = Some(Secret::new(secret));
        Ok(())
    }

    fn wake(&self, out: &mut Outbox) {
        if let Some(at) = self.choose_at.into_iter().chain(self.login_at).min() {
            out.wake_after(Duration::from_nanos(u64::try_from(at.0.saturating_sub(self.now.0)).unwrap_or(0)));
        }
    }

    /// Reads the frame in one pass. `None`: it is written in another way, or broken.
    #[inline]
    fn on_known(&mut self, text: &str, out: &mut Outbox) -> Option<Result<()>> {
        let mut payload = None;
        let reader = Reader::new(text, &mut self.orders);
        let name = Notification::read(reader, |name| self.session.expected(name), &mut payload)?;
        let subject = subject(name);
        if let Some(Payload::Trades(trades)) = &payload
            && trades.into_iter().any(|trade| belongs(&trade.instrument_name, subject).is_err())
        {
            return None;
        }
        out.heard(name);
        Some(self.on_payload(payload?, subject, out))
    }

    /// Reads the frame step by step.
    fn on_other(&mut self, text: &str, out: &mut Outbox) -> Result<()> {
        let message: Message<'_> = read(text)?;
        match message.method.as_deref() {
            None => self.on_answer(&message, out),
            Some("heartbeat") => {
                let params: Heartbeat<'_> = read(message.params.map_or("null", RawValue::get))?;
                // The other type only says that the venue is there.
                if &*params.kind == "test_request" {
                    self.session.ask(Asked::Test, "public/test", &json!({}), out);
                }
                Ok(())
            }
            Some("subscription") => {
                let params: Data<'_, &RawValue> = read(message.params.map_or("null", RawValue::get))?;
                out.heard(&params.channel);
                self.on_data(&params.channel, params.data, out)
            }
            Some(_) => {
                out.ignore("a method of no interest");
                Ok(())
            }
        }
    }

    fn on_data(&mut self, name: &str, data: &RawValue, out: &mut Outbox) -> Result<()> {
        let Some(channel) = self.session.expected(name) else {
            out.ignore("a channel of no interest");
            return Ok(());
        };
        let subject = subject(name);
        if channel == Channel::Trades {
            let raw: Vec<&RawValue> = read(data.get())?;
            let (trades, _) = each(&raw, |trade| belongs(&trade.instrument_name, subject), out);
            on_trades(&trades, out);
            return Ok(());
        }
        let payload = Payload::read(channel, data).map_err(|error| Error::malformed(error.to_string()))?;
        self.on_payload(payload, subject, out)
    }

    #[inline]
    fn on_payload(&mut self, payload: Payload<'_>, subject: &str, out: &mut Outbox) -> Result<()> {
        match payload {
            Payload::Ticker(ticker) => on_ticker(&ticker, subject, out),
            Payload::Trades(trades) => {
                on_trades(&trades, out);
                Ok(())
            }
            Payload::Quote(quote) => on_quote(&quote, subject, out),
            Payload::Book(book) => on_book(book, subject, out),
            Payload::BookTop(top) => on_book_top(top, subject, out),
            Payload::Index(index) => on_index(&index, subject, out),
            Payload::State(state) => self.on_state(&state, out),
        }
    }

    /// Returns what a channel carries whose messages are read: its table is there, or it tells when to choose anew.
    fn read_as(&self, name: &str) -> Option<Channel> {
        let channel = Channel::of(name)?;
        let is_read = channel == Channel::InstrumentStatus || self.config.channels.contains(&channel);
        is_read.then_some(channel)
    }

    fn on_state(&mut self, state: &InstrumentState<'_>, out: &mut Outbox) -> Result<()> {
        if !is_name(&state.instrument_name) {
            return Err(Error::malformed("the state of an instrument with a strange name"));
        }
        if self.config.selectors().next().is_some() {
            self.choose_after(AFTER_STATE, out);
        }
        if self.config.channels.contains(&Channel::InstrumentStatus) {
            out.emit(state.mark(), &kinds::InstrumentStatus { state: Label(&state.state) });
        }
        Ok(())
    }

    /// Something has happened for which the instruments are to be chosen anew, or channels to be asked for again.
    fn choose_after(&mut self, pause: Duration, out: &mut Outbox) {
        let soon = later(self.now, pause);
        let sooner = |at: Option<Timestamp>| Some(at.map_or(soon, |at| at.min(soon)));
        // A discovery that is under way began before it, and sets only the other one.
        (self.choose_at, self.anew_at) = (sooner(self.choose_at), sooner(self.anew_at));
        self.wake(out);
    }

    /// A reply has refused channels: what the venue lists is read again soon, and they are asked for once more.
    fn refused(&mut self, out: &mut Outbox) {
        let pause = AFTER_REFUSAL.saturating_mul(1 << self.refusals.min(16)).min(LONGEST_AFTER_REFUSAL);
        self.refusals = self.refusals.saturating_add(1);
        self.choose_after(pause, out);
    }

    fn on_answer(&mut self, message: &Message<'_>, out: &mut Outbox) -> Result<()> {
        self.hosts.check_venue(message.testnet)?;
        let asked = match message.id {
            Lenient::Number(id) => self.session.answered(id),
            Lenient::Absent | Lenient::Odd => None,
        };
        if let Some(refusal) = &message.error {
            return self.on_refusal(asked, refusal, out);
        }
        let Some(result) = message.result else {
            return Err(Error::malformed("neither a method, a result nor an error"));
        };
        match asked {
            None => out.ignore("a reply to nothing that was asked"),
            Some(Asked::Test | Asked::Greeting) => {}
            Some(Asked::Login) => self.on_login(&read(result.get())?, out),
            Some(Asked::Subscribe(channels)) => {
                if on_subscribed(channels, message, result, out)? {
                    self.refused(out);
                } else {
                    self.refusals = 0;
                }
            }
            // What the venue leaves out was not subscribed to any more.
            Some(Asked::Unsubscribe(channels)) => channels.into_iter().for_each(|channel| out.unsubscribed(channel)),
        }
        self.session.ready_when_greeted(out);
        Ok(())
    }

    fn on_login(&mut self, login: &Login, out: &mut Outbox) {
        if let Lenient::Number(seconds) = login.expires_in {
            // At four fifths of its life, so that there is time to try again.
            let seconds = seconds.clamp(*LOGIN_SECONDS.start(), *LOGIN_SECONDS.end());
            self.login_at = Some(later(self.now, Duration::from_secs(seconds) * 4 / 5));
            self.wake(out);
        }
    }

    fn on_refusal(&mut self, asked: Option<Asked>, refusal: &Refusal<'_>, out: &mut Outbox) -> Result<()> {
        let verdict = refusal.verdict();
        let is_about_us = matches!(verdict, Verdict::NoInstrument | Verdict::OurFault);
        // A request that is too long is refused without its id.
        let asked = asked.or_else(|| {
            let channels = if is_about_us { self.session.only_subscription() } else { None };
            channels.map(Asked::Subscribe)
        });
        // The venue may repeat what it was sent, the secret included: which its file may not hold any more.
        let secret = self.sent_secret.as_ref();
        let why = secret.map_or_else(|| refusal.text(), |secret| secret.hide_in(&refusal.text()));
        let is_login_over = matches!(asked, Some(Asked::Login))
            && matches!(verdict, Verdict::Never | Verdict::LoginOver | Verdict::NoInstrument | Verdict::OurFault);
        let why =
            if is_login_over { format!("{why}; mend `client_id` and `client_secret`, then restart") } else { why };
        match (asked, verdict) {
            (_, Verdict::SessionOver(_)) => Err(refusal.error_that_says(why)),
            (Some(Asked::Login), Verdict::LoginOver) => Err(Error::permanent(why)),
            // A new session brings a new login.
            (_, Verdict::NotLoggedIn) if secret.is_some() => Err(Error::transient(why)),
            (_, Verdict::Never | Verdict::NotLoggedIn | Verdict::LoginOver) => Err(refusal.error_that_says(why)),
            (Some(Asked::Login), Verdict::NoInstrument | Verdict::OurFault) => Err(Error::permanent(why)),
            // The handshake cannot do without: from the beginning.
            (Some(Asked::Greeting), Verdict::NoInstrument | Verdict::OurFault) => Err(Error::transient(why)),
            (Some(Asked::Greeting | Asked::Login), Verdict::Later(_)) => Err(refusal.error_that_says(why)),
            (Some(Asked::Subscribe(channels)), Verdict::NoInstrument | Verdict::OurFault) => {
                channels.into_iter().for_each(|channel| out.refuse(channel, why.clone()));
                self.refused(out);
                Ok(())
            }
            (Some(Asked::Unsubscribe(channels)), Verdict::NoInstrument) => {
                channels.into_iter().for_each(|channel| out.unsubscribed(channel));
                Ok(())
            }
            // The driver asks again, after pauses that grow, and names the channels that wait; the rest of the line goes on.
            (Some(Asked::Subscribe(_)), Verdict::Later(_)) => {
                out.ignore("a subscription that was put off");
                Ok(())
            }
            (Some(Asked::Unsubscribe(_)), Verdict::Later(_) | Verdict::OurFault) => {
                out.ignore("an end of subscriptions that was put off");
                Ok(())
            }
            // The line was alive enough to say no.
            (Some(Asked::Test), Verdict::Later(_) | Verdict::NoInstrument | Verdict::OurFault) => {
                out.ignore("a refused answer to a test of the line");
                Ok(())
            }
            (None, Verdict::Later(_) | Verdict::NoInstrument | Verdict::OurFault) => Err(Error::malformed(why)),
        }
    }

    fn answered(&mut self, reply: &Reply<'_>, out: &mut Outbox) -> Result<()> {
        let message: Message<'_> = serde_json::from_slice(reply.body).map_err(|error| {
            let text = format!("{} answered with status {} and no JSON", reply.request.shown(), reply.status);
            Error::transient(text).because(error)
        })?;
        self.hosts.check_venue(message.testnet)?;
        if let Some(refusal) = message.error {
            let is_first = !self.selection.has_chosen();
            return Err(match refusal.verdict() {
                // Nothing was ever chosen: most likely the currency is none.
                Verdict::OurFault if is_first => Error::permanent(refusal.text()),
                Verdict::OurFault | Verdict::NoInstrument | Verdict::LoginOver => Error::transient(refusal.text()),
                Verdict::Later(_) | Verdict::SessionOver(_) | Verdict::Never | Verdict::NotLoggedIn => refusal.error(),
            });
        }
        let result = message.result.ok_or_else(|| Error::transient("a reply to a discovery without `result`"))?;
        self.selection.answer(result, out)
    }
}

impl Protocol for Deribit {
    fn tables(&self) -> Vec<Table> {
        let mut seen = HashSet::new();
        self.config.channels.iter().filter(|channel| seen.insert(**channel)).map(|channel| channel.table()).collect()
    }

    fn limits(&self) -> Limits {
        Limits {
            channels_per_message: Some(500),
            // The venue takes 32 kB of the whole request.
            bytes_per_message: Some(30_000),
            messages: Some(SUBSCRIPTIONS),
            requests: Some(REQUESTS),
            refresh: Some(self.selection.refresh()),
            ..Limits::default()
        }
    }

    fn discover(&mut self, reply: Option<&Reply<'_>>, out: &mut Outbox) -> Result<Discovery> {
        self.now = out.now();
        match reply {
            None => {
                self.anew_at = None;
                self.selection.begin(self.now);
            }
            Some(reply) => self.answered(reply, out)?,
        }
        if let Some(request) = self.selection.request(&self.hosts.http) {
            return Ok(Discovery::Fetch(request));
        }
        self.selection.choose(self.now, out)?;
        self.choose_at = self.selection.next_choice().into_iter().chain(self.anew_at).min();
        self.wake(out);
        Ok(Discovery::Channels(self.channels()))
    }

    fn streams(&self, channel: &str) -> Vec<Covered> {
        Channel::covered(channel).into_iter().collect()
    }

    fn has_ended(&self, channel: &str) -> bool {
        self.selection.has_ended(subject(channel))
    }

    fn endpoint(&mut self, _: &str, now: Timestamp) -> Result<Endpoint> {
        self.now = now;
        Ok(Endpoint::new(self.hosts.ws.clone()))
    }

    fn on_open(&mut self, out: &mut Outbox) -> Result<()> {
        self.now = out.now();
        self.session.open();
        self.backfill.open();
        self.login_at = None;
        let hello = json!({ "client_name": "tidegate", "client_version": env!("CARGO_PKG_VERSION") });
        self.session.ask(Asked::Greeting, "public/hello", &hello, out);
        let heartbeat = json!({ "interval": HEARTBEAT_SECONDS });
        self.session.ask(Asked::Greeting, "public/set_heartbeat", &heartbeat, out);
        self.log_in(out)?;
        if std::mem::replace(&mut self.was_open, true) && self.config.selectors().next().is_some() {
            // Nobody has told what was listed and ended meanwhile.
            self.choose_after(AFTER_STATE, out);
        }
        self.wake(out);
        Ok(())
    }

    fn subscribe(&mut self, channels: &[&str], out: &mut Outbox) -> Result<()> {
        for name in channels {
            if let Some(channel) = self.read_as(name) {
                self.session.expect(name, channel);
            }
        }
        let asked = Asked::Subscribe(channels.iter().map(|&channel| channel.to_owned()).collect());
        self.session.ask(asked, "public/subscribe", &json!({ "channels": channels }), out);
        Ok(())
    }

    fn unsubscribe(&mut self, channels: &[&str], out: &mut Outbox) -> Result<()> {
        let asked = Asked::Unsubscribe(channels.iter().map(|&channel| channel.to_owned()).collect());
        self.session.ask(asked, "public/unsubscribe", &json!({ "channels": channels }), out);
        Ok(())
    }

    #[inline]
    fn on_frame(&mut self, frame: Frame<'_>, out: &mut Outbox) -> Result<()> {
        let text = frame.text()?;
        self.now = out.now();
        match self.on_known(text, out) {
            Some(outcome) => outcome,
            None => self.on_other(text, out),
        }
    }

    fn on_wake(&mut self, out: &mut Outbox) -> Result<()> {
        self.now = out.now();
        if self.choose_at.is_some_and(|at| at <= self.now) {
            self.choose_at = Some(later(self.now, DISCOVERY_AGAIN));
            self.selection.choose_all();
            out.rediscover();
        }
        if self.login_at.is_some_and(|at| at <= self.now) {
            self.login_at = None;
            self.log_in(out)?;
        }
        self.wake(out);
        Ok(())
    }

    fn on_close(&mut self, close: &Close<'_>) -> Error {
        let error = Error::transient(format!("closed with {} {}", close.code, close.reason).trim_end());
        if close.code == 429 { error.retry_after(TOO_MANY_CONNECTIONS) } else { error }
    }

    fn on_gap(&mut self, gaps: &[Gap]) -> Remedy {
        self.backfill.remedy(gaps, self.now)
    }

    fn on_reply(&mut self, reply: &Reply<'_>, gaps: &[Gap], out: &mut Outbox) -> Result<()> {
        self.now = out.now();
        self.backfill.on_reply(reply, gaps, self.now, out)
    }
}

/// Takes the list of accepted channels: in any order, and what is not in it was refused without a word. Returns whether
/// there was such a one.
fn on_subscribed(asked: Vec<String>, message: &Message<'_>, result: &RawValue, out: &mut Outbox) -> Result<bool> {
    let accepted: Vec<Text<'_>> = read(result.get())?;
    let mut accepted: HashSet<&str> = accepted.iter().map(|channel| &**channel).collect();
    let venue_at = match message.us_out {
        Lenient::Number(micros) => micros.checked_mul(1000).map(Timestamp),
        Lenient::Absent | Lenient::Odd => None,
    };
    // From then on all is owed: an absurd time would make gaps that were none, or hide those that are. Which of the two
    // clocks is wrong nobody can tell, so that ours is no measure.
    let venue_at = venue_at.filter(|at| TIMES.contains(&at.0));
    if venue_at.is_none() && message.us_out != Lenient::Absent {
        out.ignore("a time of the venue's that no clock shows");
    }
    let mut has_refused = false;
    for channel in asked {
        match (accepted.remove(channel.as_str()), venue_at) {
            (true, Some(at)) => out.confirm_at(channel, at),
            (true, None) => out.confirm(channel),
            (false, _) => {
                has_refused = true;
                out.refuse(channel, "left out of the accepted channels: unknown or expired");
            }
        }
    }
    accepted.iter().for_each(|_| out.ignore("an accepted channel that was not asked for"));
    Ok(has_refused)
}

/// Returns the instrument or index of a channel.
#[inline]
fn subject(channel: &str) -> &str {
    // In bytes, which for so few is twice as fast as `split`.
    let dot = |text: &str| text.bytes().position(|byte| byte == b'.');
    let Some(at) = dot(channel) else { return "" };
    let rest = &channel[at + 1..];
    &rest[..dot(rest).unwrap_or(rest.len())]
}
