//! Plays the connection driver for a protocol's tests: no socket, no clock, every call in the open.

use std::{fmt, sync::Arc};

use crate::{
    Error, Result,
    protocol::{Command, Covered, Discovery, Edge, Frame, Gap, GapId, Outbox, Protocol, Remedy, Reply, Request},
    row::{Head, Level, Numbering, Origin, Position, StreamKey, Table, Timestamp, Value},
};

/// A protocol with a driver that does what the test says, and nothing by itself.
///
/// What the protocol asked for is kept in lists, in order, until the test takes it away.
pub struct Script<P> {
    /// The protocol under test.
    pub protocol: P,
    /// The rows that it emitted and that were kept.
    pub stored: Vec<Stored>,
    /// The messages that it sent. Those that hold a key are among the commands, too.
    pub sent: Vec<String>,
    /// Everything else that it asked for.
    pub commands: Vec<Command>,
    outbox: Outbox,
    streams: Vec<StreamKey>,
    now: Timestamp,
}

/// A row that a protocol emitted, read back from its bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// Its stream.
    pub stream: StreamKey,
    /// What is known of it besides its columns.
    pub head: Head,
    /// The columns that are there, by name.
    pub values: Vec<(Arc<str>, Value)>,
}

impl<P: Protocol> Script<P> {
    /// Returns a script whose clock stands at `now`.
    pub fn new(protocol: P, now: Timestamp) -> Self {
        let outbox = Outbox::new(protocol.tables());
        let (stored, sent, commands, streams) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { protocol, stored, sent, commands, outbox, streams, now }
    }

    /// Returns the time of the script's clock.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// Moves the clock.
    pub fn at(&mut self, now: Timestamp) -> &mut Self {
        self.now = now;
        self
    }

    /// Opens a session.
    ///
    /// # Errors
    ///
    /// What the protocol returned; so for every call of this script.
    pub fn open(&mut self) -> Result<()> {
        self.call(Origin::Live, |protocol, outbox| protocol.on_open(outbox))
    }

    /// Subscribes.
    ///
    /// # Errors
    ///
    /// What the protocol returned.
    pub fn subscribe(&mut self, channels: &[&str]) -> Result<()> {
        self.call(Origin::Live, |protocol, outbox| protocol.subscribe(channels, outbox))
    }

    /// Ends subscriptions.
    ///
    /// # Errors
    ///
    /// What the protocol returned.
    pub fn unsubscribe(&mut self, channels: &[&str]) -> Result<()> {
        self.call(Origin::Live, |protocol, outbox| protocol.unsubscribe(channels, outbox))
    }

    /// Hands over a text frame. A frame that fails leaves no rows behind.
    ///
    /// # Errors
    ///
    /// What the protocol returned.
    pub fn frame(&mut self, text: &str) -> Result<()> {
        self.call(Origin::Live, |protocol, outbox| protocol.on_frame(Frame::Text(text), outbox))
    }

    /// Hands over a binary frame.
    ///
    /// # Errors
    ///
    /// What the protocol returned.
    pub fn binary(&mut self, bytes: &[u8]) -> Result<()> {
        self.call(Origin::Live, |protocol, outbox| protocol.on_frame(Frame::Binary(bytes), outbox))
    }

    /// Lets the protocol's timer ring.
    ///
    /// # Errors
    ///
    /// What the protocol returned.
    pub fn wake(&mut self) -> Result<()> {
        self.call(Origin::Live, |protocol, outbox| protocol.on_wake(outbox))
    }

    /// Runs a discovery, each request answered by `serve`; returns the requests and the channels.
    ///
    /// # Errors
    ///
    /// What the protocol returned.
    pub fn discover(&mut self, mut serve: impl FnMut(&Request) -> String) -> Result<(Vec<Request>, Vec<String>)> {
        let mut requests: Vec<Request> = Vec::new();
        let mut body = None;
        loop {
            let mut step = Err(Error::permanent("no step was made"));
            self.call(Origin::Live, |protocol, outbox| {
                let reply = requests.last().zip(body.as_ref()).map(|(request, body): (_, &String)| Reply {
                    request,
                    status: 200,
                    body: body.as_bytes(),
                });
                step = protocol.discover(reply.as_ref(), outbox);
                Ok(())
            })?;
            match step? {
                Discovery::Channels(channels) => return Ok((requests, channels)),
                Discovery::Fetch(request) => {
                    body = Some(serve(&request));
                    requests.push(request);
                }
            }
        }
    }

    /// Asks what to do about these gaps.
    pub fn on_gap(&mut self, gaps: &[Gap]) -> Remedy {
        self.protocol.on_gap(gaps)
    }

