//! What an opening does: looks at the server, at who writes, at each table, and makes what is missing.

use std::collections::BTreeMap;

use tidegate_core::{
    Error, Result,
    chunk::SinkTable,
    config::OnConflict,
    sink::SinkContext,
    spool::{Boot, SpoolPosition},
};

use super::{
    QuestDbConfig, Unsigned,
    client::Client,
    config::ttl_of,
    encode::Encoder,
    look::{self, Standing},
    owner::{self, Held},
    schema::{self, Fitted},
};

/// One table, ready to be written.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) encoder: Encoder,
    pub(super) name: String,
    pub(super) id: i64,
    /// The statement that gives it its key; `None` for a table of the user's, which has none of ours.
    pub(super) dedup: Option<String>,
    /// What is weaker than it could be, or differs from the configuration.
    pub(super) remarks: Vec<String>,
    /// The newest designated timestamp, in nanoseconds; known where the table has a TTL.
    pub(super) latest: Option<i64>,
}

/// What an opening has found.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) targets: Vec<Target>,
    /// The row of the owners' table, as it is to be written; `None` where there is none and none may be made.
    pub(super) held: Option<Held>,
    pub(super) others: Vec<Held>,
    pub(super) newest: Option<SpoolPosition>,
}

/// Opens.
pub(super) struct Preparing<'a> {
    pub(super) config: &'a QuestDbConfig,
    pub(super) client: &'a Client,
    pub(super) cx: &'a SinkContext,
    /// Of the last opening by this process.
    pub(super) epoch: Option<i64>,
}

