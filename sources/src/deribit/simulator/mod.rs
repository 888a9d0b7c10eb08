//! A Deribit that can be started in a test: a WebSocket and HTTP server with a market, faults, and an exact list of what it made.
//!
//! ```text
//!  seed ──→ market ──events──→ VENUE (one lock) ──frames──→ a session's queue ──→ WebSocket
//!                                │   └─ note: the oracle, and the `sent` file, before anybody is told
//!                                └─ REST (main host forgets, history host does not)
//! ```
//!
//! Instead of a market it can play a capture: `recording` (pure: what is due), with `replay` (who is told).
//!
//! Where to look: `market` (pure: instruments, prices, books, trades), `venue` with `events`, `requests` and `trouble` (what
//! happens and who is told), `session`, `rest` and `server` (sockets), `oracle` (what was made), `comparison` (a store beside it).
//!
//! It follows `protocols/deribit.md`. Where that leaves something open it does this: channels send each event whatever their
//! interval, so that a rate is a rate; replies come in another order than the channels were asked for; `sorting=default` is
//! unsorted; after a sequence restart, REST filters by number within the present numbering and by time over all.
//!
//! Not simulated: other currencies, combos and linear instruments, the channels that no source of ours reads
//! (`incremental_ticker`, grouped books, candles, volatility, funding), logging in by signature or refresh token.

mod book;
mod calendar;
mod channel;
pub mod comparison;
mod conditions;
mod config;
mod credits;
mod events;
mod fault;
mod faults;
mod fold;
mod history;
mod instrument;
mod lines;
mod market;
mod methods;
mod numbers;
mod oracle;
mod owed;
mod payload;
mod pricing;
mod random;
mod recording;
mod replay;
mod requests;
mod rest;
mod rows;
mod rpc;
mod sent_file;
mod server;
mod session;
mod shared;
mod trouble;
mod venue;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{net::TcpListener, time::timeout};
use tracing::warn;

pub use self::{
    conditions::Condition,
    config::{Credentials, MOST_EVENTS, SimulatorConfig},
    fault::Fault,
    faults::{FAULT_NAMES, Faults},
    instrument::{Instrument, OptionTerms},
    oracle::{BookKey, Direction, Ended, Handed, Listed, Mark, Oracle, Session, Subscription, Totals, Trade},
};
use self::{recording::Recording, shared::Shared, venue::Venue};

/// How long `stop` waits for connections to end.
const STOPPING: Duration = Duration::from_secs(2);

/// A running venue. Dropping it stops it without waiting.
#[derive(Debug)]
pub struct Simulator {
    shared: Arc<Shared>,
    address: SocketAddr,
}

