//! The keys of `[sink.NAME]` with `type = "postgres"` and `type = "timescale"`.

use std::{collections::BTreeMap, path::PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidegate_core::{
    Error, Result,
    catalog::Component,
    chunk::SinkTable,
    config::{Duration, Faults, Secret, positive},
    sink::Sink,
};

use super::{address::Address, schema, sink::Postgres};

/// The options that both have, once. serde's `flatten` would forget where a mistake in the file stands.
macro_rules! config {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $field:ident: $kind:ty,)* }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            /// Where the database is: `postgres://USER:PASSWORD@HOST:PORT/DATABASE`, by `"${DATABASE_URL}"` or
            /// `{ file = "…" }`. `?sslmode=require` (or `verify-full`: the same here) demands TLS, `disable` forbids it;
            /// without it TLS is taken where the server has it, but not on this machine itself. Its certificate is always verified.
            pub url: Secret,
            /// The password, where it does not stand in `url`.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub password: Option<Secret>,
            /// The schema that the tables and `tidegate_position` are in; without it, the first one of the user's `search_path`.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub schema: Option<String>,
            /// Makes what is missing: the schema, tables, columns, the unique indexes of keys, and `tidegate_position`, which holds
            /// the position. Without it nothing is made: the sink stops and shows the statements to run. A table that
            /// somebody else has made gets columns only: the index of its key is for them to make.
            #[serde(default = "create")]
            pub create: bool,
            /// What times become in tables that are made: `timestamptz` holds microseconds, what is below is cut off; `bigint` holds
            /// UTC nanoseconds. A table that is there may have either.
            #[serde(default)]
            pub times: Times,
            /// What unsigned integers become in tables that are made: `numeric` holds all of them; `bigint` is smaller and
            /// faster, and rows with a number beyond 2^63 − 1 become dead letters.
            #[serde(default)]
            pub unsigned: Unsigned,
            /// Columns that become `numeric` instead of `double precision` in tables that are made, in whichever table: each
            /// number has the digits that the venue sent, up to 15 or more.
            #[serde(default, skip_serializing_if = "Vec::is_empty")]
            pub numeric: Vec<String>,
            /// Columns whose numbers may be rounded to what the table holds: `numeric(8,6)`, `real`. Without it a row is a
            /// dead letter if `numeric(8,6)` would change it, and a table with a `real` is not written to at all.
            #[serde(default, skip_serializing_if = "Vec::is_empty")]
            pub round: Vec<String>,
            /// Whom to trust, and who we are, where that is not the system's to say.
            #[serde(default)]
            pub tls: Tls,
            /// How long connecting may take.
            #[serde(default = "connect_timeout", deserialize_with = "positive")]
            pub connect_timeout: Duration,
            /// How long any statement may take, but for those that carry rows.
            #[serde(default = "statement_timeout", deserialize_with = "positive")]
            pub statement_timeout: Duration,
            /// How long a statement that carries rows may take, and the longest that the server lets a transaction of ours
            /// wait for us, should this host be gone. A whole write is bounded by `timeout` besides.
            #[serde(default = "bulk_timeout", deserialize_with = "positive")]
            pub bulk_timeout: Duration,
            /// How long opening waits for a lock of somebody else's. Then older sessions of this sink are ended, as one is that
            /// is left of a host which vanished.
            #[serde(default = "lock_timeout", deserialize_with = "positive")]
            pub lock_timeout: Duration,
            $($(#[$doc])* pub $field: $kind,)*
        }

        impl $name {
            pub(super) fn settings(&self) -> Settings {
                Settings {
                    url: self.url.clone(),
                    password: self.password.clone(),
                    schema: self.schema.clone(),
                    create: self.create,
                    times: self.times,
                    unsigned: self.unsigned,
                    numeric: self.numeric.clone(),
                    round: self.round.clone(),
                    tls: self.tls.clone(),
                    connect_timeout: self.connect_timeout,
                    statement_timeout: self.statement_timeout,
                    bulk_timeout: self.bulk_timeout,
                    lock_timeout: self.lock_timeout,
                    hypertables: None,
                }
            }
        }
    };
}

config! {
    /// Stores rows in PostgreSQL 12 or newer, with the position in the same transaction: exactly once.
    PostgresConfig {}
}

config! {
    /// Stores rows in TimescaleDB 2.11 or newer, with the position in the same transaction: exactly once. Tables that are made
    /// become hypertables, but for those whose key lacks the time column.
    TimescaleConfig {
        /// What holds for every hypertable.
        #[serde(default)]
        hypertable: Hypertable,
        /// What differs for some, by the tables' names in this file: `{ status = { retention = "90d" } }`.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        hypertables: BTreeMap<String, Hypertable>,
    }
}

