//! What a simulator is started with.

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use super::faults::Faults;

/// How the simulated venue is and behaves.
#[derive(Debug, Clone)]
pub struct SimulatorConfig {
    /// Where it listens; port 0 (the default) lets the system choose.
    pub listen: SocketAddr,
    /// The same seed on the same day gives the same instruments, and the same events in the same order.
    pub seed: u64,
    /// Events a second over all instruments, of which about a tenth are trades; 200 by default, [`MOST_EVENTS`] at the most.
    pub rate: f64,
    /// Options that are listed besides the perpetual; 60 by default.
    pub instruments: usize,
    /// A capture to play instead of a market: a folder as `capture = {}` of a source writes it.
    ///
    /// Its clock begins with the first subscription. Frames go out as they came, to those who have their channel by the
    /// same name, and the times in them stay; discovery is answered as it was; all trades that were seen are the history
    /// of both REST hosts. Options and futures of ETH are played, other frames are left out, in words. A client that selects
    /// instruments by a clock of its own takes what has expired since for expired: with an old capture, name them. `rate` and `instruments` count for nothing then, and faults of trades, books and listings are
    /// refused.
    pub replay: Option<PathBuf>,
    /// How many times faster than it was recorded a capture is played; 1 by default.
    pub replay_speed: f64,
    /// The file of everything made and sent. One that exists is gone on with.
    pub sent: Option<PathBuf>,
    /// How far back the main REST host remembers trades; the history host remembers all. A day by default.
    pub history: Duration,
    /// Whether the venue says of itself that it is the test venue.
    pub testnet: bool,
    /// What goes wrong by itself.
    pub faults: Faults,
    /// Whether it starts frozen: it serves and makes no events until `resume`.
    pub paused: bool,
    /// Who may log in; nobody by default.
    pub credentials: Option<Credentials>,
    /// How long one second of a client's `set_heartbeat` takes; shorter in tests.
    pub heartbeat_second: Duration,
    /// The documented credits, times this.
    pub credits: f64,
    /// Open connections of any kind; one more is answered with 429.
    pub connections: usize,
    /// Frames that may wait for a slow client before the venue ends its session.
    pub backlog: usize,
}

/// The highest rate of events a second: one core makes about so many.
pub const MOST_EVENTS: f64 = 200_000.0;

impl SimulatorConfig {
    /// Returns whether a rate is one that can be made.
    pub fn is_rate(rate: f64) -> bool {
        rate > 0.0 && rate <= MOST_EVENTS
    }
}

impl Default for SimulatorConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            seed: 1,
            rate: 200.0,
            instruments: 60,
            replay: None,
            replay_speed: 1.0,
            sent: None,
            history: Duration::from_secs(24 * 3600),
            testnet: true,
            faults: Faults::default(),
            paused: false,
            credentials: None,
            heartbeat_second: Duration::from_secs(1),
            credits: 1.0,
            connections: 32,
            backlog: 65_536,
        }
    }
}

/// A key that may log in.
#[derive(Clone)]
pub struct Credentials {
    /// The public half.
    pub client_id: String,
    /// The secret half, which `Debug` hides.
    pub client_secret: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("client_id", &self.client_id).finish_non_exhaustive()
    }
}
