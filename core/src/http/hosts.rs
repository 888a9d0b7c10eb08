//! What each host allows all who call it from this process: how fast, how many at once, and not before when. A venue counts
//! by address, and knows nothing of pipelines.

use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Mutex as Queue, OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep_until},
};

use super::MOST_AT_ONCE;
use crate::{
    policy::RateLimit,
    protocol::{Pool, Request},
};

/// The hosts that were ever called, for everybody.
#[derive(Debug, Default)]
pub(crate) struct Hosts(Mutex<HashMap<String, Arc<Host>>>);

#[derive(Debug)]
struct Host {
    /// One for each call that may be out at once.
    places: Arc<Semaphore>,
    lines: Mutex<HashMap<&'static str, Arc<Line>>>,
    /// Until when the host wants to be left alone.
    paused_until: Mutex<Option<Instant>>,
}

/// The calls that are paid from one pool, in the order in which they were wanted: a dear one is not passed by cheap ones,
/// and who has many does not hold back who has one.
#[derive(Debug)]
struct Line {
    first: Queue<()>,
    rate: Mutex<RateLimit>,
}

/// What everybody pays from one pool of a host, for who can wait by himself and has no need of a place.
#[derive(Debug)]
pub(crate) struct Rate(Arc<Line>);

/// The right to make one call now. Its place is free again when it is dropped.
#[derive(Debug)]
pub(crate) struct Turn(#[allow(dead_code, reason = "held")] OwnedSemaphorePermit);

impl Hosts {
    /// Waits until a call may go out, behind those that were wanted before.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: what is dropped leaves the line, and nothing was paid for it.
    pub(crate) async fn turn(&self, request: &Request) -> Turn {
        let host = self.host(&request.host());
        let line = host.line(request.pool);
        // This lock is the queue: it is served in the order of asking, and held by who is the first.
        let _first = line.first.lock().await;
        loop {
            let now = Instant::now();
            let allowed_at = now + line.rate().wait(now, request.cost);
            sleep_until(host.paused_until().map_or(allowed_at, |until| until.max(allowed_at))).await;
            // Paid for when there is a place, so that calls which were held up do not go out in one swarm.
            let place = Arc::clone(&host.places).acquire_owned().await.expect("nobody closes it");
            let now = Instant::now();
            let is_paused = host.paused_until().is_some_and(|until| until > now);
            if !is_paused && line.rate().take(now, request.cost) {
                return Turn(place);
            }
        }
    }

    /// Lets no call out to a host for a while, as it has asked for. A pause that ends sooner than one already set changes
    /// nothing.
    pub(crate) fn pause(&self, host: &str, pause: Duration) {
        let until = Instant::now() + pause.min(LONGEST_ASKED);
        let host = self.host(host);
        let mut set = host.paused_until.lock().unwrap_or_else(PoisonError::into_inner);
        *set = Some(set.map_or(until, |set| set.max(until)));
    }

    /// Returns how long a host still wants to be left alone; zero if it does not.
    pub(crate) fn pause_left(&self, host: &str, now: Instant) -> Duration {
        self.host(host).paused_until().map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    /// Returns the rate of a pool.
    pub(crate) fn rate(&self, host: &str, pool: Pool) -> Rate {
        Rate(self.host(host).line(Some(pool)))
    }

    fn host(&self, name: &str) -> Arc<Host> {
        let mut hosts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(host) = hosts.get(name) {
            return Arc::clone(host);
        }
        let places = Arc::new(Semaphore::new(MOST_AT_ONCE));
        let host = Arc::new(Host { places, lines: Mutex::default(), paused_until: Mutex::default() });
        hosts.insert(name.to_owned(), Arc::clone(&host));
        host
    }
}

impl Rate {
    /// Returns how long to wait before one unit may be taken; zero means now. Somebody else may take it first.
    pub(crate) fn wait(&self, now: Instant) -> Duration {
        self.0.rate().wait(now, 1)
    }

    /// Takes one unit if it is there, and returns whether it was.
    #[must_use]
    pub(crate) fn take(&self, now: Instant) -> bool {
        self.0.rate().take(now, 1)
    }
}

impl Host {
    /// Returns the line of a pool. Where several sources say something else of it, the slower counts.
    fn line(&self, pool: Option<Pool>) -> Arc<Line> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let line = lines.entry(pool.map_or("", |pool| pool.name)).or_insert_with(|| {
            let unlimited = RateLimit::every(Duration::ZERO, NonZeroU32::MAX);
            Arc::new(Line { first: Queue::default(), rate: Mutex::new(unlimited) })
        });
        if let Some(pool) = pool {
            line.rate().slow_to(pool.interval(), NonZeroU32::new(pool.burst).unwrap_or(NonZeroU32::MIN));
        }
        Arc::clone(line)
    }

    fn paused_until(&self) -> Option<Instant> {
        *self.paused_until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    fn rate(&self) -> MutexGuard<'_, RateLimit> {
        self.rate.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const LONGEST_ASKED: Duration = Duration::from_secs(24 * 60 * 60);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{task::JoinSet, time::timeout};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn twelve_that_share_a_pool_keep_to_it_together_and_all_get_through() {
        let (hosts, start) = (Arc::new(Hosts::default()), Instant::now());
        let mut tasks = JoinSet::new();
        for asker in 0..12 {
            let hosts = Arc::clone(&hosts);
            tasks.spawn(async move {
                let mut turns = Vec::new();
                for _ in 0..10 {
                    drop(hosts.turn(&request(POOL, 1 + asker % 3)).await);
                    turns.push(start.elapsed());
                }
                turns
            });
        }
        let of_all = tasks.join_all().await;
        // 240 units, of which 5 at once.
        let last = of_all.iter().flatten().max().unwrap();
        assert_eq!(last.as_millis(), 23_500);
        for turns in &of_all {
            let longest = turns.windows(2).map(|turns| turns[1] - turns[0]).max().unwrap();
            assert!(longest <= SECOND * 24 / 10, "each goes once before anybody goes twice: {longest:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_dear_call_is_not_passed_by_cheap_ones() {
        let hosts = Arc::new(Hosts::default());
        drop(hosts.turn(&request(POOL, 5)).await);
        let dear = tokio::spawn({
            let hosts = Arc::clone(&hosts);
            async move { drop(hosts.turn(&request(POOL, 5)).await) }
        });
        tokio::task::yield_now().await;
        let start = Instant::now();
        drop(hosts.turn(&request(POOL, 1)).await);
        assert!(dear.is_finished());
        assert_eq!(start.elapsed().as_millis(), 600);
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_leaves_the_line_and_has_paid_nothing() {
        let (hosts, start) = (Hosts::default(), Instant::now());
        drop(hosts.turn(&request(POOL, 5)).await);
        assert!(timeout(SECOND / 100, hosts.turn(&request(POOL, 5))).await.is_err());
        drop(hosts.turn(&request(POOL, 1)).await);
        assert_eq!(start.elapsed().as_millis(), 100);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_that_a_host_asks_for_holds_back_who_waits_already_and_no_call_to_another() {
        let (hosts, start) = (Arc::new(Hosts::default()), Instant::now());
        drop(hosts.turn(&request(POOL, 5)).await);
        let waiting = tokio::spawn({
            let hosts = Arc::clone(&hosts);
            async move {
                drop(hosts.turn(&request(POOL, 1)).await);
                start.elapsed()
            }
        });
        tokio::task::yield_now().await;
        hosts.pause("venue", SECOND * 3);
        hosts.pause("venue", SECOND);
        assert_eq!(hosts.pause_left("venue", start + SECOND), SECOND * 2);
        drop(hosts.turn(&Request::get("http://other/")).await);
        assert_eq!(start.elapsed(), Duration::ZERO);
        assert_eq!(waiting.await.unwrap().as_secs(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn pools_of_one_host_are_apart_and_share_its_places() {
        let (hosts, start) = (Hosts::default(), Instant::now());
        drop(hosts.turn(&request(POOL, 5)).await);
        let other = Pool { name: "other", ..POOL };
        let mut out = Vec::new();
        for _ in 0..MOST_AT_ONCE {
            out.push(hosts.turn(&request(other, 1)).await);
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
        assert!(timeout(SECOND * 60, hosts.turn(&request(POOL, 1))).await.is_err(), "no place is free");
        out.pop();
        drop(hosts.turn(&request(POOL, 1)).await);
    }

    #[tokio::test(start_paused = true)]
    async fn of_several_rates_the_slower_counts_whoever_comes_first() {
        let (hosts, start) = (Hosts::default(), Instant::now());
        let slower = Pool { per_second: 1.0, burst: 2, ..POOL };
        drop(hosts.turn(&request(slower, 2)).await);
        drop(hosts.turn(&request(POOL, 1)).await);
        assert_eq!(start.elapsed().as_secs(), 1);
        drop(hosts.turn(&Request::get("http://venue/")).await);
        assert_eq!(start.elapsed().as_secs(), 2, "who names no pool pays from the one without a name");
    }

    const POOL: Pool = Pool { name: "", per_second: 10.0, burst: 5 };

    fn request(pool: Pool, cost: u32) -> Request {
        Request { pool: Some(pool), cost, ..Request::get("http://venue/") }
    }
}
