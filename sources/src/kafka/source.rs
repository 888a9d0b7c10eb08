//! The source: begins deliveries of the partitions that the group gives it, and ends them before it gives them back.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::future::join_all;
use tidegate_core::{
    Error, Result,
    chunk::Part,
    log_source::{LogContext, LogSource, PartDelivery, PartLog},
    row::Table,
    spool::{Boot, SpoolPosition},
};
use tokio::{
    sync::{mpsc, watch},
    task::{JoinHandle, spawn_blocking},
    time::{Instant, MissedTickBehavior, interval},
};
use tracing::info;

use super::{
    KafkaConfig,
    client::{Monitor, base, boot},
    confirm::Confirmer,
    decode::Decoder,
    member::{Partition, Said, Shared, be_member},
    progress::{Lag, Look, Progress},
    reader::{Reader, trouble},
    window::{ANY_BROKER, End, PartitionLog, Window, kafkas},
};

/// Kafka as a source.
pub(super) struct Kafka {
    config: KafkaConfig,
    tables: Vec<Table>,
}

/// A source that runs.
struct Running {
    config: KafkaConfig,
    tables: Vec<Table>,
    cx: LogContext,
    monitor: Arc<Monitor>,
    confirmer: Arc<Confirmer>,
    /// The cluster, which positions belong to.
    cluster: u64,
    held: BTreeMap<Partition, Held>,
    /// Those for which no delivery could begin yet.
    waiting: BTreeMap<Partition, String>,
    /// What the brokers did not know at the last look.
    unknown: Option<String>,
    shared: Arc<Shared>,
}

/// A partition that is this process's: a delivery to each sink.
struct Held {
    boot: Boot,
    deliveries: Vec<(PartDelivery, Arc<Window>)>,
    progress: Progress,
}

/// What is known of all partitions by asking the brokers.
#[derive(Debug, Default)]
struct Asked {
    /// By partition: its history, and the offset behind its newest message.
    ends: BTreeMap<Partition, (Boot, i64)>,
    /// The ends that the readers of a partition had come to before it was asked for.
    before: BTreeMap<Partition, Vec<End>>,
    /// Why it cannot be said of others.
    failed: BTreeMap<Partition, String>,
    /// Topics that are not there.
    missing: Vec<String>,
}

impl Kafka {
    pub(super) fn new(config: KafkaConfig) -> Result<Self> {
        let tables = config.tables()?;
        Ok(Self { config, tables })
    }
}

#[async_trait]
impl LogSource for Kafka {
    fn tables(&self) -> Vec<Table> {
        self.tables.clone()
    }

    async fn reach(&mut self) -> Result<String> {
        let config = self.config.clone();
        blocking(move || {
            let monitor = Monitor::new(&config, "check")?;
            monitor.cluster()?;
            let (mut there, mut missing) = (Vec::new(), Vec::new());
            for (topic, partitions) in monitor.partitions()? {
                match partitions {
                    Some(partitions) => there.push(format!("`{topic}` ({partitions} partitions)")),
                    None => missing.push(format!("`{topic}`")),
                }
            }
            if missing.is_empty() {
                return Ok(format!("brokers answer; topics {}", there.join(", ")));
            }
            Err(Error::permanent(format!(
                "topics are missing: {}; they are made by the sink `kafka` that writes them",
                missing.join(", ")
            )))
        })
        .await
    }

    async fn run(self: Box<Self>, cx: LogContext) -> Result<()> {
        let Self { config, tables } = *self;
        let (of_monitor, pipeline) = (config.clone(), cx.pipeline.clone());
        let made = blocking(move || {
            let monitor = Monitor::new(&of_monitor, &pipeline)?;
            let cluster = monitor.cluster()?;
            Ok((Arc::new(monitor), cluster))
        });
        let (monitor, cluster) = made.await?;
        let (said, heard) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared::default());
        let member = {
            let (config, pipeline, shared) = (config.clone(), cx.pipeline.clone(), shared.clone());
            spawn_blocking(move || be_member(&config, &pipeline, &shared, said))
        };
        let (held, waiting) = (BTreeMap::new(), BTreeMap::new());
        let confirmer = Arc::new(Confirmer::new(monitor.clone()));
        let confirming = confirmer.clone();
        let mut running =
            Running { config, tables, cx, monitor, confirmer, cluster, held, waiting, unknown: None, shared };
        tokio::select! {
            ended = running.run(heard, member) => ended,
            never = confirming.run() => match never {},
        }
    }
}

