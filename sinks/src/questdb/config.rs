//! The keys of `[sink.NAME]` with `type = "questdb"`.

use std::{collections::BTreeMap, path::PathBuf, time};

use questdb::ingress::{ColumnName, TableName};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidegate_core::{
    Error, Result,
    catalog::Component,
    chunk::SinkTable,
    config::{ByteSize, Duration, Faults, OnConflict, Secret, positive},
    sink::Sink,
};

use super::{schema::TG_COLUMNS, sink::QuestDb};

/// Stores rows in QuestDB, over HTTP: exactly once in the tables that it makes.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QuestDbConfig {
    /// Where QuestDB listens for HTTP, without a path: `http://127.0.0.1:9000`. With `https` a certificate of the system's
    /// roots, or of `extra_ca`.
    pub url: String,
    /// The user, for basic authentication.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The user's password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// A REST token, in place of user and password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Secret>,
    /// A PEM file with certificates to trust besides the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extra_ca: Option<PathBuf>,
    /// Makes missing tables and columns, and `owners`. Without it nothing is made: the sink stops and shows the statements.
    #[serde(default = "create")]
    pub create: bool,
    /// How much time one partition of a new table holds.
    #[serde(default)]
    pub partition: Partition,
    /// How long QuestDB keeps rows of a new table, in whole partitions. Without it, for ever. A row that comes older than
    /// that is refused: QuestDB would take it and drop it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Duration>,
    /// The times of new tables.
    #[serde(default)]
    pub timestamps: Timestamps,
    /// What holds unsigned integers in new tables.
    #[serde(default)]
    pub unsigned: Unsigned,
    /// Where single tables differ, by their names here: `{ trades = { partition = "hour", ttl = "90d" } }`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub layout: BTreeMap<String, Layout>,
    /// The longest body of a request. What a chunk has more of one table goes in several.
    #[serde(default = "request_bytes", deserialize_with = "positive")]
    pub request_bytes: ByteSize,
    /// The table that says who writes. All pipelines of one QuestDB share it.
    #[serde(default = "owners")]
    pub owners: String,
}

/// What differs for one table.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Layout {
    /// How much time one partition holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition: Option<Partition>,
    /// How long rows are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Duration>,
}

/// The time that one partition holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Partition {
    /// An hour.
    Hour,
    /// A day, by UTC.
    #[default]
    Day,
    /// A week, from Monday on.
    Week,
    /// A month.
    Month,
    /// A year.
    Year,
}

/// What holds a time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum Timestamps {
    /// `TIMESTAMP_NS`: nanoseconds, as they came.
    #[default]
    #[serde(rename = "ns")]
    Nanoseconds,
    /// `TIMESTAMP`: microseconds; what is below is cut off. Such tables cannot be compared row by row by `tidegate verify`.
    #[serde(rename = "us")]
    Microseconds,
}

/// What holds an unsigned integer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unsigned {
    /// `LONG`, 8 bytes: a number beyond 2^63 − 1 makes its row a dead letter.
    #[default]
    Long,
    /// `DECIMAL(20,0)`, 16 bytes: all of them. QuestDB 9.2 or newer.
    Decimal,
}

impl Partition {
    /// Returns the word of QuestDB, and its unit of a TTL with the longest time that one may be.
    pub(super) fn word(self) -> (&'static str, time::Duration) {
        let hours = |hours: u64| time::Duration::from_secs(hours * 3_600);
        match self {
            Self::Hour => ("HOUR", hours(1)),
            Self::Day => ("DAY", hours(24)),
            Self::Week => ("WEEK", hours(7 * 24)),
            Self::Month => ("MONTH", hours(31 * 24)),
            Self::Year => ("YEAR", hours(366 * 24)),
        }
    }
}

impl QuestDbConfig {
    /// Returns how a table is laid out.
    pub(super) fn layout_of(&self, table: &SinkTable) -> (Partition, Option<Duration>) {
        let (partition, ttl) = self.layout_by_name(&table.table.name);
        (partition, table.retention.or(ttl))
    }

    fn layout_by_name(&self, table: &str) -> (Partition, Option<Duration>) {
        let own = self.layout.get(table).cloned().unwrap_or_default();
        (own.partition.unwrap_or(self.partition), own.ttl.or(self.ttl))
    }
}

impl Component for QuestDbConfig {
    const TYPE: &'static str = "questdb";
    const EXAMPLE: &'static str = "url = \"http://127.0.0.1:9000\"";
    const HAS_KEYS: bool = true;
    const HAS_RETENTION: bool = true;
    type Built = Box<dyn Sink>;

    fn check(&self, faults: &mut Faults) {
        if let Some(why) = wrong_url(&self.url) {
            faults.at("url", why);
        }
        match (&self.user, &self.password, &self.token) {
            (Some(_), None, _) => _ = faults.at("user", "`user` has no `password`"),
            (None, Some(_), _) => _ = faults.at("password", "`password` has no `user`"),
            (Some(_), Some(_), Some(_)) => _ = faults.at("token", "`token` is in place of `user` and `password`"),
            (None, None, _) | (Some(_), Some(_), None) => {}
        }
        if let Some(why) = wrong_ttl(self.partition, self.ttl) {
            faults.at("ttl", why);
        }
        for name in self.layout.keys() {
            let (partition, ttl) = self.layout_by_name(name);
            if let Some(why) = wrong_ttl(partition, ttl) {
                faults.within("layout", |faults| _ = faults.at(name, why));
            }
        }
        if let Err(error) = check_name(&self.owners) {
            faults.at("owners", error.to_string());
        }
    }

