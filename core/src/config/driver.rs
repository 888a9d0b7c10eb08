//! The keys that the engine reads beside a component's own: of every connection, every delivery and the spool.
//!
//! A struct has one default, or a table that gives only some of its keys would fall back to somebody else's. So
//! `reconnect` and `retry` are two structs, and there are three breakers.

use std::{
    num::{NonZeroU32, NonZeroUsize},
    path::{Path, PathBuf},
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    faults::Faults,
    units::{ByteSize, Duration, Rate, Speed, positive},
};

/// The keys that the connection driver reads from `[source.NAME]`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ConnectionConfig {
    /// How to come back after a connection ended.
    pub reconnect: Reconnect,
    /// How long a connection may take to be made, TLS and WebSocket handshake included.
    #[serde(deserialize_with = "positive")]
    pub connect_timeout: Duration,
    /// Keeps the connection alive, and finds out when it is dead.
    pub ping: Ping,
    /// What to do when frames come but no data.
    pub silence: Silence,
    /// Report a subscription that had no message for this long, while others have; "0s" for never.
    pub quiet_after: Duration,
    /// How long the venue may take to confirm a subscription.
    #[serde(deserialize_with = "positive")]
    pub subscribe_timeout: Duration,
    /// When to stop dialling a venue that keeps failing.
    pub breaker: LineBreaker,
    /// Calls to the venue's REST interface: discovery and backfill.
    pub rest: Rest,
    /// A longer message ends the connection.
    #[serde(deserialize_with = "positive")]
    pub max_message: ByteSize,
    /// A PEM file with certificates that are trusted besides the system's.
    pub extra_ca: Option<PathBuf>,
    /// What may have come and not be in the spool yet. When it is more, the session ends and the gap is filled.
    #[serde(deserialize_with = "positive")]
    pub queue: ByteSize,
    /// The pause between the starts of this source's connections.
    pub start_every: Duration,
    /// Capture every frame as it came, to be replayed; `{}` for a capture with the defaults.
    pub capture: Option<CaptureConfig>,
    /// Play a capture instead of connecting, into a spool of its own: the pipeline's files are in `data_dir/PIPELINE/replay`
    /// then. Give it stores of its own too; a store that holds the live feed refuses it.
    pub replay: Option<ReplayConfig>,
}

impl Default for ConnectionConfig {
    fn default() -> Self {
        Self {
            reconnect: Reconnect::default(),
            connect_timeout: Duration::from_secs(10),
            ping: Ping::default(),
            silence: Silence::default(),
            quiet_after: Duration::from_secs(5 * 60),
            subscribe_timeout: Duration::from_secs(10),
            breaker: LineBreaker::default(),
            rest: Rest::default(),
            max_message: ByteSize::from_mib(16),
            extra_ca: None,
            queue: ByteSize::from_mib(64),
            start_every: Duration::from_secs(1),
            capture: None,
            replay: None,
        }
    }
}

impl ConnectionConfig {
    pub(crate) fn check(&self, faults: &mut Faults) {
        if self.capture.is_some() && self.replay.is_some() {
            let message = "`capture` beside `replay`: what is played is captured already, take one of them away";
            faults.at("capture", message).and("replay");
        }
        faults.within("capture", |faults| {
            not_empty("dir", self.capture.as_ref().and_then(|capture| capture.dir.as_deref()), faults);
        });
        faults.within("replay", |faults| {
            not_empty("from", self.replay.as_ref().map(|replay| &*replay.from), faults);
        });
        not_empty("extra_ca", self.extra_ca.as_deref(), faults);
        self.check_effects(faults);
        let Reconnect { first, longest, .. } = self.reconnect;
        if first != Reconnect::default().first {
            faults.within("reconnect", |faults| check_pauses(first, longest, faults));
        }
        let Silence { warn, reconnect } = self.silence;
        // Whoever says only one of the two leaves the other to us.
        if reconnect < warn && !reconnect.0.is_zero() && warn != Silence::default().warn {
            let message =
                format!("`silence` opens the connection anew after {reconnect}, so it never warns after {warn}");
            faults.within("silence", |faults| {
                faults.at("warn", message).and("reconnect");
            });
        }
    }
}