impl Simulator {
    /// Starts a venue on the running tokio runtime.
    ///
    /// # Errors
    ///
    /// If the rate is none, the address cannot be bound, the `sent` file cannot be read or written, or a capture cannot be
    /// played, or not with these faults.
    pub async fn start(config: SimulatorConfig) -> io::Result<Self> {
        if let Some(fault) = config.faults.beyond_replay().filter(|_| config.replay.is_some()) {
            let text =
                format!("fault `{fault}` needs a market that makes it, and a replay makes nothing: leave it out");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        if !SimulatorConfig::is_rate(config.rate) {
            let text = format!("a rate of {} events a second is not between 0 and {MOST_EVENTS}", config.rate);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let listener = TcpListener::bind(config.listen).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::new(Venue::open(&config)?, config.connections));
        shared.tasks.spawn(server::accept(Arc::clone(&shared), listener));
        shared.tasks.spawn(server::make_events(Arc::clone(&shared), config.rate));
        Ok(Self { shared, address })
    }

    /// Returns where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// Returns the WebSocket's address.
    pub fn ws_url(&self) -> String {
        format!("ws://{}{}", self.address, server::WEBSOCKET_PATH)
    }

    /// Returns the base address of the main REST host, to which `/public/…` is added.
    pub fn http_url(&self) -> String {
        format!("http://{}/api/v2", self.address)
    }

    /// Returns the base address of the history REST host.
    pub fn history_url(&self) -> String {
        format!("http://{}/history/api/v2", self.address)
    }

    /// Returns everything made so far.
    pub fn oracle(&self) -> Oracle {
        self.read(Oracle::clone)
    }

    /// Lets `look` see what was made so far, without a copy. The venue waits meanwhile.
    pub fn read<T>(&self, look: impl FnOnce(&Oracle) -> T) -> T {
        look(&self.shared.venue().oracle)
    }

    /// Does a fault to every session or to the venue, and returns how many it hit.
    ///
    /// A fault of a trade or a book hits an instrument to which somebody has subscribed.
    pub fn inject(&self, fault: Fault) -> usize {
        self.shared.venue().inject(fault)
    }

    /// Ends everything that is wrong for a while.
    pub fn mend(&self) {
        self.shared.venue().conditions.clear();
    }

    /// Stops making events and scheduled faults, and keeps serving.
    pub fn freeze(&self) {
        self.shared.venue().frozen = true;
    }

    /// Goes on after `freeze` or `paused`.
    pub fn resume(&self) {
        self.shared.venue().frozen = false;
    }

    /// Waits until everything that was made has been handed to the sockets. Freeze first, or it may never be.
    pub async fn settle(&self) {
        loop {
            let settled = self.shared.settled.notified();
            tokio::pin!(settled);
            settled.as_mut().enable();
            if self.shared.venue().lines.is_settled() {
                return;
            }
            settled.await;
        }
    }

    /// Waits until the venue has to stop because its file cannot be written, and returns why.
    pub async fn failed(&self) -> io::Error {
        let broken = self.shared.venue().broken.clone();
        broken.cancelled().await;
        self.shared.venue().take_failure().unwrap_or_else(|| io::Error::other("what it sends cannot be written down"))
    }

    /// Waits until all of the capture has been played: from then on the venue is quiet. Never, where none is played.
    pub async fn played(&self) {
        let is_played = self.shared.venue().is_played.clone();
        is_played.cancelled().await;
    }

    /// Returns what of a capture is not played, a sentence each.
    pub fn lacks(&self) -> Vec<String> {
        self.shared.venue().recording.as_ref().map_or_else(Vec::new, Recording::lacks)
    }

    /// Makes a trade and sends it. Returns false if the instrument is not listed, as all of these do in a replay.
    pub fn make_trade(&self, instrument: &str) -> bool {
        self.with_listing(instrument, Venue::make_trade)
    }

    /// Makes a trade and sends it twice.
    pub fn duplicate_trade(&self, instrument: &str) -> bool {
        self.with_listing(instrument, Venue::duplicate_trade)
    }

    /// Makes two trades and sends the second one first.
    pub fn reorder_trades(&self, instrument: &str) -> bool {
        self.with_listing(instrument, Venue::reorder_trades)
    }

    /// Makes two trades and sends the second only.
    pub fn skip_trade(&self, instrument: &str) -> bool {
        self.with_listing(instrument, Venue::skip_trade)
    }

    /// Changes a book and sends the change, with quote and ticker.
    pub fn update_book(&self, instrument: &str) -> bool {
        self.with_listing(instrument, Venue::update_book)
    }

    /// Changes a book twice and sends the second change only.
    pub fn skip_book_change(&self, instrument: &str) -> bool {
        self.with_listing(instrument, Venue::skip_book_change)
    }

    /// Numbers an instrument's trades from 1 again, and makes the first of them.
    pub fn restart_sequence(&self, instrument: &str) -> bool {
        self.with_listing(instrument, Venue::restart_sequence)
    }

    /// Expires an instrument now.
    pub fn expire(&self, instrument: &str) -> bool {
        self.with_listing(instrument, Venue::expire)
    }

    /// Lists an option by its name, such as `ETH-26SEP26-2760-C`. Returns false if it cannot be or was already.
    pub fn list(&self, instrument: &str) -> bool {
        let mut venue = self.shared.venue();
        let number = 650_000 + venue.market.listings.len() as u64;
        let known = venue.recording.is_some() || venue.oracle.listed(instrument).is_some();
        let listed = Instrument::from_name(instrument, number, venue.now().ms()).filter(|_| !known);
        listed.is_some_and(|listed| {
            venue.list(listed);
            true
        })
    }

    /// Closes all sessions and the listener.
    ///
    /// # Errors
    ///
    /// If the venue had to stop before because its file could not be written.
    pub async fn stop(self) -> io::Result<()> {
        self.shared.stop.cancel();
        self.shared.tasks.close();
        if timeout(STOPPING, self.shared.tasks.wait()).await.is_err() {
            warn!("connections to the simulated venue are still open");
        }
        self.shared.venue().take_failure().map_or(Ok(()), Err)
    }

    fn with_listing(&self, instrument: &str, act: impl FnOnce(&mut Venue, usize)) -> bool {
        let mut venue = self.shared.venue();
        let listing = venue.open_listing(instrument).filter(|_| venue.recording.is_none());
        let Some(listing) = listing else { return false };
        act(&mut venue, listing);
        true
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}
