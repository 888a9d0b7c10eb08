//! What a stage has seen and done, as atomics: leaving evidence takes no lock and never waits.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::report::Filling;
use crate::{
    delivery::{Balance, Measured},
    policy::BreakerSnapshot,
};

/// The evidence of one stage. Each kind of stage fills its part.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    pub(super) last_frame: Stamp,
    pub(super) last_record: Stamp,
    pub(super) last_commit: Stamp,
    /// The arrival of the oldest row that is not committed.
    pub(super) uncommitted_since: Stamp,
    /// The arrival of the oldest row that is neither committed nor accepted.
    pub(super) untaken_since: Stamp,
    /// When it began what it is at now; nothing while it waits for something to do.
    pub(super) busy_since: Stamp,
    pub(super) rows_accepted: Count,
    /// The arrival of the oldest row that is accepted and not yet durable.
    pub(super) accepted_since: Stamp,
    /// When the store was opened, which is ours as long as no call of it has failed since.
    pub(super) owned_since: Stamp,
    /// How long the oldest rows of the last commits had waited.
    pub(super) waits: Waits,
    pub(super) last_check: Stamp,
    /// How long the last probe took.
    pub(super) check_took: Count,
    /// How long the last proof that it works took; 0 before the first one.
    took: Count,
    pub(super) connections: Count,
    pub(super) subscriptions_wanted: Count,
    pub(super) subscriptions_confirmed: Count,
    pub(super) subscriptions_refused: Count,
    pub(super) subscriptions_quiet: Count,
    pub(super) rows_received: Count,
    pub(super) rows_backfilled: Count,
    pub(super) rows_committed: Count,
    pub(super) rows_dropped: Count,
    pub(super) gaps_open: Count,
    pub(super) gaps_filled: Count,
    pub(super) gaps_resynchronised: Count,
    pub(super) gaps_lost: Count,
    /// In nanoseconds.
    pub(super) unrepeatable: Count,
    pub(super) spool_bytes: Count,
    pub(super) spool_limit: Count,
    pub(super) synced_lag: Count,
    pub(super) dead_letters: Count,
    pub(super) offset: Count,
    /// In nanoseconds; 0 is no limit.
    pub(super) overdue_after: Count,
    pub(super) is_subscribed: AtomicBool,
    pub(super) is_committed_or_idle: AtomicBool,
    pub(super) is_side_input: AtomicBool,
    /// Whether gaps wait for what the reason names.
    pub(super) gaps_wait: AtomicBool,
    /// The first of the quiet channels. Set on change only, so a lock does.
    quiet: Mutex<Vec<String>>,
    /// Set at most each 20 ms, so a lock does.
    filling: Mutex<Option<Filling>>,
    /// Set for each chunk of a sink with keys, so a lock does.
    keys: Mutex<Vec<Measured>>,
    /// Set at an opening, so a lock does.
    weaker: Mutex<Vec<String>>,
    lags: Mutex<BTreeMap<String, u64>>,
    /// Set for each chunk, so a lock does.
    balance: Mutex<Option<Balance>>,
    /// Set on change only, so a lock does.
    breakers: Mutex<BTreeMap<String, (BreakerSnapshot, Instant)>>,
}

/// A moment, or none. Kept as nanoseconds since an origin, plus one.
#[derive(Debug, Default)]
pub(super) struct Stamp(AtomicU64);

/// A number that only one driver writes and anybody reads.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

/// The last so many durations, which only one driver adds to.
#[derive(Debug)]
pub(super) struct Waits {
    /// In nanoseconds, plus one; 0 is none yet.
    ring: [AtomicU64; 256],
    added: AtomicU64,
}

impl Evidence {
    /// Takes back what holds only for a running stage. Totals stay.
    pub(super) fn restart(&self) {
        for count in [&self.connections, &self.subscriptions_wanted, &self.subscriptions_confirmed] {
            count.set(0);
        }
        self.subscriptions_refused.set(0);
        self.set_quiet(0, Vec::new());
        self.uncommitted_since.clear();
        self.untaken_since.clear();
        self.rows_accepted.set(0);
        self.accepted_since.clear();
        self.owned_since.clear();
        self.is_subscribed.store(false, Relaxed);
        self.gaps_wait.store(false, Relaxed);
        self.is_committed_or_idle.store(false, Relaxed);
    }

    pub(super) fn set_breaker(&self, name: &str, snapshot: BreakerSnapshot, now: Instant) {
        self.breakers().insert(name.to_owned(), (snapshot, now));
    }

    /// Returns the breakers with the times to their next probes as of `now`.
    pub(super) fn breakers_at(&self, now: Instant) -> Vec<(String, BreakerSnapshot)> {
        let breakers = self.breakers();
        let mut shown = Vec::with_capacity(breakers.len());
        for (name, (snapshot, taken_at)) in breakers.iter() {
            let mut snapshot = snapshot.clone();
            let passed = now.saturating_duration_since(*taken_at);
            snapshot.next_probe_in = snapshot.next_probe_in.map(|pause| pause.saturating_sub(passed));
            shown.push((name.clone(), snapshot));
        }
        shown
    }

