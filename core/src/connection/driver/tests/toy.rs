//! A venue whose frames say what its protocol is to do.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use crate::{
    Error, Result,
    catalog::Factory,
    protocol::{
        Close, Covered, Discovery, Endpoint, Frame, Gap, GapId, Limits, Outbox, Protocol, Remedy, Reply, Request,
    },
    row::{Mark, Numbering, Position, StreamKey, Table, Timestamp},
};

#[derive(Default)]
pub(super) struct Print {
    pub(super) price: f64,
}
crate::row!(Print => "prints", [price]);

/// What tests may set. All connections of a venue share it.
#[derive(Debug, Clone)]
pub(super) struct Toy {
    pub(super) url: String,
    pub(super) limits: Limits,
    /// Wanted without asking; `None`: asked for by HTTP.
    pub(super) channels: Option<Vec<String>>,
    /// Books are subscribed to anew, not fetched.
    pub(super) resubscribes: bool,
    pub(super) groups_by_first_letter: bool,
    pub(super) cannot_unsubscribe: bool,
    /// Each stream has a host of its own, and each gap a request.
    pub(super) has_host_for_each: bool,
    pub(super) made: Arc<AtomicU32>,
    /// What `on_gap` was shown, call by call.
    pub(super) shown: Arc<Mutex<Vec<Vec<u64>>>>,
}

impl Toy {
    pub(super) fn new(channels: &[&str]) -> Self {
        Self {
            url: "ws://venue/feed?key=hidden".to_owned(),
            limits: Limits::default(),
            channels: Some(channels.iter().map(|&name| name.to_owned()).collect()),
            resubscribes: false,
            groups_by_first_letter: false,
            cannot_unsubscribe: false,
            has_host_for_each: false,
            made: Arc::default(),
            shown: Arc::default(),
        }
    }

    pub(super) fn discovering() -> Self {
        Self { channels: None, ..Self::new(&[]) }
    }

    pub(super) fn factory(self) -> Factory<Box<dyn Protocol>> {
        Arc::new(move || {
            self.made.fetch_add(1, Ordering::SeqCst);
            Ok(Box::new(self.clone()))
        })
    }

    fn obey(line: &str, out: &mut Outbox) -> Result<()> {
        let mut words = line.split(' ');
        let verb = words.next().unwrap_or_default();
        let mut word = || words.next().unwrap_or_default();
        match verb {
            "welcome" => out.ready(),
            "ok" => word().split(',').for_each(|channel| out.confirm_at(channel, Timestamp(7))),
            "lack" => out.lacking(Some(format!("the venue has no {}", word()))),
            "plenty" => out.lacking(None),
            "no" => out.refuse(word(), "no such channel"),
            "gone" => out.unsubscribed(word()),
            "row" => {
                let (symbol, number) = (word(), word().parse().unwrap_or_default());
                out.heard(symbol);
                let mark = Mark { symbol, position: Position::Sequence(number), ts_event: Timestamp(number as i64) };
                out.emit(mark, &Print { price: 1.5 });
            }
            "heard" => out.heard(word()),
            "restart" => out.restart::<Print>(word()),
            "part" => out.reject("half a row", &Error::malformed("cut")),
            "wake" => out.wake_after(Duration::from_secs(word().parse().unwrap_or_default())),
            "rediscover" => out.rediscover(),
            "answer" => out.send(word()),
            "login" => out.send_secret("password MARKER", "MARKER"),
            "answered" => out.answered(GapId(word().parse().unwrap_or_default())),
            "bad" => return Err(Error::malformed("what is this")),
            "later" => {
                let pause = Duration::from_secs(word().parse().unwrap_or_default());
                return Err(Error::transient("too many requests").retry_after(pause));
            }
            "fatal" => return Err(Error::permanent("password refused")),
            "panic" => panic!("a fault of the protocol"),
            _ => {}
        }
        Ok(())
    }
}

impl Protocol for Toy {
    fn tables(&self) -> Vec<Table> {
        vec![Table::of::<Print>()]
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    fn discover(&mut self, reply: Option<&Reply<'_>>, out: &mut Outbox) -> Result<Discovery> {
        if let Some(channels) = &self.channels {
            return Ok(Discovery::Channels(channels.clone()));
        }
        let Some(reply) = reply else { return Ok(Discovery::Fetch(Request::get("http://venue/channels?key=hidden"))) };
        let text = std::str::from_utf8(reply.body).unwrap_or_default();
        for line in text.lines().skip(1) {
            Self::obey(line, out)?;
        }
        let first = text.lines().next().unwrap_or_default();
        let channels = first.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        Ok(Discovery::Channels(channels))
    }

    fn group<'c>(&self, channel: &'c str) -> &'c str {
        if self.groups_by_first_letter { &channel[..1] } else { "" }
    }

    fn streams(&self, channel: &str) -> Vec<Covered> {
        // `x+y` carries the streams of both.
        let of = |symbol| Covered { key: StreamKey::new("prints", symbol), numbering: Numbering::Sequence };
        channel.split('+').map(of).collect()
    }

    fn endpoint(&mut self, _group: &str, _now: Timestamp) -> Result<Endpoint> {
        Ok(Endpoint::new(&self.url))
    }

    fn on_open(&mut self, out: &mut Outbox) -> Result<()> {
        out.send("hello");
        Ok(())
    }

    fn subscribe(&mut self, channels: &[&str], out: &mut Outbox) -> Result<()> {
        out.send(format!("sub {}", channels.join(",")));
        Ok(())
    }

    fn unsubscribe(&mut self, channels: &[&str], out: &mut Outbox) -> Result<()> {
        if self.cannot_unsubscribe {
            return Err(Error::transient("the venue has no way to unsubscribe"));
        }
        out.send(format!("unsub {}", channels.join(",")));
        Ok(())
    }

    /// A frame may hold several lines; rows come out only once all of it was understood.
    fn on_frame(&mut self, frame: Frame<'_>, out: &mut Outbox) -> Result<()> {
        frame.text()?.lines().try_for_each(|line| Self::obey(line, out))
    }

    fn on_wake(&mut self, out: &mut Outbox) -> Result<()> {
        out.send("woken");
        Ok(())
    }

    fn on_close(&mut self, close: &Close<'_>) -> Error {
        match close.code {
            401 => Error::permanent("the key is refused"),
            code => Error::transient(format!("closed with {code} {}", close.reason)),
        }
    }

    fn on_gap(&mut self, gaps: &[Gap]) -> Remedy {
        let ids: Vec<GapId> = gaps.iter().map(|gap| gap.id).collect();
        self.shown.lock().unwrap().push(ids.iter().map(|id| id.0).collect());
        if self.resubscribes {
            let channel = gaps[0].stream.symbol.to_string();
            return Remedy::Resubscribe { channel, gaps: vec![ids[0]] };
        }
        if self.has_host_for_each {
            let request = Request::get(format!("http://{}/history", gaps[0].stream.symbol));
            return Remedy::Fetch { request, gaps: vec![ids[0]] };
        }
        if gaps[0].dry_replies > 2 {
            return Remedy::Lost { gaps: ids, why: "the venue forgot" };
        }
        Remedy::Fetch { request: Request::get("http://venue/history?key=hidden"), gaps: ids }
    }

    fn on_reply(&mut self, reply: &Reply<'_>, gaps: &[Gap], out: &mut Outbox) -> Result<()> {
        let text = std::str::from_utf8(reply.body).unwrap_or_default();
        for line in text.lines() {
            if line == "all" {
                gaps.iter().for_each(|gap| out.answered(gap.id));
            }
            Self::obey(line, out)?;
        }
        Ok(())
    }
}