/// However it ends, also by a panic: a member that nobody hears would keep its partitions from all others.
impl Drop for Running {
    fn drop(&mut self) {
        self.shared.leave();
    }
}

impl Running {
    async fn run(&mut self, mut said: mpsc::UnboundedReceiver<Said>, mut member: JoinHandle<Result<()>>) -> Result<()> {
        let mut every = interval(LOOK_EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let stop = self.cx.stop.clone();
        let mut looks: Option<JoinHandle<Result<Asked>>> = None;
        let outcome = loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break None,
                ended = &mut member => break Some(joined(ended)),
                heard = said.recv() => match heard {
                    Some(Said::Yours(partitions)) => self.take(partitions).await,
                    Some(Said::Back(partitions, given_back)) => {
                        self.give_back(&partitions, HAND_OVER).await;
                        // The member waits for nothing else.
                        _ = given_back.send(());
                    }
                    // The thread has ended, and says why.
                    None => break Some(joined((&mut member).await)),
                },
                // One look at a time: brokers that do not answer hold up nobody else.
                asked = ended(&mut looks) => self.look_around(asked).await,
                _ = every.tick(), if looks.is_none() => looks = Some(self.ask()),
            }
        };
        let all: Vec<Partition> = self.held.keys().cloned().collect();
        self.give_back(&all, self.cx.drain).await;
        self.shared.leave();
        // Whoever leaves the group is asked for its partitions once more, and nobody answers.
        drop(said);
        match outcome {
            Some(Ok(())) => Err(Error::transient("the member of the group has ended")),
            Some(Err(error)) => Err(error),
            None => joined(member.await),
        }
    }

    /// Begins the deliveries of partitions.
    async fn take(&mut self, partitions: Vec<Partition>) {
        let count = partitions.len();
        if count > 0 {
            info!(pipeline = &*self.cx.pipeline, count, "assigned {} {}", self.cx.pipeline, shown(&partitions));
        }
        self.begin(partitions).await;
        self.cx.health.subscribed();
        self.tell();
    }

    /// Begins the deliveries of partitions, all at once. Those of which the brokers do not tell wait for the next look.
    async fn begin(&mut self, partitions: Vec<Partition>) {
        let opening = join_all(partitions.iter().map(|partition| self.open(partition)));
        let Some(opened) = self.cx.stop.run_until_cancelled(opening).await else { return };
        for (partition, opened) in partitions.into_iter().zip(opened) {
            match opened {
                Ok(held) => {
                    self.waiting.remove(&partition);
                    self.held.insert(partition, held);
                }
                Err(error) => _ = self.waiting.insert(partition, error.chain()),
            }
        }
    }

    /// Begins the deliveries of a partition, one to each sink.
    async fn open(&self, partition: &Partition) -> Result<Held> {
        let (mut deliveries, mut histories) = (Vec::new(), Vec::new());
        for sink in &self.cx.sinks {
            let (window, readable, part) = self.window(partition).await?;
            histories.push(part.history());
            let part = PartLog { part: part_of(partition), log_id: self.cluster, log: Box::new(part), readable };
            deliveries.push((self.cx.deliver(sink, part).await?, window));
        }
        // Where it was made again between two of them, the next look finds another one than the first.
        let boot = histories.first().copied().unwrap_or(Boot(0));
        if histories.iter().any(|history| *history != boot) {
            return Err(Error::transient("the topic is just being made again"));
        }
        Ok(Held { boot, deliveries, progress: Progress::default() })
    }

    /// Opens a window on a partition, and has it read.
    async fn window(
        &self,
        (topic, number): &Partition,
    ) -> Result<(Arc<Window>, watch::Receiver<SpoolPosition>, PartitionLog)> {
        let ask = {
            let (monitor, topic, number) = (self.monitor.clone(), topic.clone(), *number);
            Box::new(move || monitor.find(&topic, number))
        };
        let (name, decoder) = (name_of(topic, *number), Decoder::new(&self.cx.name, self.tables.clone()));
        let bell = self.confirmer.bell();
        let (window, log) = blocking(move || Window::open(&name, decoder, bell, ask)).await?;
        self.confirmer.add((topic.clone(), *number), &window);
        let mut settings = base(&self.config, &self.cx.pipeline)?;
        settings
            .set("enable.partition.eof", "true")
            .set("fetch.wait.max.ms", "100")
            .set("queued.max.messages.kbytes", "4096");
        let reader = Reader {
            topic: topic.clone(),
            partition: *number,
            window: window.clone(),
            monitor: self.monitor.clone(),
            settings,
            secrets: self.config.rdkafka.clone(),
        };
        let readable = window.readable();
        // It ends with the window, which the delivery's log closes.
        drop(spawn_blocking(move || reader.run()));
        Ok((window, readable, log))
    }

    /// Ends the deliveries of partitions: what was read is written, within a time, and nothing after it.
    async fn give_back(&mut self, partitions: &[Partition], patience: Duration) {
        let deadline = Instant::now() + patience;
        let mut ending = Vec::new();
        for partition in partitions {
            self.waiting.remove(partition);
            let Some(held) = self.held.remove(partition) else { continue };
            for (delivery, window) in held.deliveries {
                window.freeze();
                delivery.stop(deadline);
                ending.push(delivery);
            }
        }
        for delivery in ending {
            delivery.ended(deadline).await;
        }
        if !partitions.is_empty() {
            let pipeline = &self.cx.pipeline;
            info!(pipeline = &**pipeline, count = partitions.len(), "gave back {pipeline} {}", shown(partitions));
        }
        self.tell();
    }

    /// Asks the brokers how long the partitions are, and whether they are still those that they were.
    fn ask(&self) -> JoinHandle<Result<Asked>> {
        let (monitor, partitions) = (self.monitor.clone(), self.held.keys().cloned().collect::<Vec<_>>());
        let all = self.config.topics.clone();
        let come_to = |(partition, held): (&Partition, &Held)| Some((partition.clone(), held.ends()?));
        let before = self.held.iter().filter_map(come_to).collect();
        spawn_blocking(move || {
            let ids = monitor.topic_ids(ANY_BROKER, &all.iter().map(String::as_str).collect::<Vec<_>>())?;
            let missing = all.into_iter().filter(|topic| !ids.contains_key(topic)).collect();
            let mut asked = Asked { missing, before, ..Asked::default() };
            for partition in partitions {
                let (topic, number) = (&partition.0, partition.1);
                let Some(id) = ids.get(topic) else { continue };
                match monitor.watermarks(topic, number) {
                    Ok((_, high)) => _ = asked.ends.insert(partition.clone(), (boot(*id, topic, number), high)),
                    Err(error) => _ = asked.failed.insert(partition, error.chain()),
                }
            }
            Ok(asked)
        })
    }

    /// Takes note of what the brokers said, and says how all is.
    async fn look_around(&mut self, asked: Result<Asked>) {
        let asked = match asked {
            Ok(asked) => asked,
            Err(error) => {
                self.cx.health.degraded(format!("{}; asking again", error.chain()));
                return;
            }
        };
        let (mut lags, mut stored) = (BTreeMap::new(), BTreeMap::new());
        let now = Instant::now();
        for (partition, held) in &mut self.held {
            let known = held.deliveries.iter().map(|(delivery, _)| delivery.committed()).collect::<Option<Vec<_>>>();
            let slowest = known.and_then(|known| known.into_iter().min_by_key(|position| position.offset));
            let end = asked.ends.get(partition).filter(|(boot, _)| *boot == held.boot).map(|(_, end)| *end);
            if let (Some(at), Some(end)) = (slowest.map(|position| kafkas(position.offset)), end) {
                stored.insert(partition.clone(), at);
                let (ends, waits) = (held.ends(), held.deliveries.iter().any(waits));
                let look = Look { at, end, ends, before: asked.before.get(partition), waits, now };
                let Lag { messages, is_settled } = held.progress.look(look);
                lags.insert(part_of(partition).0.to_string(), messages);
                if is_settled {
                    held.deliveries.iter().for_each(|(_, window)| window.is_well());
                }
            }
        }
        let unknown = asked.failed.values().next().cloned();
        self.unknown = unknown.or_else(|| Some(format!("topic `{}` is not there", asked.missing.first()?)));
        self.shared.store(stored);
        self.cx.health.lags(lags);
        let rows: u64 = self.held.values().flat_map(|held| &held.deliveries).map(|(_, window)| window.rows()).sum();
        if rows > 0 {
            self.cx.health.received(now, rows);
        }
        self.cx.health.frame(now);
        let other = |(partition, held): (&Partition, &Held)| {
            let is_other = asked.ends.get(partition).is_some_and(|(boot, _)| *boot != held.boot);
            is_other.then(|| partition.clone())
        };
        let again: Vec<Partition> = self.held.iter().filter_map(other).collect();
        if !again.is_empty() {
            // The opening says what it means that a topic is another one now.
            self.give_back(&again, Duration::ZERO).await;
        }
        let waiting: Vec<Partition> = self.waiting.keys().cloned().chain(again).collect();
        self.begin(waiting).await;
        self.tell();
    }

    /// Says how the source is.
    fn tell(&self) {
        let health = &self.cx.health;
        let all = (self.held.len() + self.waiting.len()) as u64;
        health.subscriptions(all, self.held.len() as u64, 0);
        let of_windows = self.held.iter().find_map(|((topic, number), held)| {
            let trouble_of = |(_, window): &(PartDelivery, Arc<Window>)| window.trouble_now();
            Some(trouble(&name_of(topic, *number), &held.deliveries.iter().find_map(trouble_of)?).chain())
        });
        let waits =
            self.waiting.iter().next().map(|((topic, number), why)| format!("{}: {why}", name_of(topic, *number)));
        let now = Instant::now();
        let starving = self.held.iter().find_map(|((topic, number), held)| {
            let (at, long) = held.progress.starves(now)?;
            let (name, seconds) = (name_of(topic, *number), long.as_secs());
            Some(format!("{name} has more than what is stored, up to offset {at}, and gives nothing for {seconds} s"))
        });
        if let Some(why) = of_windows.or(waits).or(starving).or_else(|| self.unknown.clone()) {
            health.degraded(format!("{why}; trying again"));
            return;
        }
        if let Some(heard) = self.shared.heard().filter(|_| all == 0) {
            health.degraded(format!("no partition yet: {heard}"));
            return;
        }
        let group = self.config.group(&self.cx.pipeline);
        let noun = if all == 1 { "partition" } else { "partitions" };
        health.healthy(format!("{all} {noun} as a member of group `{group}`"));
    }
}