impl ConnectionConfig {
    /// Looks for keys that change nothing beside others.
    fn check_effects(&self, faults: &mut Faults) {
        let Ping { every, timeout } = self.ping;
        if every.0.is_zero() && timeout != Ping::default().timeout {
            let message = "`timeout` changes nothing: with `every = \"0s\"` nothing is pinged";
            faults.within("ping", |faults| _ = faults.at("timeout", message).and("every").harmless());
        }
        let failures = self.breaker.failures;
        if let Some(most) = self.reconnect.max_attempts.filter(|most| *most < failures)
            && failures != LineBreaker::default().failures
        {
            let message = format!(
                "`breaker.failures` = {failures} changes nothing: `reconnect.max_attempts` = {most} gives up before"
            );
            faults.within("breaker", |faults| _ = faults.at("failures", message).harmless());
        }
    }
}

/// A path that is empty is none.
fn not_empty(key: &str, path: Option<&Path>, faults: &mut Faults) {
    if path.is_some_and(|path| path.as_os_str().is_empty()) {
        faults.at(key, format!("`{key}` is empty: write a path, or leave the key out"));
    }
}

/// The first pause is no longer than the longest.
fn check_pauses(first: Duration, longest: Duration, faults: &mut Faults) {
    if first > longest {
        faults
            .at("first", format!("the `first` pause, {first}, is longer than the `longest`, {longest}"))
            .and("longest");
    }
}

/// Pauses between attempts to connect: each twice the last one, with full jitter.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Reconnect {
    /// The pause after the first failure.
    #[serde(deserialize_with = "positive")]
    pub first: Duration,
    /// No pause is longer than this.
    #[serde(deserialize_with = "positive")]
    pub longest: Duration,
    /// A connection that held for this long starts the pauses over.
    pub stable_after: Duration,
    /// Give up after so many attempts in a row that led to no connection that held for `stable_after`; without it, never.
    pub max_attempts: Option<NonZeroU32>,
}

impl Default for Reconnect {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(1),
            longest: Duration::from_secs(60),
            stable_after: Duration::from_secs(30),
            max_attempts: None,
        }
    }
}

/// Pings of the connection.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Ping {
    /// The pause between two pings; "0s" for none.
    pub every: Duration,
    /// Without a frame for this long after a ping, the connection is dead and is opened anew.
    #[serde(deserialize_with = "positive")]
    pub timeout: Duration,
}

impl Default for Ping {
    fn default() -> Self {
        Self { every: Duration::from_secs(20), timeout: Duration::from_secs(10) }
    }
}

/// No row on the whole connection.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Silence {
    /// Report it after this long; "0s" for never.
    pub warn: Duration,
    /// Open the connection anew after this long; "0s" for never.
    pub reconnect: Duration,
}

impl Default for Silence {
    fn default() -> Self {
        Self { warn: Duration::from_secs(30), reconnect: Duration::from_secs(5 * 60) }
    }
}

/// Makes a breaker's table with defaults of its own, `open_for` in seconds.
macro_rules! breaker {
    ($(#[doc = $about:literal] $name:ident { failures: $failures:literal, open_for: $open_for:literal, successes: $successes:literal })+) => {$(
        #[doc = $about]
        #[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
        #[serde(deny_unknown_fields, default)]
        pub struct $name {
            /// So many failures in a row open it: nothing is called any more.
            pub failures: NonZeroU32,
            /// It stays open for this long; then single calls may try.
            #[serde(deserialize_with = "positive")]
            pub open_for: Duration,
            /// So many of these in a row must succeed to close it.
            pub successes: NonZeroU32,
        }

        impl Default for $name {
            fn default() -> Self {
                Self {
                    failures: const { NonZeroU32::new($failures).expect("a literal above 0") },
                    open_for: Duration::from_secs($open_for),
                    successes: const { NonZeroU32::new($successes).expect("a literal above 0") },
                }
            }
        }
    )+};
}

