//! The sink: takes ownership, writes chunks, looks after itself. All work is done on a thread that may block.

use async_trait::async_trait;
use tidegate_core::{
    Error, Result,
    catalog::Component,
    chunk::{Chunk, Part, SinkTable},
    sink::{Claim, Guarantee, Neighbour, Owner, Sink, SinkContext, Written},
    spool::SpoolPosition,
    verify::Audit,
};
use tracing::info;

use super::{
    KafkaConfig, adopt,
    audit::KafkaAudit,
    client::Reader,
    error::fenced,
    position::{self, Held},
    session::Session,
    topics,
    waited::{Waited, Waiting},
};
use crate::worker::Worker;

/// Topics of a Kafka cluster.
pub(super) struct Kafka {
    config: KafkaConfig,
    worker: Worker<Inner>,
    neighbours: Vec<Neighbour>,
}

/// What the work is done with.
#[derive(Default)]
struct Inner {
    /// None after any error: whatever is in doubt then, the next opening settles.
    session: Option<Open>,
    /// The epoch of the last opening: a higher one in the store is somebody else's.
    epoch: Option<u64>,
}

struct Open {
    session: Session,
    reader: Reader,
    owner: Owner,
}

impl Kafka {
    pub(super) fn new(config: KafkaConfig) -> Self {
        Self { config, worker: Worker::new(), neighbours: Vec::new() }
    }

    /// Does a piece of work with a client of its own. One that was given up ends soon.
    async fn look<R: Send + 'static>(
        &mut self,
        work: impl FnOnce(&KafkaConfig, &Waited) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        let (config, waiting) = (self.config.clone(), Waiting::default());
        let waited = waiting.waited();
        self.worker.set_if_missing(Inner::default).await;
        self.worker.run(move |_| work(&config, &waited)).await
    }

    /// Does a piece of work with the session, which ends with an error.
    async fn with_session<R: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Open, &Waited) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        let waiting = Waiting::default();
        let waited = waiting.waited();
        let work = move |inner: &mut Inner| {
            let mut open = inner.session.take().ok_or_else(not_open)?;
            let done = work(&mut open, &waited)?;
            inner.session = Some(open);
            Ok(done)
        };
        self.worker.run(work).await
    }
}

#[async_trait]
impl Sink for Kafka {
    async fn open(&mut self, cx: &SinkContext) -> Result<Vec<(Part, SpoolPosition)>> {
        self.config.check_tables(&cx.tables)?;
        self.worker.set_if_missing(Inner::default).await;
        let (config, cx, waiting) = (self.config.clone(), cx.clone(), Waiting::default());
        let waited = waiting.waited();
        let opened = self.worker.run(move |inner| inner.open(&config, &cx, &waited)).await?;
        self.neighbours = opened.neighbours;
        Ok(opened.positions)
    }

    async fn write(&mut self, chunk: &Chunk) -> Result<Written> {
        let chunk = chunk.clone();
        self.with_session(move |open, waited| open.session.write(&chunk, waited)).await
    }

    async fn check(&mut self) -> Result<()> {
        self.with_session(Open::check).await
    }

    async fn reach(&mut self, tables: &[SinkTable]) -> Result<String> {
        let tables = tables.to_vec();
        self.look(move |config, _| reach(config, &tables)).await
    }

    async fn audit(&mut self, cx: &SinkContext) -> Result<Option<Box<dyn Audit>>> {
        let cx = cx.clone();
        let audit = self.look(move |config, waited| KafkaAudit::open(config, &cx.owner, waited)).await?;
        Ok(Some(Box::new(audit)))
    }

    async fn close(&mut self) -> Result<()> {
        self.worker.set_if_missing(Inner::default).await;
        self.worker
            .run(|inner| {
                inner.session = None;
                Ok(())
            })
            .await
    }

    fn neighbours(&self) -> Vec<Neighbour> {
        self.neighbours.clone()
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::ReadCommitted
    }

    async fn claim(&mut self, owner: &Owner) -> Result<Option<Claim>> {
        let owner = owner.clone();
        self.look(move |config, waited| adopt::claim(config, &owner, waited)).await
    }

    async fn adopt(&mut self, owner: &Owner, at: SpoolPosition) -> Result<()> {
        let owner = owner.clone();
        self.look(move |config, waited| adopt::adopt(config, &owner, at, waited)).await
    }

    async fn rename(&mut self, old: &Owner, owner: &Owner) -> Result<()> {
        let (old, owner) = (old.clone(), owner.clone());
        self.look(move |config, waited| adopt::rename(config, &old, &owner, waited)).await
    }
}

/// What an opening has given.
struct Opened {
    positions: Vec<(Part, SpoolPosition)>,
    neighbours: Vec<Neighbour>,
}