/// Settings of a hypertable. They are applied at each start to tables that this sink has made, never to others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Hypertable {
    /// How much time a chunk spans; without it, TimescaleDB's own choice: "7d".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<Duration>,
    /// Chunks that are older are compressed, by symbol; without it none is. Rows that come later still go into them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compress_after: Option<Duration>,
    /// Chunks that are older are dropped; without it none is. Rows that are older when they come are dead letters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention: Option<Duration>,
}

/// What times become.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Times {
    /// Microseconds, which Postgres calls a time.
    #[default]
    Timestamptz,
    /// UTC nanoseconds.
    Bigint,
}

/// What unsigned integers become.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Unsigned {
    /// All of them.
    #[default]
    Numeric,
    /// Those up to 2^63 − 1.
    Bigint,
}

/// Certificates.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// A PEM file with the authorities that are trusted instead of the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// A PEM file with the certificate that we show, and those between it and its authority.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// A PEM file with that certificate's private key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
}

/// What the sink works with, whichever type it has.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) url: Secret,
    pub(super) password: Option<Secret>,
    pub(super) schema: Option<String>,
    pub(super) create: bool,
    pub(super) times: Times,
    pub(super) unsigned: Unsigned,
    pub(super) numeric: Vec<String>,
    pub(super) round: Vec<String>,
    pub(super) tls: Tls,
    pub(super) connect_timeout: Duration,
    pub(super) statement_timeout: Duration,
    pub(super) bulk_timeout: Duration,
    pub(super) lock_timeout: Duration,
    /// `None` for plain Postgres.
    pub(super) hypertables: Option<Hypertables>,
}

/// The settings of all hypertables.
#[derive(Debug, Clone, Default)]
pub(super) struct Hypertables {
    pub(super) all: Hypertable,
    pub(super) some: BTreeMap<String, Hypertable>,
}

impl Hypertables {
    /// Returns the settings of a table; `None` for one that stays a plain table.
    pub(super) fn of(&self, table: &SinkTable) -> Option<Hypertable> {
        if !table.key.is_empty() && !has_time(table) {
            return None;
        }
        let own = self.some.get(&*table.table.name).cloned().unwrap_or_default();
        let Hypertable { interval, compress_after, retention } = self.all;
        Some(Hypertable {
            interval: own.interval.or(interval),
            compress_after: own.compress_after.or(compress_after),
            retention: table.retention.or(own.retention).or(retention),
        })
    }

    fn check(&self, times: Times, faults: &mut Faults) {
        let with_policies = |hypertable: &Hypertable| {
            [("compress_after", hypertable.compress_after), ("retention", hypertable.retention)]
                .into_iter()
                .filter_map(|(key, value)| value.map(|_| key))
                .collect::<Vec<_>>()
        };
        let look = |keys: Vec<&str>, faults: &mut Faults| {
            for key in keys.into_iter().filter(|_| times == Times::Bigint) {
                faults
                    .at(key, format!("`{key}` needs `times = \"timestamptz\"`: TimescaleDB knows no age of a number"));
            }
        };
        faults.within("hypertable", |faults| look(with_policies(&self.all), faults));
        faults.within("hypertables", |faults| {
            for (name, hypertable) in &self.some {
                faults.within(name, |faults| look(with_policies(hypertable), faults));
            }
        });
    }

    fn check_tables(&self, times: Times, tables: &[SinkTable]) -> Result<()> {
        for table in tables.iter().filter(|table| table.retention.is_some()) {
            let name = &table.table.name;
            let why = if times == Times::Bigint {
                "TimescaleDB knows no age of a number: it needs `times = \"timestamptz\"`".to_owned()
            } else if self.some.get(&**name).is_some_and(|own| own.retention.is_some()) {
                format!("`hypertables.{name}` says it too: one of them is enough")
            } else if self.of(table).is_none() {
                let (time, key) = (&table.time_column, table.key.join(", "));
                format!("only a hypertable has one, whose key holds its time column `{time}`, and this one is {key}")
            } else {
                continue;
            };
            return Err(Error::config(format!("`tables.{name}.retention`: {why}")));
        }
        for name in self.some.keys() {
            let Some(table) = tables.iter().find(|table| *table.table.name == **name) else {
                let known: Vec<_> = tables.iter().map(|table| &*table.table.name).collect();
                let known = known.join("`, `");
                return Err(Error::config(format!(
                    "`hypertables.{name}`: the sink has no such table, it has `{known}`"
                )));
            };
            if self.of(table).is_none() {
                let (time, key) = (&table.time_column, table.key.join(", "));
                return Err(Error::config(format!(
                    "`hypertables.{name}`: a hypertable's key has to hold its time column `{time}`, and this one is {key}"
                )));
            }
        }
        Ok(())
    }
}