breaker! {
    /// The breaker of a WebSocket connection.
    LineBreaker { failures: 3, open_for: 30, successes: 2 }
    /// The breaker of the calls to a venue's REST interface.
    RestBreaker { failures: 5, open_for: 60, successes: 3 }
    /// The breaker of the writes to a store.
    StoreBreaker { failures: 5, open_for: 30, successes: 2 }
}

/// Calls to a venue's REST interface.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Rest {
    /// When to stop calling it.
    pub breaker: RestBreaker,
    /// No more calls to one host than this; without it, what the venue allows.
    pub rate: Option<Rate>,
    /// How long one call may take.
    #[serde(deserialize_with = "positive")]
    pub timeout: Duration,
}

impl Default for Rest {
    fn default() -> Self {
        Self { breaker: RestBreaker::default(), rate: None, timeout: Duration::from_secs(10) }
    }
}

/// A capture of what the venue sent.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CaptureConfig {
    /// The folder of the captures, each source's in `PIPELINE/SOURCE` below it; without it,
    /// `data_dir/PIPELINE/sources/SOURCE/capture`. A process that is killed loses the last second of it.
    pub dir: Option<PathBuf>,
    /// Begin a new file at this size, before compression.
    #[serde(deserialize_with = "positive")]
    pub rotate_bytes: ByteSize,
    /// Begin a new file after this long.
    #[serde(deserialize_with = "positive")]
    pub rotate_every: Duration,
}

impl Default for CaptureConfig {
    fn default() -> Self {
        Self { dir: None, rotate_bytes: ByteSize::from_mib(256), rotate_every: Duration::from_secs(3600) }
    }
}

impl CaptureConfig {
    /// Returns the folder of one source's captures, where one is named: several sources, of several pipelines, may have the
    /// same.
    pub fn folder(&self, pipeline: &str, source: &str) -> Option<PathBuf> {
        Some(self.dir.as_ref()?.join(pipeline).join(source))
    }
}

/// A capture to be played.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReplayConfig {
    /// The folder of a capture, or one of its files.
    pub from: PathBuf,
    /// How fast it is played: "1x" as it was captured, "10x", or "max".
    #[serde(default)]
    pub speed: Speed,
}

/// The keys that the delivery driver reads from `[sink.NAME]`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DeliveryConfig {
    /// How much one write may hold.
    pub batch: Batch,
    /// How to come back after a write that failed. There is no last attempt: the spool holds the rows.
    pub retry: Retry,
    /// When to stop writing to a store that keeps failing.
    pub breaker: StoreBreaker,
    /// How long one write may take.
    #[serde(deserialize_with = "positive")]
    pub timeout: Duration,
    /// Asks an idle store whether it is there.
    pub probe: Probe,
    /// Where a sink begins that the pipeline did not have before. The sinks of a new pipeline get all rows either way.
    pub start: Start,
}

impl Default for DeliveryConfig {
    fn default() -> Self {
        Self {
            batch: Batch::default(),
            retry: Retry::default(),
            breaker: StoreBreaker::default(),
            timeout: Duration::from_secs(30),
            probe: Probe::default(),
            start: Start::Latest,
        }
    }
}

impl DeliveryConfig {
    pub(super) fn check(&self, faults: &mut Faults) {
        let Retry { first, longest } = self.retry;
        if first != Retry::default().first {
            faults.within("retry", |faults| check_pauses(first, longest, faults));
        }
    }
}

/// The size of a write.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Batch {
    /// At most this many rows.
    pub rows: NonZeroUsize,
    /// At most this many bytes.
    #[serde(deserialize_with = "positive")]
    pub bytes: ByteSize,
    /// Wait this long for more rows; "0s" writes what is there.
    pub linger: Duration,
}

