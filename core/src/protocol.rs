//! What a venue's author implements: [`Protocol`], which is told what happened and fills an [`Outbox`].
//!
//! ```text
//! discover → endpoint → on_open → subscribe → on_frame … on_frame → on_close
//!                                     ↑  batches, paced by `limits`     on_gap → on_reply, beside the frames
//! ```

mod outbox;

use std::time::Duration;

pub use outbox::{Command, Outbox};

use crate::{
    Error, Result,
    row::{Numbering, Position, StreamKey, Table, Timestamp},
};

/// One venue, spoken over one connection.
///
/// Opens no socket, reads no clock, spawns no task, takes no lock: the driver calls it, one call at a time, and carries
/// out what it put into the outbox. The driver makes one for every connection that it keeps (shards, A/B lines, the
/// successor of a connection that is about to be cut) and uses it again when that connection has to be opened anew.
///
/// # Errors
///
/// Every method may fail, and the kind says what follows. `Malformed`: the frame is counted and kept raw in the spool,
/// the connection lives. `Transient`: the connection is closed and opened again after the back-off; from `discover` it
/// repeats the request alone, and from `on_reply` the gaps come back to `on_gap` after a pause. `Permanent`: the source stops and waits for a person. What was put into the outbox before the error is carried out all the same, so a
/// protocol emits the rows of a frame only once all of it was understood, and gives single broken events to
/// [`Outbox::reject`].
pub trait Protocol: Send + 'static {
    /// Returns the tables of the rows that it emits. Asked once, before anything else.
    fn tables(&self) -> Vec<Table>;

    /// Returns what the venue allows. Asked once.
    fn limits(&self) -> Limits {
        Limits::default()
    }

    /// Finds out which channels to subscribe to.
    ///
    /// Called without a reply at the start, at every [`Limits::refresh`] and after [`Outbox::rediscover`]; then with the
    /// reply to each request that it returned, until it returns the channels. May emit rows (a table of instruments).
    fn discover(&mut self, reply: Option<&Reply<'_>>, out: &mut Outbox) -> Result<Discovery>;

    /// Sorts channels into groups that never share a connection: a venue with an address per feed. By default one group.
    fn group<'c>(&self, _channel: &'c str) -> &'c str {
        ""
    }

    /// Returns the streams that a confirmed channel carries, as far as they can be known in advance: empty for a channel
    /// that carries whatever trades. From the confirmation on the pipeline vouches for them, so a numbered stream named
    /// here is asked for its baseline, and a gap is opened for it when the session ends.
    fn streams(&self, _channel: &str) -> Vec<Covered> {
        Vec::new()
    }

    /// Returns whether a channel that the discovery has just left out has ended by itself: its instrument has expired, or is not
    /// listed any more. Otherwise others were chosen in its place. By default the latter.
    fn has_ended(&self, _channel: &str) -> bool {
        false
    }

    /// Returns where to connect for channels of this group. Asked before every attempt, so it may rotate and sign.
    fn endpoint(&mut self, group: &str, now: Timestamp) -> Result<Endpoint>;

    /// Starts a session: forgets the last one and sends the handshake; [`Outbox::ready`] follows, here or in a later
    /// frame. By default there is no handshake.
    fn on_open(&mut self, out: &mut Outbox) -> Result<()> {
        out.ready();
        Ok(())
    }

    /// Sends the request for these channels, never more than `limits` allows in one message.
    ///
    /// Each channel is to be confirmed or refused by [`Outbox`], at once where the venue never answers; the driver
    /// reports those that are neither in time.
    fn subscribe(&mut self, channels: &[&str], out: &mut Outbox) -> Result<()>;

    /// Sends the request to end these channels. By default the driver reconnects without them.
    fn unsubscribe(&mut self, _channels: &[&str], _out: &mut Outbox) -> Result<()> {
        Err(Error::transient("the venue has no way to unsubscribe"))
    }

    /// Takes one frame: emits its records, answers heartbeats, confirms subscriptions.
    fn on_frame(&mut self, frame: Frame<'_>, out: &mut Outbox) -> Result<()>;

    /// Called when the time set by [`Outbox::wake_after`] has come: a ping, a new token.
    fn on_wake(&mut self, _out: &mut Outbox) -> Result<()> {
        Ok(())
    }

    /// Sorts the end of a connection, or a refused upgrade. By default every end is transient.
    fn on_close(&mut self, close: &Close<'_>) -> Error {
        // Not every venue gives a reason.
        Error::transient(format!("closed with {} {}", close.code, close.reason).trim_end())
    }

    /// Says what to do about open gaps: shown *all* that are due, the first being the one that the venue forgets first,
    /// and free to cover many by one request.
    ///
    /// Called again, with what is left, until nothing is due. After a reply the gaps that it did not close come back, after a
    /// growing pause if it brought nothing; so do those of a request that got no answer, or that its host has no room for
    /// yet: a request that is returned may never go out. A gap shows its outer edges: where rows were found in the middle, a protocol that pages remembers how far it got, and
    /// forgets it in `on_open`. The driver runs it beside the frames, within `limits`. By default nothing can be done.
    fn on_gap(&mut self, gaps: &[Gap]) -> Remedy {
        Remedy::Lost { gaps: gaps.iter().map(|gap| gap.id).collect(), why: "the venue keeps no history" }
    }

    /// Emits the rows of a reply to [`Remedy::Fetch`], and says by [`Outbox::answered`] which gaps it answers in full.
    ///
    /// `gaps` are those the request was for. Rows that were already there, or belong to another gap, do no harm: intake
    /// keeps what fills an open gap and drops the rest.
    fn on_reply(&mut self, _reply: &Reply<'_>, _gaps: &[Gap], _out: &mut Outbox) -> Result<()> {
        Ok(())
    }
}