impl Held {
    /// Returns the ends that the readers have come to, where the stores have everything up to there.
    fn ends(&self) -> Option<Vec<End>> {
        let ends = self.deliveries.iter().map(|(delivery, window)| {
            let end = window.end_if_all()?;
            delivery.committed().filter(|committed| committed.offset >= end.offset).map(|_| end)
        });
        ends.collect()
    }
}

/// Returns whether a delivery was told of nothing that its store lacks.
fn waits((delivery, window): &(PartDelivery, Arc<Window>)) -> bool {
    delivery.committed().is_some_and(|committed| window.readable().borrow().offset <= committed.offset)
}

/// Returns how a member has ended.
fn joined(ended: std::result::Result<Result<()>, tokio::task::JoinError>) -> Result<()> {
    ended.unwrap_or_else(|error| Err(Error::transient("the member of the group panicked").because(error)))
}

/// Waits for a look that is under way; for ever where there is none.
async fn ended(looks: &mut Option<JoinHandle<Result<Asked>>>) -> Result<Asked> {
    let Some(look) = looks else { return std::future::pending().await };
    let asked = look.await;
    *looks = None;
    asked.unwrap_or_else(|error| Err(Error::transient("asking the brokers panicked").because(error)))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(Error::transient("a call of the Kafka client panicked").because(error)))
}

/// Returns the part that a partition is: its name in the store.
fn part_of((topic, number): &Partition) -> Part {
    Part(format!("{topic}/{number}").into())
}

fn name_of(topic: &str, number: i32) -> String {
    format!("partition {number} of topic `{topic}`")
}

/// Names partitions by topic: `trades 0, 3; quotes 1`.
fn shown(partitions: &[Partition]) -> String {
    let mut topics: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (topic, number) in partitions {
        topics.entry(topic).or_default().push(number.to_string());
    }
    let topics: Vec<_> = topics.into_iter().map(|(topic, numbers)| format!("{topic} {}", numbers.join(", "))).collect();
    if topics.is_empty() { "no partition".to_owned() } else { format!("partitions {}", topics.join("; ")) }
}

/// How long what was read may be delivered before a partition is given back: another loader waits for it.
const HAND_OVER: Duration = Duration::from_secs(5);

/// How often the brokers are asked how long the partitions are.
const LOOK_EVERY: Duration = Duration::from_secs(2);