impl Default for Batch {
    fn default() -> Self {
        let rows = const { NonZeroUsize::new(5_000).expect("a literal above 0") };
        Self { rows, bytes: ByteSize::from_mib(8), linger: Duration::from_secs(0) }
    }
}

/// Pauses between attempts to write: each twice the last one, with full jitter.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Retry {
    /// The pause after the first failure.
    #[serde(deserialize_with = "positive")]
    pub first: Duration,
    /// No pause is longer than this.
    #[serde(deserialize_with = "positive")]
    pub longest: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self { first: Duration::from_secs(1), longest: Duration::from_secs(30) }
    }
}

/// Questions to an idle store.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Probe {
    /// The pause between two questions; "0s" for none.
    pub every: Duration,
    /// How long an answer may take.
    #[serde(deserialize_with = "positive")]
    pub timeout: Duration,
}

impl Default for Probe {
    fn default() -> Self {
        Self { every: Duration::from_secs(60), timeout: Duration::from_secs(10) }
    }
}

/// Where a sink begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// With the oldest row that the spool still has.
    Earliest,
    /// With the first row that came after the first start with this sink, whenever its store was reached.
    Latest,
}

/// The table `[spool]`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SpoolConfig {
    /// No row is written beyond this; gaps and the like may take 1 MiB more, anew at each start of a full spool.
    pub max_bytes: ByteSize,
    /// What to do when that is reached, or the disk is full.
    pub when_full: WhenFull,
    /// The size of one of its files.
    pub segment_bytes: ByteSize,
    /// Rows stay this long after every sink has them, on at most a tenth of `max_bytes`: a store that went back is fed again.
    pub keep: Duration,
    /// The least time between two writes through to the disk; "0ms" for no pause. A power cut loses what came since
    /// the last one: this long and the time that the disk takes for it.
    pub sync: Duration,
}

impl Default for SpoolConfig {
    fn default() -> Self {
        Self {
            max_bytes: ByteSize::from_mib(10 << 10),
            when_full: WhenFull::Block,
            segment_bytes: ByteSize::from_mib(64),
            keep: Duration::from_secs(3600),
            sync: Duration::from_millis(0),
        }
    }
}

impl SpoolConfig {
    pub(super) fn check(&self, faults: &mut Faults) {
        let Self { segment_bytes, max_bytes, .. } = *self;
        if segment_bytes < SMALLEST_SEGMENT {
            let message = format!(
                "`segment_bytes` is {segment_bytes}: a file smaller than {SMALLEST_SEGMENT} holds hardly a row"
            );
            faults.at("segment_bytes", message);
        } else if segment_bytes.0.saturating_mul(2) > max_bytes.0 {
            let message = format!(
                "a spool of {max_bytes} has no room for two segments of {segment_bytes}: raise `max_bytes` or lower `segment_bytes`"
            );
            faults.at("segment_bytes", message).and("max_bytes");
        } else if self.when_full == WhenFull::DropOldest && segment_bytes.0.saturating_mul(4) > max_bytes.0 {
            // Two that a sink has in hand, one that is written, and one that may go.
            let message = format!(
                "with `when_full = \"drop_oldest\"` a spool of {max_bytes} has no room for four segments of \
                 {segment_bytes}: raise `max_bytes` or lower `segment_bytes`"
            );
            faults.at("segment_bytes", message).and("max_bytes");
        }
    }
}

/// Below this, the head of a file, which describes tables and streams, is most of it.
const SMALLEST_SEGMENT: ByteSize = ByteSize(64 << 10);

/// What happens to rows when the spool is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WhenFull {
    /// End the sessions, and fill the gaps when there is room again.
    Block,
    /// Drop what comes, and say so; ask the venue's history for it once there is room again.
    DropNewest,
    /// Drop the oldest file that no sink is reading, and say for which sinks; refuse rows while there is none.
    DropOldest,
}