    pub(super) fn set_filling(&self, filling: Option<Filling>) {
        *self.filling.lock().unwrap_or_else(PoisonError::into_inner) = filling;
    }

    pub(super) fn filling(&self) -> Option<Filling> {
        *self.filling.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_keys<'a>(&self, keys: impl Iterator<Item = &'a Measured>) {
        let mut shown = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        for (n, key) in keys.enumerate() {
            match shown.get_mut(n) {
                // Names are the same from chunk to chunk.
                Some(known) if known.table == key.table && known.key == key.key => {
                    (known.rows, known.repeated, known.absent) = (key.rows, key.repeated, key.absent);
                }
                Some(known) => *known = key.clone(),
                None => shown.push(key.clone()),
            }
        }
    }

    pub(super) fn keys(&self) -> Vec<Measured> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_weaker(&self, weaker: Vec<String>) {
        *self.weaker.lock().unwrap_or_else(PoisonError::into_inner) = weaker;
    }

    pub(super) fn weaker(&self) -> Vec<String> {
        self.weaker.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_took(&self, took: Duration) {
        self.took.set_duration(took.max(Duration::from_nanos(1)));
    }

    pub(super) fn took(&self) -> Option<Duration> {
        Some(self.took.duration()).filter(|took| !took.is_zero())
    }

    pub(super) fn set_quiet(&self, count: u64, first: Vec<String>) {
        self.subscriptions_quiet.set(count);
        *self.quiet.lock().unwrap_or_else(PoisonError::into_inner) = first;
    }

    pub(super) fn quiet(&self) -> Vec<String> {
        self.quiet.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_lags(&self, lags: BTreeMap<String, u64>) {
        *self.lags.lock().unwrap_or_else(PoisonError::into_inner) = lags;
    }

    pub(super) fn lags(&self) -> BTreeMap<String, u64> {
        self.lags.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_balance(&self, balance: Balance) {
        *self.balance.lock().unwrap_or_else(PoisonError::into_inner) = Some(balance);
    }

    pub(super) fn balance(&self) -> Option<Balance> {
        *self.balance.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the age of the newest evidence of any kind.
    pub(super) fn newest(&self, origin: Instant, now: Instant) -> Option<Duration> {
        let stamps = [&self.last_frame, &self.last_record, &self.last_commit, &self.last_check];
        stamps.iter().filter_map(|stamp| stamp.age(origin, now)).min()
    }

    fn breakers(&self) -> MutexGuard<'_, BTreeMap<String, (BreakerSnapshot, Instant)>> {
        self.breakers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stamp {
    pub(super) fn set(&self, origin: Instant, at: Instant) {
        self.0.store(nanos(at.saturating_duration_since(origin)).saturating_add(1), Relaxed);
    }

    pub(super) fn set_or_clear(&self, origin: Instant, at: Option<Instant>) {
        match at {
            Some(at) => self.set(origin, at),
            None => self.clear(),
        }
    }

    pub(super) fn clear(&self) {
        self.0.store(0, Relaxed);
    }

    /// Returns how long ago it was, if it was at all.
    pub(super) fn age(&self, origin: Instant, now: Instant) -> Option<Duration> {
        let at = Duration::from_nanos(self.0.load(Relaxed).checked_sub(1)?);
        Some(now.saturating_duration_since(origin).saturating_sub(at))
    }
}

impl Count {
    pub(super) fn add(&self, number: u64) {
        self.0.fetch_add(number, Relaxed);
    }

    pub(super) fn set(&self, number: u64) {
        self.0.store(number, Relaxed);
    }

    pub(super) fn set_duration(&self, duration: Duration) {
        self.set(nanos(duration));
    }

    pub(super) fn number(&self) -> u64 {
        self.0.load(Relaxed)
    }

    pub(super) fn duration(&self) -> Duration {
        Duration::from_nanos(self.number())
    }
}

impl Waits {
    pub(super) fn add(&self, wait: Duration) {
        let at = self.added.fetch_add(1, Relaxed) % self.ring.len() as u64;
        self.ring[at as usize].store(nanos(wait).saturating_add(1), Relaxed);
    }

    /// Returns the time that half of them, and that 99 of 100 of them, do not exceed.
    pub(super) fn p50_and_p99(&self) -> Option<(Duration, Duration)> {
        let mut waits: Vec<u64> = self.ring.iter().filter_map(|wait| wait.load(Relaxed).checked_sub(1)).collect();
        waits.sort_unstable();
        let last = waits.len().checked_sub(1)?;
        Some((Duration::from_nanos(waits[last / 2]), Duration::from_nanos(waits[last * 99 / 100])))
    }
}

impl Default for Waits {
    fn default() -> Self {
        Self { ring: [const { AtomicU64::new(0) }; 256], added: AtomicU64::new(0) }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