impl Inner {
    fn open(&mut self, config: &KafkaConfig, cx: &SinkContext, waited: &Waited) -> Result<Opened> {
        // Its producer would be fenced by the new one.
        self.session = None;
        let owner = &cx.owner;
        let reader = Reader::new(config, owner)?;
        let topic = position::topic(owner);
        let is_there = reader.partitions(&topic)?.is_some();
        // Before the id is taken: who may not have the position fences nobody. What a program that was killed left open is
        // ended by taking the id, and so not waited for here.
        let mut held = if is_there { position::glance(&reader, &topic, waited)? } else { None };
        if is_there && cx.known.is_some() && !held.as_ref().is_some_and(Held::is_written) {
            // But the brokers answer a commit before it can be read: only where nothing is undecided there is none.
            held = position::read(&reader, &topic, waited)?;
        }
        if let Some(error) = held.as_ref().and_then(|held| held.refuses(owner, self.epoch)) {
            return Err(error);
        }
        let is_written = held.as_ref().is_some_and(Held::is_written);
        if !is_written && cx.known.is_some() {
            return Ok(Opened { positions: Vec::new(), neighbours: Vec::new() });
        }
        let neighbours =
            if is_written { Vec::new() } else { position::neighbours(&reader, owner, &cx.tables, waited)? };
        topics::prepare(config, owner, &cx.tables, held.as_ref(), &reader, waited)?;
        if !is_there {
            topics::make_position(config, owner, &reader, waited)?;
        }
        let mut names: Vec<_> = cx.tables.iter().map(|table| table.name.as_str()).collect();
        names.push(&topic);
        let limits = topics::limits(config, owner, &names)?;
        let mut session = Session::begin(config, owner, &cx.tables, limits, waited)?;
        let held = position::read(&reader, &topic, waited)?;
        if let Some(error) = held.as_ref().and_then(|held| held.refuses(owner, self.epoch)) {
            return Err(error);
        }
        let epoch = held.as_ref().map(|held| held.epoch).into_iter().chain(self.epoch).max().unwrap_or(0) + 1;
        // Before it is known to be committed: if this call is given up, the next one must not take it for another's.
        self.epoch = Some(epoch);
        session.take(Held::taken(owner, held.as_ref(), &cx.tables, epoch), waited)?;
        if let Some(held) = held.as_ref().filter(|held| held.host != owner.host) {
            let Owner { pipeline, sink, host, .. } = owner;
            let old = &held.host;
            info!(
                pipeline,
                sink, old, host, "the position was of host {old}, and the spool is the same: it is of {host} now"
            );
        }
        let positions = held.map(|held| held.positions()).unwrap_or_default();
        self.session = Some(Open { session, reader, owner: owner.clone() });
        Ok(Opened { positions, neighbours })
    }
}

impl Open {
    /// Looks whether the brokers answer, the topics are there, and the position is still ours.
    fn check(&mut self, waited: &Waited) -> Result<()> {
        self.session.check()?;
        for name in &self.session.held.topics {
            if self.reader.partitions(name)?.is_none() {
                return Err(Error::transient(format!("topic `{name}` is gone: it is looked at again")));
            }
        }
        let topic = position::topic(&self.owner);
        if self.reader.partitions(&topic)?.is_none() {
            return Err(Error::transient(format!("topic `{topic}` is gone: it is looked at again")));
        }
        match position::read(&self.reader, &topic, waited)? {
            Some(held) if held.epoch == self.session.held.epoch => Ok(()),
            Some(_) | None => Err(fenced()),
        }
    }
}

fn reach(config: &KafkaConfig, tables: &[SinkTable]) -> Result<String> {
    let (pipeline, sink, host) = (String::new(), String::new(), String::new());
    let nobody = Owner { pipeline, sink, part: Part::spool(), spool: 0, host, chain: 0 };
    let reader = Reader::new(config, &nobody)?;
    let brokers = reader.brokers()?;
    let missing = topics::missing(&reader, tables)?;
    let (plural, at) = (if brokers == 1 { "broker" } else { "brokers" }, &config.brokers);
    let copies = config.create.as_ref().and_then(|create| create.replication).map_or(0, |copies| copies.get() as usize);
    if copies > brokers && !missing.is_empty() {
        let text =
            format!("`create.replication` wants {copies} brokers to have a copy, and `{at}` has {brokers} {plural}");
        return Err(Error::transient(format!("{text}: `{}` cannot be made", missing.join("`, `"))));
    }
    match (missing.is_empty(), &config.create) {
        (true, _) => Ok(format!("`{at}` answers, {brokers} {plural}; the topics are there")),
        (false, Some(_)) => Ok(format!("`{at}` answers, {brokers} {plural}; `{}` will be made", missing.join("`, `"))),
        (false, None) => Err(topics::lacking(config, &missing)),
    }
}

fn not_open() -> Error {
    Error::transient("the Kafka producer is not open")
}