impl Preparing<'_> {
    pub(super) async fn prepare(self) -> Result<Prepared> {
        let Self { config, client, cx, epoch } = &self;
        let names: Vec<&str> = cx.tables.iter().map(|table| table.name.as_str()).collect();
        let standings = self.standings(&names).await?;
        let is_kept = look::find(&standings, &config.owners).is_some();
        let all = if is_kept { owners(config, client).await?.unwrap_or_default() } else { Vec::new() };
        let held = owner::of(&all, &cx.owner).cloned();
        if let Some(error) = held.as_ref().and_then(|held| held.refuses(&cx.owner, *epoch)) {
            return Err(error);
        }
        if held.is_none() && cx.known.is_some() && (is_kept || config.create) {
            return Err(self.unknown());
        }
        let before = held.clone().unwrap_or_else(|| Held::new(&cx.owner));
        for table in &cx.tables {
            self.check_identity(&before, table, look::find(&standings, &table.name))?;
        }
        let fitted = self.make(&standings, is_kept).await?;
        // Once more, for the ids of new ones.
        let standings = self.standings(&names).await?;
        let mut targets: Vec<Target> = cx
            .tables
            .iter()
            .zip(fitted)
            .map(|(table, fitted)| self.target(table, fitted, look::find(&standings, &table.name)))
            .collect::<Result<_>>()?;
        for target in targets.iter_mut().filter(|target| target.encoder.has_ttl()) {
            let columns = look::columns(client, &target.name).await?;
            let time = columns.iter().find(|column| column.is_designated).ok_or_else(look::strange)?;
            target.latest = look::latest(client, &target.name, time).await?;
        }
        let is_ours = before.spool == cx.owner.spool;
        let written = standings.iter().filter(|standing| standing.name != config.owners);
        // Once: later on this process knows what it has written.
        let newest = if is_ours && epoch.is_none() { newest(client, &before, written).await? } else { None };
        let ids: BTreeMap<_, _> = targets.iter().map(|target| (target.name.clone(), target.id)).collect();
        let held = (is_kept || config.create).then(|| Held {
            spool: cx.owner.spool,
            host: cx.owner.host.clone(),
            epoch: before.epoch.max(epoch.unwrap_or(0)) + 1,
            position: cx.known.unwrap_or(before.position),
            tables: before.tables.clone().into_iter().chain(ids).collect(),
            ..before
        });
        Ok(Prepared { targets, held, others: all, newest })
    }

    async fn standings(&self, names: &[&str]) -> Result<Vec<Standing>> {
        let names: Vec<&str> = names.iter().copied().chain([self.config.owners.as_str()]).collect();
        let standings = look::standings(self.client, &names).await?;
        match standings.iter().find(|standing| standing.state.is_suspended) {
            Some(standing) => Err(suspended(standing)),
            None => Ok(standings),
        }
    }

    /// Checks that a table is the one that rows were stored in.
    fn check_identity(&self, held: &Held, table: &SinkTable, found: Option<&Standing>) -> Result<()> {
        let is_written = self.cx.known.is_some() || held.has_written();
        let Some(id) = held.tables.get(&table.name).filter(|_| is_written) else { return Ok(()) };
        let name = &table.name;
        match found {
            None => Err(Error::permanent(format!(
                "table `{name}` is gone, and rows may have been stored in it, which are not sent again"
            ))),
            Some(found) if found.state.id != *id => Err(remade(name, *id, found.state.id)),
            Some(_) => Ok(()),
        }
    }

    /// Makes what is missing, and returns how each table's columns are sent.
    async fn make(&self, standings: &[Standing], is_kept: bool) -> Result<Vec<Fitted>> {
        let Self { config, client, cx, .. } = self;
        let (mut statements, mut all) = (Vec::new(), Vec::new());
        for table in &cx.tables {
            let Some(standing) = look::find(standings, &table.name) else {
                let (statement, fitted) = schema::made(config, table);
                statements.push(statement);
                all.push(fitted);
                continue;
            };
            look_for_wal(client, standing).await?;
            let fitted = self.fit(table).await?;
            statements.extend(schema::add(&standing.name, &fitted.lacking));
            all.push(fitted);
        }
        if !config.create && !statements.is_empty() {
            let statements = statements.join("; ");
            return Err(Error::permanent(format!(
                "`create` is off, and something is missing. To be run: {statements}"
            )));
        }
        if config.create && !is_kept {
            statements.push(owner::made(&config.owners));
        }
        for statement in &statements {
            client.sql(statement).await?;
        }
        if !statements.is_empty() {
            self.wait_applied().await?;
        }
        Ok(all)
    }

    /// Waits a little until new columns can be seen; what is not seen by then is looked for again later.
    async fn wait_applied(&self) -> Result<()> {
        let names: Vec<&str> = self.cx.tables.iter().map(|table| table.name.as_str()).collect();
        for _ in 0..APPLY_TRIES {
            let standings = self.standings(&names).await?;
            if standings.iter().all(|standing| standing.state.writer >= standing.state.sequencer) {
                break;
            }
            tokio::time::sleep(APPLY_PAUSE).await;
        }
        Ok(())
    }

    /// Holds a table that is there against what is written, with its key.
    async fn fit(&self, table: &SinkTable) -> Result<Fitted> {
        let found = look::columns(self.client, &table.name).await?;
        let fitted = schema::fit(self.config, table, &found)?;
        let sorted = |mut names: Vec<String>| {
            names.iter_mut().for_each(|name| *name = name.to_lowercase());
            names.sort_unstable();
            names
        };
        let keys: Vec<_> = found.iter().filter(|found| found.is_key).map(|found| found.name.clone()).collect();
        let has_key = sorted(keys) == sorted(schema::key(table));
        if !has_key && (fitted.is_ours || table.on_conflict == OnConflict::Replace) {
            return Err(lost_dedup(&table.name, &schema::dedup(table)));
        }
        Ok(fitted)
    }

    fn target(&self, table: &SinkTable, fitted: Fitted, found: Option<&Standing>) -> Result<Target> {
        let name = &table.name;
        let gone = || Error::transient(format!("table `{name}` has just been made, and is not there"));
        let standing = found.ok_or_else(gone)?;
        let schema = table.table.schema();
        let time = schema.fields().iter().position(|field| field.name().eq_ignore_ascii_case(&table.time_column));
        let lacks = || Error::config(format!("table `{name}` has no column `{}`", table.time_column));
        let time = (time.ok_or_else(lacks)?, table.time_column.as_str());
        let mut remarks = Vec::new();
        let has_key = fitted.is_ours || table.on_conflict == OnConflict::Replace;
        if !has_key {
            remarks.push(if standing.state.has_dedup {
                format!(
                    "table `{name}` has a key of its own and no `tg_` columns: rows that are equal in that key are merged, and \
                     those that are not come at least once"
                )
            } else {
                format!("table `{name}` has no key by which rows that are sent twice are told: its rows come at least once")
            });
        }
        let (partition, ttl) = self.config.layout_of(table);
        let wanted = ttl.and_then(|ttl| Some((ttl, ttl_of(partition, ttl)?)));
        if let Some((ttl, n)) = wanted.filter(|(ttl, _)| standing.ttl != i64::try_from(ttl.0.as_nanos()).ok()) {
            let (word, shown) = (partition.word().0, ttl.0.as_secs() / 3_600);
            remarks.push(format!(
                "table `{name}` has another TTL than the {shown} h of `ttl`, and keeps it. To change it, which drops rows at \
                 once: ALTER TABLE {} SET TTL {n} {word}S",
                schema::quoted(name)
            ));
        }
        Ok(Target {
            encoder: Encoder::new(&standing.name, fitted.fields, time, fitted.is_ours, standing.ttl),
            name: name.clone(),
            id: standing.state.id,
            dedup: has_key.then(|| schema::dedup(table)),
            remarks,
            latest: None,
        })
    }

    /// A store that does not know a sink that has written.
    fn unknown(&self) -> Error {
        let Self { config, cx, .. } = self;
        let held = Held { position: cx.known.unwrap_or(SpoolPosition::START), epoch: 1, ..Held::new(&cx.owner) };
        Error::permanent(format!(
            "QuestDB at `{}` does not know this sink, which has stored rows: it was emptied, replaced or restored, or another \
             one is addressed. If it is the right one, and its tables hold what they should, to be run: {}; {}",
            config.url,
            owner::made(&config.owners),
            held.statement(&config.owners)
        ))
    }
}