/// A stream that a confirmed channel carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Covered {
    /// Which.
    pub key: StreamKey,
    /// How its records are numbered.
    pub numbering: Numbering,
}

/// One message of a connection. Batched messages (several documents in a frame) are the protocol's to split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A text frame.
    Text(&'a str),
    /// A binary frame.
    Binary(&'a [u8]),
}

impl<'a> Frame<'a> {
    /// Returns the text.
    ///
    /// # Errors
    ///
    /// `Malformed` when the frame is binary.
    pub fn text(self) -> Result<&'a str> {
        match self {
            Self::Text(text) => Ok(text),
            Self::Binary(bytes) => Err(Error::malformed(format!("a binary frame of {} bytes", bytes.len()))),
        }
    }
}

/// Where and how to connect.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// `ws://` or `wss://`. May hold a key: never printed, see [`Endpoint::shown`].
    pub url: String,
    /// Headers of the upgrade request. May hold a key: never printed.
    pub headers: Vec<(String, String)>,
}

impl Endpoint {
    /// Returns an endpoint without headers.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), headers: Vec::new() }
    }

    /// Returns the address without what may be secret: user, password, query.
    pub fn shown(&self) -> String {
        shown(&self.url)
    }

    /// Returns whom it leads to.
    pub(crate) fn host(&self) -> String {
        host(&self.url)
    }
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Endpoint({}, {} headers)", self.shown(), self.headers.len())
    }
}

/// Returns an address without what may be secret: user, password, query.
pub(crate) fn shown(address: &str) -> String {
    let Ok(url) = url::Url::parse(address) else { return "an address that cannot be read".to_owned() };
    let port = url.port().map_or_else(String::new, |port| format!(":{port}"));
    format!("{}://{}{port}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path())
}

/// Returns the host of an address, with its port where it is none of the scheme's.
fn host(address: &str) -> String {
    let Ok(url) = url::Url::parse(address) else { return String::new() };
    let port = url.port().map_or_else(String::new, |port| format!(":{port}"));
    format!("{}{port}", url.host_str().unwrap_or_default())
}

/// What the venue allows; `None` is "says nothing".
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Channels on one connection.
    pub channels_per_connection: Option<usize>,
    /// Channels in one subscribe request.
    pub channels_per_message: Option<usize>,
    /// Size of one subscribe request, in bytes.
    pub bytes_per_message: Option<usize>,
    /// What subscription messages are paid from, those of all connections to a host.
    pub messages: Option<Pool>,
    /// What HTTP requests are paid from that name no [pool](Request::pool) of their own, at each host.
    pub requests: Option<Pool>,
    /// How often to discover anew.
    pub refresh: Option<Duration>,
    /// How far the history lags behind the live feed: no gap is asked for sooner after a confirmation.
    pub history_lag: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            channels_per_connection: None,
            channels_per_message: None,
            bytes_per_message: None,
            messages: None,
            requests: None,
            refresh: None,
            history_lag: Duration::from_secs(1),
        }
    }
}

/// How many requests a host takes from one machine. All pipelines of a process pay from it together. Leave a margin: other
/// programs on the machine pay from it too.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pool {
    /// Tells apart the pools of a host; that of [`Limits::requests`] is best left without a name.
    pub name: &'static str,
    /// Units that come back each second.
    pub per_second: f64,
    /// Units that may be used at once after a rest, at least one.
    pub burst: u32,
}