    fn build(&self) -> Result<Self::Built> {
        Faults::of(self).into_result()?;
        Ok(Box::new(QuestDb::new(self.clone())))
    }

    fn store(&self) -> Option<String> {
        Some(format!("questdb {}", self.url.trim_end_matches('/')))
    }

    fn check_tables(&self, tables: &[SinkTable]) -> Result<()> {
        for name in self.layout.keys() {
            if !tables.iter().any(|table| *table.table.name == **name) {
                let known: Vec<_> = tables.iter().map(|table| &*table.table.name).collect();
                return Err(Error::config(format!(
                    "`layout` names table `{name}`, which this sink does not take; it takes: {}",
                    known.join(", ")
                )));
            }
        }
        for table in tables.iter().filter(|table| table.retention.is_some()) {
            let name = &table.table.name;
            if self.layout.get(&**name).is_some_and(|own| own.ttl.is_some()) {
                let text = format!("`tables.{name}.retention`: `layout.{name}.ttl` says it too: one of them is enough");
                return Err(Error::config(text));
            }
            let (partition, ttl) = self.layout_of(table);
            if let Some(why) = wrong_ttl(partition, ttl) {
                return Err(Error::config(format!("`tables.{name}.retention` is QuestDB's TTL: {why}")));
            }
        }
        for (n, table) in tables.iter().enumerate() {
            check_name(&table.name)?;
            let is_same = |name: &str| name.eq_ignore_ascii_case(&table.name);
            if is_same(&self.owners) {
                return Err(Error::config(format!("table `{}` is the one that `owners` names", table.name)));
            }
            if let Some(other) = tables[..n].iter().find(|other| is_same(&other.name)) {
                let (one, other) = (&other.name, &table.name);
                return Err(Error::config(format!("tables `{one}` and `{other}` are one for QuestDB")));
            }
            check_table(table)?;
        }
        Ok(())
    }
}

fn check_table(table: &SinkTable) -> Result<()> {
    let name = &table.name;
    for field in table.table.schema().fields() {
        let column = field.name();
        if TG_COLUMNS.iter().any(|ours| ours.eq_ignore_ascii_case(column)) {
            return Err(Error::config(format!("column `{column}` of table `{name}` has a name that the sink needs")));
        }
        ColumnName::new(column).map_err(|error| {
            Error::config(format!("QuestDB has no column `{column}` of table `{name}`: {}", error.msg()))
        })?;
    }
    match table.on_conflict {
        OnConflict::Append | OnConflict::Replace => {}
        OnConflict::Ignore | OnConflict::Refuse => {
            return Err(Error::config(format!(
                "`on_conflict` of table `{name}`: QuestDB appends rows, or replaces those of a key; it cannot tell that one \
                 was there"
            )));
        }
    }
    if let Some(column) = table.key.iter().find(|column| !table.has_column(column)) {
        return Err(Error::config(format!("the key of table `{name}` names column `{column}`, which it lacks")));
    }
    Ok(())
}

/// Checks the name of a table, by QuestDB's own rules.
fn check_name(name: &str) -> Result<()> {
    let named = TableName::new(name).map(drop).map_err(|error| error.msg().to_owned());
    let why = match named {
        Err(why) => why,
        Ok(()) if name.trim() != name => "it begins or ends with a space".to_owned(),
        Ok(()) if name.len() > LONGEST_NAME => format!("it is longer than {LONGEST_NAME} bytes"),
        Ok(()) => return Ok(()),
    };
    Err(Error::config(format!("QuestDB has no table `{name}`: {why}")))
}

fn wrong_url(url: &str) -> Option<String> {
    let Ok(parsed) = reqwest::Url::parse(url) else {
        return Some("`url` is no address: http://HOST:9000".to_owned());
    };
    if !matches!(parsed.scheme(), "http" | "https") {
        return Some("`url` begins with http:// or https://".to_owned());
    }
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Some("`url` holds a user or password: these are keys of their own, `user` and `password`".to_owned());
    }
    let is_bare = matches!(parsed.path(), "" | "/") && parsed.query().is_none() && parsed.fragment().is_none();
    (!is_bare).then(|| "`url` ends with the port: the sink knows QuestDB's paths".to_owned())
}

fn wrong_ttl(partition: Partition, ttl: Option<Duration>) -> Option<String> {
    let ttl = ttl?;
    let (word, _) = partition.word();
    match partition {
        Partition::Month | Partition::Year => {
            Some(format!("`ttl` with partitions of a {} is no number of them", word.to_ascii_lowercase()))
        }
        Partition::Hour | Partition::Day | Partition::Week if ttl_of(partition, ttl).is_none() => {
            Some(format!("`ttl` has to be a whole number of partitions, which are of a {}", word.to_ascii_lowercase()))
        }
        Partition::Hour | Partition::Day | Partition::Week => None,
    }
}

/// Returns how many partitions are kept.
pub(super) fn ttl_of(partition: Partition, ttl: Duration) -> Option<u64> {
    let (_, one) = partition.word();
    let (ttl, one) = (ttl.0.as_nanos(), one.as_nanos());
    (ttl > 0 && ttl.is_multiple_of(one)).then(|| u64::try_from(ttl / one).ok()).flatten()
}

/// `cairo.max.file.name.length` of a server as it comes.
const LONGEST_NAME: usize = 127;

fn create() -> bool {
    true
}

fn request_bytes() -> ByteSize {
    ByteSize::from_mib(16)
}

fn owners() -> String {
    "tidegate_owners".to_owned()
}
