//! The requests of a WebSocket session: subscribing, logging in, heartbeats, and everything that REST answers too.

use std::time::Duration;

use tokio_tungstenite::tungstenite::Message;

use super::{
    channel::{Channel, Topic},
    fold::Event,
    history::Host,
    lines::{End, Item},
    methods,
    numbers::{Object, write_array},
    oracle::Mark,
    rpc::{Params, Request, RpcError, Stamp, reply},
    venue::{Now, Venue},
};

/// What a request changes about the session's own timers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    None,
    /// Heartbeats this far apart; none switches them off.
    Heartbeat(Option<Duration>),
    /// The client has shown that it lives.
    Tested,
}

/// Channels that one request may name.
const MOST_CHANNELS: usize = 500;

const OK: &str = "\"ok\"";

impl Venue {
    /// Answers a frame of `session`: the reply, first messages and live ones go out in this order.
    pub(super) fn on_frame(&mut self, session: u64, text: &str) -> Effect {
        let now = self.now();
        let (request, error) = match Request::parse(text) {
            Ok(request) => (request, None),
            Err(error) => (Request { id: None, method: String::new(), params: Params::default() }, Some(error)),
        };
        let mut effect = Effect::None;
        let mut first_messages = Vec::new();
        let answer = match error {
            Some(error) => Err(error),
            None if !self.pays(session, &request.method, now) => {
                self.reply(session, request.id.as_deref(), &Err(RpcError::of(10028, "too_many_requests")), now);
                self.lines.queue(session, Item::End(End::TooManyRequests));
                self.commit();
                return Effect::None;
            }
            None if self.conditions.unauthorised(now.instant) => Err(RpcError {
                reason: Some(("access_token", "invalid_token".into())),
                ..RpcError::of(13009, "unauthorized")
            }),
            None => self.session_method(session, &request, now, &mut effect, &mut first_messages),
        };
        self.reply(session, request.id.as_deref(), &answer, now);
        for channel in first_messages {
            self.send_first(session, &channel, now);
        }
        if request.method == "private/logout" && self.lines.is_logged_in(session) {
            self.lines.queue(session, Item::End(End::LoggedOut));
        }
        self.commit();
        effect
    }

    fn session_method(
        &mut self,
        session: u64,
        request: &Request,
        now: Now,
        effect: &mut Effect,
        first_messages: &mut Vec<String>,
    ) -> Result<String, RpcError> {
        match request.method.as_str() {
            "public/subscribe" => {
                let (accepted, new) = self.subscribe(session, &request.params, now)?;
                *first_messages = new;
                Ok(text_list(&accepted))
            }
            "public/unsubscribe" => self.unsubscribe(session, &request.params).map(|channels| text_list(&channels)),
            "public/unsubscribe_all" => {
                let channels = self.lines.channels(session);
                self.leave(session, channels);
                Ok(OK.to_owned())
            }
            "public/set_heartbeat" => {
                *effect = Effect::Heartbeat(Some(self.heartbeat(&request.params)?));
                Ok(OK.to_owned())
            }
            "public/disable_heartbeat" => {
                *effect = Effect::Heartbeat(None);
                Ok(OK.to_owned())
            }
            "public/auth" => self.log_in(session, &request.params),
            "private/logout" if self.lines.is_logged_in(session) => Ok(OK.to_owned()),
            method => {
                if method == "public/test" {
                    *effect = Effect::Tested;
                }
                methods::answer(self, self.main_host(now), method, &request.params, now)
            }
        }
    }

    /// Answers of `public/test` are asked for by the venue, and free.
    fn pays(&mut self, session: u64, method: &str, now: Now) -> bool {
        if method == "public/test" {
            return true;
        }
        let credits = if self.lines.is_logged_in(session) { &mut self.key_credits } else { &mut self.address_credits };
        credits.pay(methods::pool_of(method), now.instant)
    }

    fn subscribe(&mut self, session: u64, params: &Params, now: Now) -> Result<(Vec<String>, Vec<String>), RpcError> {
        if let Some(code) = self.conditions.puts_off(now.instant) {
            return Err(RpcError::of(code, "put_off"));
        }
        let asked = params.texts("channels")?;
        if asked.len() > MOST_CHANNELS {
            return Err(RpcError::invalid("channels", format!("at most {MOST_CHANNELS} channels in a request")));
        }
        let parsed: Vec<_> = asked.iter().map(|name| (name, Channel::parse(name))).collect();
        let raw = parsed.iter().any(|(_, channel)| channel.as_ref().is_some_and(|channel| channel.raw));
        if raw && !self.lines.is_logged_in(session) {
            return Err(RpcError::of(13778, "raw_subscriptions_not_available_for_unauthorized"));
        }

        let (mut accepted, mut new) = (Vec::new(), Vec::new());
        for (name, channel) in parsed {
            let Some(channel) = channel else { continue };
            let listed = channel.topic.instrument().is_none_or(|instrument| self.is_open(instrument));
            let is_recorded = self.recording.as_ref().is_none_or(|recording| recording.has(name));
            if !listed || !is_recorded || self.conditions.refuses(now.instant, name) {
                continue;
            }
            accepted.push(name.clone());
            if self.lines.subscribe(session, &channel.topic, name) {
                let from = self.trade_marks(&channel.topic);
                self.note(Event::Confirmed { session, channel: name.clone(), from });
                new.push(name.clone());
            }
        }
        // The venue answers in an order of its own.
        accepted.sort_by(|one, other| other.cmp(one));
        accepted.dedup();
        Ok((accepted, new))
    }

