//! Hypertables: made of tables that a sink has made, with the policies that the TOML says.

use std::time::Duration;

use tidegate_core::chunk::SinkTable;
use tokio_postgres::types::Type;

use super::{
    config::{Hypertable, Hypertables},
    link::Link,
    schema::{Target, literal, quoted},
    types::Form,
};

type Failed = tokio_postgres::Error;

/// What tables are made hypertables with.
pub(super) struct Making<'a> {
    pub(super) link: &'a Link,
    /// The schema of TimescaleDB's functions, as SQL writes it: it may be on nobody's search path.
    pub(super) functions: &'a str,
    pub(super) hypertables: &'a Hypertables,
    pub(super) notes: &'a mut Vec<String>,
}

impl Making<'_> {
    /// Makes a table a hypertable, and sets its policies. One of somebody else's is left as it is.
    pub(super) async fn prepare(self, table: &SinkTable, target: &Target) -> Result<(), Failed> {
        let Self { link, functions, hypertables, notes } = self;
        let Some(wanted) = hypertables.of(table) else { return Ok(()) };
        if !target.is_ours {
            let is_asked = wanted != Hypertable::default();
            if is_asked {
                let name = &table.name;
                notes.push(format!(
                    "table `{name}` is somebody else's: chunks, compression and retention are left as they are"
                ));
            }
            return Ok(());
        }
        let name = literal(&target.name);
        let time = time_column(table);
        if !is_hypertable(link, target.oid).await? {
            let interval = span(target, &time, wanted.interval.map_or(A_WEEK, |interval| interval.0));
            let time = literal(&time);
            let sql = format!(
                "SELECT {functions}.create_hypertable({name}, {time}, migrate_data => true, chunk_time_interval => {interval})"
            );
            link.run(&sql).await?;
        } else if let Some(interval) = wanted.interval {
            link.run(&format!(
                "SELECT {functions}.set_chunk_time_interval({name}, {})",
                span(target, &time, interval.0)
            ))
            .await?;
        }
        if wanted.compress_after.is_some() && !is_compressed(link, target.oid).await? {
            let segment = if table.has_column("symbol") { ", timescaledb.compress_segmentby = 'symbol'" } else { "" };
            let order = literal(&quoted(&time));
            link.run(&format!(
                "ALTER TABLE {} SET (timescaledb.compress{segment}, timescaledb.compress_orderby = {order})",
                target.name
            ))
            .await?;
        }
        let compression = Policy { procedure: "policy_compression", key: "compress_after", name: "compression" };
        compression.set(link, functions, target, wanted.compress_after).await?;
        let retention = Policy { procedure: "policy_retention", key: "drop_after", name: "retention" };
        retention.set(link, functions, target, wanted.retention).await
    }
}

/// A policy, by the name of its job, the key of its age there, and as its functions are called.
struct Policy {
    procedure: &'static str,
    key: &'static str,
    name: &'static str,
}

impl Policy {
    /// Sets, changes or removes it, so that it is what the TOML says.
    async fn set(
        &self,
        link: &Link,
        functions: &str,
        target: &Target,
        wanted: Option<tidegate_core::config::Duration>,
    ) -> Result<(), Failed> {
        let Self { procedure, key, name } = self;
        let stands = age(link, target.oid, procedure, key).await?;
        let wanted = wanted.map(|wanted| wanted.0);
        if stands == wanted {
            return Ok(());
        }
        let table = literal(&target.name);
        if stands.is_some() {
            link.run(&format!("SELECT {functions}.remove_{name}_policy({table}, if_exists => true)")).await?;
        }
        if let Some(wanted) = wanted {
            link.run(&format!("SELECT {functions}.add_{name}_policy({table}, {})", interval(wanted))).await?;
        }
        Ok(())
    }
}

/// Returns how long a hypertable keeps its rows, whoever has said so.
pub(super) async fn retention(link: &Link, oid: u32) -> Result<Option<Duration>, Failed> {
    age(link, oid, "policy_retention", "drop_after").await
}

/// Returns the age in a hypertable's policy. One that is a number, of a table whose times are numbers, is none here.
async fn age(link: &Link, oid: u32, procedure: &str, key: &str) -> Result<Option<Duration>, Failed> {
    let sql = "SELECT extract(epoch FROM (j.config ->> $2)::interval)::float8
        FROM timescaledb_information.jobs j
        WHERE j.proc_name = $3 AND (j.config ->> $2) ~ '[^0-9]'
        AND format('%I.%I', j.hypertable_schema, j.hypertable_name)::regclass::oid = $1";
    let rows = link.rows(sql, &[(&oid, Type::OID), (&key, Type::TEXT), (&procedure, Type::TEXT)]).await?;
    let seconds: Option<f64> = rows.first().map(|row| row.try_get(0)).transpose()?;
    Ok(seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()))
}

async fn is_hypertable(link: &Link, oid: u32) -> Result<bool, Failed> {
    Ok(!hypertable(link, oid).await?.is_empty())
}

async fn is_compressed(link: &Link, oid: u32) -> Result<bool, Failed> {
    let found = hypertable(link, oid).await?;
    found.first().map_or(Ok(false), |row| row.try_get(0))
}

async fn hypertable(link: &Link, oid: u32) -> Result<Vec<tokio_postgres::Row>, Failed> {
    let sql = "SELECT h.compression_enabled FROM timescaledb_information.hypertables h
        WHERE format('%I.%I', h.hypertable_schema, h.hypertable_name)::regclass::oid = $1";
    link.rows(sql, &[(&oid, Type::OID)]).await
}

/// Returns the time column as the table spells it.
fn time_column(table: &SinkTable) -> String {
    let schema = table.table.schema();
    let found = schema.fields().iter().find(|field| field.name().eq_ignore_ascii_case(&table.time_column));
    found.map_or_else(|| table.time_column.clone(), |field| field.name().clone())
}

/// Returns a span of the time column: of nanoseconds, where it holds these as numbers.
fn span(target: &Target, time: &str, span: Duration) -> String {
    let column = target.columns.iter().find(|column| column.name == quoted(time));
    if column.is_some_and(|column| column.form == Form::Int8) {
        return format!("BIGINT '{}'", span.as_nanos());
    }
    interval(span)
}

fn interval(span: Duration) -> String {
    format!("INTERVAL '{} microseconds'", span.as_micros())
}

/// What TimescaleDB takes of itself; numbers have no such default.
const A_WEEK: Duration = Duration::from_secs(7 * 24 * 3600);