/// Checks that the server knows what is sent to it, and returns what it says of durability.
pub(super) async fn server(config: &QuestDbConfig, client: &Client) -> Result<Option<String>> {
    let settings = client.settings().await?;
    let settings = settings.get("config").unwrap_or(&settings);
    let versions = settings.get("line.proto.support.versions").and_then(|versions| versions.as_array());
    let wanted = if config.unsigned == Unsigned::Decimal { 3 } else { 2 };
    if !versions.is_some_and(|versions| versions.iter().any(|version| version.as_i64() == Some(wanted))) {
        let newest = if wanted == 3 { "9.2, for `unsigned = \"decimal\"`," } else { "9.1" };
        return Err(Error::permanent(format!("QuestDB at `{}` is too old: {newest} or newer is needed", config.url)));
    }
    // Not every user may ask.
    let mode = client.sql("SELECT value FROM (SHOW PARAMETERS) WHERE property_path = 'cairo.commit.mode'").await;
    let mode = mode.ok().and_then(|rows| Some(rows.first()?.first()?.as_str()?.to_owned()));
    Ok(mode.filter(|mode| mode == "nosync"))
}

pub(super) fn suspended(standing: &Standing) -> Error {
    let (name, why) = (&standing.name, &standing.state.error);
    let why = if why.is_empty() { String::new() } else { format!(" ({why})") };
    Error::transient(format!(
        "table `{name}` is suspended{why}: QuestDB takes rows for it and stores none. What it has not stored stays in the \
         spool. Once its cause is mended, to be run: ALTER TABLE {} RESUME WAL",
        schema::quoted(name)
    ))
}

fn remade(name: &str, was: i64, is: i64) -> Error {
    Error::permanent(format!(
        "table `{name}` was dropped and made anew (its id was {was} and is {is}): what was stored in it is gone, and is not \
         sent again. Where QuestDB has made it by itself, under a row that came, it has no key: drop it before"
    ))
}

pub(super) fn lost_dedup(name: &str, statement: &str) -> Error {
    Error::permanent(format!(
        "table `{name}` does not have the key that rows which are sent twice are told by. To be run: {statement}"
    ))
}