    /// Where the trades stand that come on a channel.
    fn trade_marks(&self, topic: &Topic) -> std::collections::BTreeMap<String, Mark> {
        let open = self.market.listings.iter().filter(|listing| listing.open);
        let carried = open.filter(|listing| topic.carries_trades_of(&listing.instrument.name, listing.is_option()));
        carried
            .map(|listing| (listing.instrument.name.clone(), Mark { epoch: listing.epoch, seq: listing.seq }))
            .collect()
    }

    fn unsubscribe(&mut self, session: u64, params: &Params) -> Result<Vec<String>, RpcError> {
        let asked = params.texts("channels")?;
        Ok(self.leave(session, asked))
    }

    fn leave(&mut self, session: u64, channels: Vec<String>) -> Vec<String> {
        let mut left = Vec::new();
        for channel in channels {
            let Some(Channel { topic, .. }) = Channel::parse(&channel) else { continue };
            if self.lines.unsubscribe(session, &topic, &channel) {
                self.note(Event::Unsubscribed { session, channel: channel.clone() });
                left.push(channel);
            }
        }
        left
    }

    fn heartbeat(&self, params: &Params) -> Result<Duration, RpcError> {
        let seconds = params.integer("interval")?.ok_or_else(|| RpcError::invalid("interval", "value required"))?;
        match u32::try_from(seconds) {
            Ok(seconds) if seconds >= 10 => Ok(self.heartbeat_second.saturating_mul(seconds)),
            _ => Err(RpcError::invalid("interval", "value must be >= 10")),
        }
    }

    fn log_in(&mut self, session: u64, params: &Params) -> Result<String, RpcError> {
        if params.required_text("grant_type")? != "client_credentials" {
            return Err(RpcError::invalid("grant_type", "only client_credentials is simulated"));
        }
        let given = (params.text("client_id"), params.text("client_secret"));
        let known = self.credentials.as_ref();
        let right = known.is_some_and(|key| given == (Some(key.client_id.as_str()), Some(key.client_secret.as_str())));
        if !right {
            return Err(RpcError::of(13004, "invalid_credentials"));
        }
        self.lines.log_in(session);
        let mut out = String::new();
        Object::begin(&mut out)
            .text("access_token", &format!("simulated-access-{session}"))
            .text("refresh_token", &format!("simulated-refresh-{session}"))
            .integer("expires_in", 31_536_000)
            .text("scope", "connection account:read")
            .text("token_type", "bearer")
            .raw("enabled_features", "[]")
            .end();
        Ok(out)
    }

    /// A reply that is late leaves its effect in time, so that live messages come before it.
    fn reply(&mut self, session: u64, id: Option<&str>, answer: &Result<String, RpcError>, now: Now) {
        let text = reply(id, answer, self.stamp(now));
        let item = match self.conditions.slow(now.instant) {
            Some(after) => Item::SendLater { text, after },
            None => Item::Send { message: Message::text(text), key: None },
        };
        self.lines.queue(session, item);
    }

    /// Returns what a reply says about its time and the venue.
    pub(super) fn stamp(&self, now: Now) -> Stamp {
        let testnet = self.testnet != self.conditions.wrong_testnet(now.instant);
        // A request for many channels takes its time, and what it asked for holds from its end on.
        Stamp { in_us: now.us, out_us: self.now().us.max(now.us + 79), testnet }
    }

    /// Returns the main host as of now.
    pub(super) fn main_host(&self, now: Now) -> Host {
        let ms = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        let from_ms = now.ms().saturating_sub(ms(self.history));
        let to_ms = self.conditions.rest_lag(now.instant).map_or(i64::MAX, |by| now.ms().saturating_sub(ms(by)));
        Host::Main { from_ms, to_ms }
    }
}

fn text_list(texts: &[String]) -> String {
    let mut out = String::new();
    write_array(&mut out, texts, |out, text| {
        out.push('"');
        out.push_str(text);
        out.push('"');
    });
    out
}