    /// Hands over a reply to a request for these gaps, and returns those that it answered.
    ///
    /// # Errors
    ///
    /// What the protocol returned.
    pub fn reply(&mut self, request: &Request, status: u16, body: &str, gaps: &[Gap]) -> Result<Vec<GapId>> {
        let before = self.commands.len();
        self.call(Origin::Backfill, |protocol, outbox| {
            protocol.on_reply(&Reply { request, status, body: body.as_bytes() }, gaps, outbox)
        })?;
        let mut answered = Vec::new();
        for command in self.commands.split_off(before) {
            if let Command::Answered(gap) = command {
                answered.push(gap);
            } else {
                self.commands.push(command);
            }
        }
        Ok(answered)
    }

    /// Returns the channels that were confirmed, with the venue's time.
    pub fn confirmed(&self) -> Vec<(&str, Timestamp)> {
        let confirmed = self.commands.iter().filter_map(|command| {
            if let Command::Confirm(channel, at) = command { Some((channel.as_str(), *at)) } else { None }
        });
        confirmed.collect()
    }

    /// Returns the channels that were refused, with the reason.
    pub fn refused(&self) -> Vec<(&str, &str)> {
        let refused = self.commands.iter().filter_map(|command| {
            if let Command::Refuse(channel, why) = command { Some((channel.as_str(), why.as_str())) } else { None }
        });
        refused.collect()
    }

    /// Returns the parts of frames that were rejected, with the reason.
    pub fn rejected(&self) -> Vec<(&str, &str)> {
        let rejected = self.commands.iter().filter_map(|command| {
            if let Command::Reject(raw, why) = command { Some((raw.as_str(), why.as_str())) } else { None }
        });
        rejected.collect()
    }

    /// Returns what was left out on purpose.
    pub fn ignored(&self) -> Vec<&'static str> {
        let ignored = self
            .commands
            .iter()
            .filter_map(|command| if let Command::Ignore(what) = command { Some(*what) } else { None });
        ignored.collect()
    }

    /// Returns whether the protocol asked for this.
    pub fn asked_for(&self, command: &Command) -> bool {
        self.commands.contains(command)
    }

    /// Returns the tables of the protocol.
    pub fn tables(&self) -> &[Arc<Table>] {
        self.outbox.tables()
    }

    /// Returns the streams that a channel carries.
    pub fn streams(&self, channel: &str) -> Vec<Covered> {
        self.protocol.streams(channel)
    }

    /// Makes a call, and keeps what came of it.
    fn call(&mut self, origin: Origin, call: impl FnOnce(&mut P, &mut Outbox) -> Result<()>) -> Result<()> {
        self.outbox.begin(self.now, origin);
        let outcome = call(&mut self.protocol, &mut self.outbox);
        if outcome.is_err() {
            self.outbox.forget_records(0);
        }
        for command in self.outbox.take_commands() {
            if let Command::Send(text) | Command::SendSecret(text, _) = &command {
                self.sent.push(text.clone());
            }
            if !matches!(command, Command::Send(_)) {
                self.commands.push(command);
            }
        }
        let mut records = crate::row::Records::default();
        self.outbox.swap_records(&mut records);
        self.streams.extend_from_slice(records.new_streams());
        for (head, row) in records.iter() {
            let stream = self.streams[head.stream as usize].clone();
            let table = self.outbox.tables().iter().find(|table| table.name == stream.table);
            let values = table.and_then(|table| table.read(row)).expect("a row reads back as it was written");
            self.stored.push(Stored { stream, head, values });
        }
        outcome
    }
}

impl<P> fmt::Debug for Script<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stored, sent, commands, .. } = self;
        f.debug_struct("Script").field("stored", stored).field("sent", sent).field("commands", commands).finish()
    }
}

impl Stored {
    /// Returns a column's value; `None` when it is absent.
    pub fn value(&self, column: &str) -> Option<&Value> {
        self.values.iter().find(|(name, _)| &**name == column).map(|(_, value)| value)
    }

    /// Returns a column's number.
    pub fn number(&self, column: &str) -> Option<f64> {
        if let Value::F64(number) = self.value(column)? { Some(*number) } else { None }
    }

    /// Returns a column's text.
    pub fn text(&self, column: &str) -> Option<&str> {
        if let Value::Text(text) = self.value(column)? { Some(text) } else { None }
    }

    /// Returns a column's levels.
    pub fn levels(&self, column: &str) -> &[Level] {
        if let Some(Value::Levels(levels)) = self.value(column) { levels } else { &[] }
    }
}

/// Returns an open gap in a dense stream, for a protocol to be asked about: the numbers and times of its edges.
pub fn gap(id: u64, stream: StreamKey, after: Option<(u64, Timestamp)>, before: Option<(u64, Timestamp)>) -> Gap {
    let edge = |(number, ts_event)| Edge { position: Position::Sequence(number), ts_event };
    let since = after.map_or_else(Timestamp::default, |(_, ts_event)| ts_event);
    Gap {
        id: GapId(id),
        stream,
        numbering: Numbering::Sequence,
        after: after.map(edge),
        before: before.map(edge),
        since,
        dry_replies: 0,
    }
}
