//! One life of a pipeline with everything that goes wrong, from one seed: the venue's faults, the store's, and deaths of the
//! process at any moment.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sqlx::{Connection, SqliteConnection};
use tidegate_sources::deribit::simulator::{Faults, SimulatorConfig, comparison::Comparison};
use tokio::time::{sleep, timeout};

use super::{Bench, PATIENCE, Power, Program, Random, faulty::QUICK, power::Taken};

/// A run that can be repeated from its seed.
pub struct History {
    pub bench: Bench,
    random: Random,
    power: Option<Power>,
    /// What happened, in words.
    pub story: Vec<String>,
    pub kills: u64,
    pub cuts: u64,
    pub taken: Taken,
    /// When each death was, in milliseconds since 1970, and whether it was a power cut.
    deaths: Vec<(i64, bool)>,
}

impl History {
    /// Starts a venue of at least 2,000 events a second, on which everything goes wrong that a client has to survive.
    pub async fn start(seed: u64) -> Self {
        let faults = "cut=12/m,torn=4/m,close=4/m,silence=6/m,malformed=6/m,truncated=4/m,binary=2/m,duplicate=20/m,\
                      reorder=20/m,skip=20/m,skip_book=10/m,slow=4/m,http_5xx=4/m,rest_down=3/m,rest_lag=4/m,list=2/m";
        let config = SimulatorConfig {
            rate: 2_000.0,
            seed,
            faults: Faults::parse(faults).unwrap(),
            ..SimulatorConfig::default()
        };
        let source = format!(
            "{QUICK}ping = {{ every = \"300ms\", timeout = \"300ms\" }}\n\
             channels = [\"trades\", \"tickers\", \"quotes\", \"book_changes\"]\n\
             instruments = [\"ETH-PERPETUAL\", {{ currency = \"ETH\", kind = \"option\", top = 20 }}]\n"
        );
        // Small segments, so that they come and go; a store that gives up a lock soon.
        let rest = "lock_timeout = \"100ms\"\n[spool]\nsegment_bytes = \"512KiB\"\n";
        let bench = Bench::start(config, &source, rest).await;
        let power = Power::of(bench.folder());
        let (story, taken) = (Vec::new(), Taken::default());
        Self { bench, random: Random::new(seed), power, story, kills: 0, cuts: 0, taken, deaths: Vec::new() }
    }

    /// Starts the program, whose power can be cut where that can be had.
    pub fn run(&self) -> Program {
        let variables = self.power.as_ref().map_or_else(Vec::new, Power::variables);
        let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
        self.bench.run_with(&variables)
    }

    /// Lets the program live for a while, in which its store may be locked or moved away, and kills it. Of three deaths one is
    /// a power cut.
    pub async fn live_and_die(&mut self) {
        let at = now_ms();
        let program = self.run();
        // Any moment: before the spool is open, in the middle of a handshake, of a backfill, of a commit.
        let lives = Duration::from_millis(20 + self.random.below(1_300));
        let trouble = self.random.below(4);
        let (is_locked, is_moved) = (trouble == 0, trouble == 1);
        let lock = if is_locked { self.lock().await } else { None };
        sleep(lives.mul_f64(0.5)).await;
        if is_moved {
            self.move_store("", ".moved");
        }
        sleep(lives.mul_f64(0.2)).await;
        if let Some(lock) = lock {
            self.unlock(lock).await;
        }
        sleep(lives.mul_f64(0.3)).await;
        let death_ms = now_ms();
        program.kill().await;
        self.kills += 1;
        if is_moved {
            self.move_store(".moved", "");
        }
        let mut how = "kill -9";
        if let Some(power) = self.power.as_ref().filter(|_| self.random.below(3) == 0) {
            let Taken { pages, names } = power.cut(&mut self.random);
            self.taken.pages += pages;
            self.taken.names += names;
            self.cuts += 1;
            how = "power cut";
        }
        self.deaths.push((death_ms, how == "power cut"));
        let store = if is_locked {
            "locked"
        } else if is_moved {
            "moved away"
        } else {
            "well"
        };
        self.story.push(format!("{at} ms: life {} of {lives:?}, store {store}, {how}", self.kills));
    }

    /// Lets everything be well, waits until all that is owed is stored, and compares.
    pub async fn heal(&mut self) -> (Program, Comparison) {
        let mut program = self.run();
        program.until_committed(1_000).await;
        let comparison = self.bench.settle(&mut program).await;
        (program, comparison)
    }

    /// Returns from the last frame that is stored to the death how long each took that met a session at its work, in
    /// milliseconds: as long as what a death can cost of what nobody repeats.
    pub fn tails_ms(&self, comparison: &Comparison, of_power_cuts: bool) -> Vec<i64> {
        let tail = |death_ms: &i64| {
            self.bench.venue.read(|oracle| {
                let is_met = |at: usize| {
                    let session = &oracle.sessions[at];
                    let last_ms = session.tickers.values().filter_map(|sent| sent.last()).map(|one| one.at_ms).max();
                    let is_met =
                        session.ended_ms.is_some_and(|ended_ms| (*death_ms..*death_ms + 200).contains(&ended_ms));
                    last_ms.filter(|last_ms| is_met && *last_ms + 20 >= *death_ms)
                };
                let met = (0..oracle.sessions.len()).find(|at| is_met(*at).is_some())?;
                Some((*death_ms - comparison.heard_ms.get(&(met + 1))?).max(0))
            })
        };
        let deaths = self.deaths.iter().filter(|(_, is_cut)| *is_cut == of_power_cuts);
        deaths.map(|(death_ms, _)| death_ms).filter_map(tail).collect()
    }

    /// Locks the store as another program would; where there is none yet, nothing is locked.
    async fn lock(&self) -> Option<SqliteConnection> {
        if !self.bench.database().exists() {
            return None;
        }
        let mut other = self.bench.connection().await;
        let locked = timeout(PATIENCE, sqlx::query("BEGIN IMMEDIATE").execute(&mut other)).await.unwrap();
        locked.is_ok().then_some(other)
    }

    async fn unlock(&self, mut other: SqliteConnection) {
        sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
        other.close().await.unwrap();
        // The last one who closes a database makes it durable, which the layer does not see of another program.
        if let Some(power) = &self.power {
            ["", "-wal"].iter().for_each(|end| power.synced(format!("{}{end}", self.bench.database().display())));
        }
    }

    fn move_store(&self, from: &str, to: &str) {
        let database = self.bench.database();
        for end in ["", "-wal", "-shm"] {
            let path = |moved: &str| format!("{}{end}{moved}", database.display());
            drop(std::fs::rename(path(from), path(to)));
        }
    }
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}