/// Reads the owners' table with all that was written to it; `None` where there is none.
pub(super) async fn owners(config: &QuestDbConfig, client: &Client) -> Result<Option<Vec<Held>>> {
    for _ in 0..APPLY_TRIES {
        let standings = look::standings(client, &[&config.owners]).await?;
        let Some(standing) = standings.first() else { return Ok(None) };
        if standing.state.is_suspended {
            return Err(suspended(standing));
        }
        if standing.state.writer >= standing.state.sequencer {
            break;
        }
        tokio::time::sleep(APPLY_PAUSE).await;
    }
    owner::all(client, &config.owners).await.map(Some)
}

const APPLY_TRIES: u32 = 200;
const APPLY_PAUSE: std::time::Duration = std::time::Duration::from_millis(10);

/// Returns the newest position of which a sink has rows in these tables, or had at the last heartbeat.
pub(super) async fn newest<'a>(
    client: &Client,
    held: &Held,
    tables: impl Iterator<Item = &'a Standing>,
) -> Result<Option<SpoolPosition>> {
    let mut newest = None;
    for table in tables.filter(|_| held.writing != 0) {
        let columns = look::columns(client, &table.name).await?;
        let time = columns.iter().find(|column| column.is_designated);
        let has_tg = schema::TG_COLUMNS.iter().all(|tg| columns.iter().any(|column| column.name == *tg));
        if let Some(time) = time.filter(|_| has_tg) {
            newest = newest.max(look::newest_of(client, &table.name, held.writing.cast_signed(), time).await?);
        }
    }
    let of_rows = newest.map(|offset| SpoolPosition { boot: Boot(held.writing), offset });
    Ok(of_rows.or_else(|| (held.position != SpoolPosition::START).then_some(held.position)))
}

/// Refuses a table without a write-ahead log.
async fn look_for_wal(client: &Client, standing: &Standing) -> Result<()> {
    if standing.has_wal {
        return Ok(());
    }
    let name = &standing.name;
    if !look::columns(client, name).await?.iter().any(|column| column.is_designated) {
        return Err(Error::permanent(format!(
            "table `{name}` has no designated timestamp, and QuestDB gives it none any more: name another table in `tables`, \
             which is made with one, and copy its rows"
        )));
    }
    Err(Error::permanent(format!(
        "table `{name}` has no write-ahead log, so what is stored cannot be told. To be run, and QuestDB restarted: \
         ALTER TABLE {} SET TYPE WAL",
        schema::quoted(name)
    )))
}

/// Looks at tables without changing anything.
pub(super) async fn reach(config: &QuestDbConfig, client: &Client, tables: &[SinkTable]) -> Result<String> {
    let names: Vec<&str> = tables.iter().map(|table| table.name.as_str()).collect();
    let standings = look::standings(client, &names).await?;
    let mut missing = Vec::new();
    for table in tables {
        let Some(standing) = look::find(&standings, &table.name) else {
            missing.push(schema::made(config, table).0);
            continue;
        };
        look_for_wal(client, standing).await?;
        if standing.state.is_suspended {
            return Err(suspended(standing));
        }
        let found = look::columns(client, &table.name).await?;
        let fitted = schema::fit(config, table, &found)?;
        missing.extend(schema::add(&table.name, &fitted.lacking));
        if !fitted.is_ours && table.on_conflict == OnConflict::Replace && !standing.state.has_dedup {
            return Err(lost_dedup(&table.name, &schema::dedup(table)));
        }
    }
    if !config.create && !missing.is_empty() {
        return Err(Error::permanent(format!(
            "`create` is off, and something is missing. To be run: {}",
            missing.join("; ")
        )));
    }
    let there = standings.len();
    let noun = if there == 1 { "table" } else { "tables" };
    let rest = if missing.is_empty() { String::new() } else { "; what is missing will be made".to_owned() };
    Ok(format!("`{}` answers and has {there} of {} {noun}{rest}", config.url, tables.len()))
}