impl Pool {
    /// Returns the time in which one unit comes back. A rate that is none is no limit.
    pub(crate) fn interval(&self) -> Duration {
        let per_second = Some(self.per_second).filter(|rate| *rate > 0.0);
        per_second.and_then(|rate| Duration::try_from_secs_f64(1.0 / rate).ok()).unwrap_or_default()
    }
}

/// The outcome of one step of [`Protocol::discover`].
#[derive(Debug, Clone, PartialEq)]
pub enum Discovery {
    /// Fetch this, and call again with the reply.
    Fetch(Request),
    /// These channels, and no others, are wanted now. The driver subscribes and unsubscribes the difference.
    Channels(Vec<String>),
}

/// Names an open gap within a pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct GapId(pub u64);

/// An open gap in a numbered stream: what is known of its two edges.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Gap {
    /// Its name.
    pub id: GapId,
    /// The stream.
    pub stream: StreamKey,
    /// How the stream is numbered.
    pub numbering: Numbering,
    /// The last record before the gap; `None` for a stream that was never seen: its *baseline* is asked for, that is the
    /// newest record before `since` and all from then on.
    pub after: Option<Edge>,
    /// The first record behind the gap; `None` when nothing has come yet since the session ended: an open right end.
    pub before: Option<Edge>,
    /// Nothing older is missing, by the venue's clock: the time of `after`, or the later one up to which a session vouched
    /// for the stream; of a stream that was never seen, that of its first confirmation.
    pub since: Timestamp,
    /// How many replies in a row brought nothing of it: when to try another host, or to give up.
    pub dry_replies: u32,
}

/// A record at the edge of a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Edge {
    /// Its number.
    pub position: Position,
    /// Its time at the venue.
    pub ts_event: Timestamp,
}

/// What to do about open gaps.
#[derive(Debug, Clone, PartialEq)]
pub enum Remedy {
    /// Fetch this for these gaps; the reply goes to `on_reply`.
    Fetch {
        /// What to fetch.
        request: Request,
        /// The gaps that it may fill.
        gaps: Vec<GapId>,
    },
    /// Subscribe to this channel anew: its first message will be a whole state, which closes the gap.
    Resubscribe {
        /// The channel.
        channel: String,
        /// The gaps that this ends.
        gaps: Vec<GapId>,
    },
    /// Nothing can be done; the ledger says why.
    Lost {
        /// The gaps.
        gaps: Vec<GapId>,
        /// The reason, in the words of the ledger.
        why: &'static str,
    },
}

impl Remedy {
    /// Returns the gaps that it is for.
    pub fn into_gaps(self) -> Vec<GapId> {
        match self {
            Self::Fetch { gaps, .. } | Self::Resubscribe { gaps, .. } | Self::Lost { gaps, .. } => gaps,
        }
    }
}

/// An HTTP request.
#[derive(Clone, PartialEq)]
pub struct Request {
    /// The address. May hold a key: never printed, see [`Request::shown`].
    pub url: String,
    /// Headers. May hold a key: never printed.
    pub headers: Vec<(String, String)>,
    /// A body makes it a POST.
    pub body: Option<String>,
    /// What it is paid from, where that is not [`Limits::requests`].
    pub pool: Option<Pool>,
    /// How many units of that it uses.
    pub cost: u32,
}

impl Request {
    /// Returns a GET request of cost 1.
    pub fn get(url: impl Into<String>) -> Self {
        Self { url: url.into(), headers: Vec::new(), body: None, pool: None, cost: 1 }
    }

    /// Returns the address without what may be secret: user, password, query.
    pub fn shown(&self) -> String {
        shown(&self.url)
    }

    /// Returns whom it is for.
    pub(crate) fn host(&self) -> String {
        host(&self.url)
    }
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Request({})", self.shown())
    }
}

/// The reply to a [`Request`]. 429, 5xx and broken connections do not get here: the driver repeats those.
#[derive(Debug, Clone, Copy)]
pub struct Reply<'a> {
    /// What was asked.
    pub request: &'a Request,
    /// The HTTP status.
    pub status: u16,
    /// The body, as it came.
    pub body: &'a [u8],
}

/// How a connection ended: a close frame, or an upgrade that was answered with an HTTP status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Close<'a> {
    /// The close code, or the HTTP status.
    pub code: u16,
    /// The text beside it.
    pub reason: &'a str,
}