fn has_time(table: &SinkTable) -> bool {
    table.key.iter().any(|column| column.eq_ignore_ascii_case(&table.time_column))
}

impl Settings {
    /// Builds the sink. What is wrong was found before.
    fn sink(self) -> Box<dyn Sink> {
        Box::new(Postgres::new(self))
    }

    fn check(&self, faults: &mut Faults) {
        if let Ok(url) = self.url.reveal()
            && let Err(error) = Address::parse(&url)
        {
            faults.at("url", error);
        }
        if let Some(schema) = &self.schema
            && let Err(error) = schema::check_identifier(schema)
        {
            faults.at("schema", format!("`schema`: {error}"));
        }
        let Tls { certificate, key, .. } = &self.tls;
        faults.within("tls", |faults| match (certificate, key) {
            (Some(_), None) => drop(faults.at("certificate", "`certificate` needs its `key`")),
            (None, Some(_)) => drop(faults.at("key", "`key` needs its `certificate`")),
            (Some(_), Some(_)) | (None, None) => {}
        });
        if let Some(hypertables) = &self.hypertables {
            hypertables.check(self.times, faults);
        }
    }

    /// Names the store: the same for two spellings of one.
    fn named(&self) -> Option<String> {
        let address = Address::parse(&self.url.reveal().ok()?).ok()?;
        let schema = self.schema.as_deref().unwrap_or("");
        // One server may be written to by both types.
        Some(format!("postgres {} {schema}", address.shown()))
    }

    pub(super) fn check_tables(&self, tables: &[SinkTable]) -> Result<()> {
        for (n, table) in tables.iter().enumerate() {
            schema::check_table(table)?;
            if let Some(other) = tables[..n].iter().find(|other| other.name == table.name) {
                return Err(Error::config(format!("two tables are called `{}`", other.name)));
            }
        }
        self.hypertables.as_ref().map_or(Ok(()), |hypertables| hypertables.check_tables(self.times, tables))
    }
}

impl Component for PostgresConfig {
    const TYPE: &'static str = "postgres";
    const EXAMPLE: &'static str = EXAMPLE;
    const HAS_KEYS: bool = true;
    const GUARDS_PARTS: bool = true;
    type Built = Box<dyn Sink>;

    fn check(&self, faults: &mut Faults) {
        self.settings().check(faults);
    }

    fn build(&self) -> Result<Self::Built> {
        Faults::of(self).into_result()?;
        Ok(self.settings().sink())
    }

    fn store(&self) -> Option<String> {
        self.settings().named()
    }

    fn check_tables(&self, tables: &[SinkTable]) -> Result<()> {
        self.settings().check_tables(tables)
    }
}

impl TimescaleConfig {
    pub(super) fn with_hypertables(&self) -> Settings {
        let hypertables = Hypertables { all: self.hypertable.clone(), some: self.hypertables.clone() };
        Settings { hypertables: Some(hypertables), ..self.settings() }
    }
}

impl Component for TimescaleConfig {
    const TYPE: &'static str = "timescale";
    const EXAMPLE: &'static str = EXAMPLE;
    const HAS_KEYS: bool = true;
    const GUARDS_PARTS: bool = true;
    const HAS_RETENTION: bool = true;
    type Built = Box<dyn Sink>;

    fn check(&self, faults: &mut Faults) {
        self.with_hypertables().check(faults);
    }

    fn build(&self) -> Result<Self::Built> {
        Faults::of(self).into_result()?;
        Ok(self.with_hypertables().sink())
    }

    fn store(&self) -> Option<String> {
        self.with_hypertables().named()
    }

    fn check_tables(&self, tables: &[SinkTable]) -> Result<()> {
        self.with_hypertables().check_tables(tables)
    }
}

/// The variable that `scripts/services start` prints, or a server as a package starts it.
const EXAMPLE: &str = "url = \"${DATABASE_URL:-postgres://postgres@127.0.0.1:5432/postgres}\"";

fn create() -> bool {
    true
}

fn connect_timeout() -> Duration {
    Duration::from_secs(10)
}

fn statement_timeout() -> Duration {
    Duration::from_secs(30)
}

fn bulk_timeout() -> Duration {
    Duration::from_secs(60)
}

fn lock_timeout() -> Duration {
    Duration::from_secs(5)
}
