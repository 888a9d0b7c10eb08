//! `--sink`: which store the demo writes to, read from an address. Nothing of the address is written into a file, since a
//! password may stand in it: the pipeline's file names variables, and its process has them.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use tidegate_core::config::{nearest, shell_word};

/// The store of a demo.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Sink {
    pub(super) kind: Kind,
    /// What the address says, for the pipeline's process.
    pub(super) variables: Vec<(&'static str, String)>,
    /// The address without its password.
    pub(super) shown: String,
}

/// What kind of store it is, and what differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// A file: the demo's own, or one that was named.
    Sqlite(Option<PathBuf>),
    Postgres,
    Timescale,
    QuestDb,
    Kafka,
}

/// Without what may be secret.
impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sink({})", self.shown)
    }
}

impl Default for Sink {
    fn default() -> Self {
        Self { kind: Kind::Sqlite(None), variables: Vec::new(), shown: "its own SQLite file".to_owned() }
    }
}

impl Sink {
    /// Reads an address.
    ///
    /// # Errors
    ///
    /// Why it is none, in words that quote nothing but its kind.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        // As QuestDB's own clients have it: `http::addr=localhost:9000;username=admin;password=quest;`.
        if let Some((scheme @ ("http" | "https"), settings)) = text.split_once("::") {
            return questdb_settings(scheme, settings);
        }
        let is_path = ["/", "./", "../"].iter().any(|begin| text.starts_with(begin));
        let address = text.split_once("://").or_else(|| text.split_once(':')).filter(|_| !is_path);
        let Some((scheme, rest)) = address else { return file(text) };
        match scheme {
            "sqlite" if rest.is_empty() => Err("`sqlite:` names no file: write `sqlite:demo.sqlite`".to_owned()),
            "sqlite" => Ok(sqlite(rest)),
            "postgres" | "postgresql" => postgres(Kind::Postgres, rest),
            "timescale" | "timescaledb" => postgres(Kind::Timescale, rest),
            "questdb" | "http" => questdb("http", rest),
            "questdbs" | "https" => questdb("https", rest),
            "kafka" => kafka(rest),
            unknown => Err(unknown_kind(unknown)),
        }
    }

    /// Returns the type of the sink, which is its name, too.
    pub(super) fn name(&self) -> &'static str {
        match self.kind {
            Kind::Sqlite(_) => "sqlite",
            Kind::Postgres => "postgres",
            Kind::Timescale => "timescale",
            Kind::QuestDb => "questdb",
            Kind::Kafka => "kafka",
        }
    }

    /// Returns what it promises, in short.
    pub(super) fn guarantee(&self) -> &'static str {
        match self.kind {
            Kind::Sqlite(_) | Kind::Postgres | Kind::Timescale => "exactly-once (transaction)",
            Kind::QuestDb => "exactly-once (dedup keys)",
            Kind::Kafka => "exactly-once (read_committed)",
        }
    }

    /// Returns whether it is read as a file.
    pub(super) fn is_file(&self) -> bool {
        matches!(self.kind, Kind::Sqlite(_))
    }

    /// Returns what everything of this demo is called in a store that others use, too.
    pub(super) fn pipeline(&self, seed: u64) -> String {
        if self.is_file() { "demo".to_owned() } else { format!("tidegate_demo_{seed}") }
    }

    /// Returns the name of a table of the demo in the store.
    pub(super) fn table(&self, table: &str, seed: u64) -> String {
        match self.kind {
            Kind::Sqlite(_) => table.to_owned(),
            Kind::Postgres | Kind::Timescale => format!("{}.{table}", self.pipeline(seed)),
            Kind::QuestDb | Kind::Kafka => format!("{}_{table}", self.pipeline(seed)),
        }
    }

    /// Returns the pipeline's table of this sink. `database` is what an SQLite file is called from the demo's folder.
    pub(super) fn toml(&self, seed: u64, database: &str) -> String {
        let (name, own) = (self.name(), self.pipeline(seed));
        let tables = format!("tables = {{ trades = \"{own}_trades\", tickers = \"{own}_tickers\" }}");
        let has = |name: &str| self.variables.iter().any(|(variable, _)| *variable == name);
        let options = match self.kind {
            Kind::Sqlite(None) => format!("path = \"{database}\""),
            Kind::Sqlite(Some(_)) => format!("path = \"${{{FILE}}}\""),
            Kind::Postgres | Kind::Timescale => format!("url = \"${{{URL}}}\"\nschema = \"{own}\""),
            Kind::QuestDb => {
                let user = if has(USER) { format!("\nuser = \"${{{USER}}}\"") } else { String::new() };
                let password = if has(PASSWORD) { format!("\npassword = \"${{{PASSWORD}}}\"") } else { String::new() };
                let token = if has(TOKEN) { format!("\ntoken = \"${{{TOKEN}}}\"") } else { String::new() };
                format!("url = \"${{{URL}}}\"{user}{password}{token}\nowners = \"{own}_owners\"\n{tables}")
            }
            Kind::Kafka => format!("brokers = \"${{{BROKERS}}}\"\ncreate = {{}}\n{tables}"),
        };
        format!("[sink.{name}]\n{options}\nretry = {{ first = \"100ms\", longest = \"2s\" }}\n")
    }

    /// Returns commands that show rows of the store and that take all away that this demo has put there.
    pub(super) fn commands(&self, seed: u64) -> Option<[String; 2]> {
        let (own, trades) = (self.pipeline(seed), self.table("trades", seed));
        let query = format!("select symbol, count(*) from {trades} group by 1 order by 2 desc limit 5");
        let word = |text: &str| shell_word(Path::new(text));
        let shown = word(&self.shown);
        let commands = match self.kind {
            Kind::Sqlite(_) => return None,
            Kind::Postgres | Kind::Timescale => {
                let address = word(&self.shown.replacen("timescale://", "postgres://", 1));
                let psql = |sql: &str| format!("psql {address} -c '{sql}'");
                [psql(&query), psql(&format!("drop schema {own} cascade"))]
            }
            Kind::QuestDb => {
                let ask = |sql: &str| format!("curl -G {shown}/exec --data-urlencode 'query={sql}'");
                let drop = |table: &str| ask(&format!("drop table {own}_{table}"));
                [ask(&query), ["trades", "tickers", "owners"].map(drop).join("; ")]
            }
            Kind::Kafka => {
                let brokers = word(self.shown.trim_start_matches("kafka://"));
                let read = "--from-beginning --isolation-level read_committed --max-messages 5";
                [
                    format!("kafka-console-consumer --bootstrap-server {brokers} --topic {trades} {read}"),
                    format!("kafka-topics --bootstrap-server {brokers} --delete --topic '.*{own}.*'"),
                ]
            }
        };
        Some(commands)
    }
}

fn sqlite(path: &str) -> Sink {
    let path = std::path::absolute(path).unwrap_or_else(|_| PathBuf::from(path));
    let text = path.display().to_string();
    Sink { kind: Kind::Sqlite(Some(path)), variables: vec![(FILE, text.clone())], shown: text }
}

/// Reads what has no scheme.
fn file(text: &str) -> Result<Sink, String> {
    let is_path = text.contains(['/', '.']);
    let known = KNOWN.iter().find(|(kind, _)| *kind == text);
    match known.or_else(|| near(text)) {
        Some((_, example)) if !is_path => Err(format!("`--sink` wants an address: `{example}`")),
        None if !is_path => Err(format!("`--sink` wants an address, or the path of an SQLite file: {}", known_kinds())),
        Some(_) | None => Ok(sqlite(text)),
    }
}

fn postgres(kind: Kind, rest: &str) -> Result<Sink, String> {
    if rest.is_empty() {
        return Err("the address names no database: `postgres://USER:PASSWORD@HOST:5432/DATABASE`".to_owned());
    }
    let scheme = if kind == Kind::Timescale { "timescale" } else { "postgres" };
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (login, host) = authority.rsplit_once('@').map_or((None, authority), |(login, host)| (Some(login), host));
    let user = login.map_or_else(String::new, |login| format!("{}@", login.split(':').next().unwrap_or_default()));
    // A password may stand in the query, too.
    let database = path.split('?').next().unwrap_or_default();
    let shown = format!("{scheme}://{user}{host}/{database}");
    Ok(Sink { kind, variables: vec![(URL, format!("postgres://{rest}"))], shown })
}

fn questdb(scheme: &str, rest: &str) -> Result<Sink, String> {
    let rest = rest.trim_end_matches('/');
    let (login, host) = rest.rsplit_once('@').map_or((None, rest), |(login, host)| (Some(login), host));
    let mut settings = vec![("addr", host.to_owned())];
    if let Some(login) = login {
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        settings.push(("username", decoded(user)));
        settings.push(("password", decoded(password)));
    }
    questdb_of(scheme, settings)
}

fn questdb_settings(scheme: &str, settings: &str) -> Result<Sink, String> {
    let mut read = Vec::new();
    for setting in settings.split(';').filter(|setting| !setting.is_empty()) {
        let Some((key, value)) = setting.split_once('=') else {
            return Err("of QuestDB's settings one is no `key=value`: `http::addr=localhost:9000;`".to_owned());
        };
        read.push((key, value.to_owned()));
    }
    questdb_of(scheme, read)
}

fn questdb_of(scheme: &str, settings: Vec<(&str, String)>) -> Result<Sink, String> {
    let (mut address, mut variables) = (None, Vec::new());
    for (key, value) in settings {
        match key {
            "addr" if value.contains(['/', '?']) => {
                return Err("QuestDB's address has no path: `questdb://HOST:9000`".to_owned());
            }
            "addr" if value.is_empty() => return Err("the address names no host: `questdb://HOST:9000`".to_owned()),
            "addr" if has_port(&value) => address = Some(format!("{scheme}://{value}")),
            "addr" => address = Some(format!("{scheme}://{value}:9000")),
            "username" => variables.push((USER, value)),
            "password" => variables.push((PASSWORD, value)),
            "token" => variables.push((TOKEN, value)),
            other => {
                let near = nearest(other, QUESTDB_SETTINGS).map(|near| format!(", did you mean `{near}`?"));
                let known = QUESTDB_SETTINGS.join(", ");
                return Err(format!(
                    "QuestDB's setting `{other}` is none of the demo's{}: {known}",
                    near.unwrap_or_default()
                ));
            }
        }
    }
    let Some(address) = address else { return Err("QuestDB's settings have no `addr=HOST:9000`".to_owned()) };
    variables.insert(0, (URL, address.clone()));
    Ok(Sink { kind: Kind::QuestDb, variables, shown: address })
}

fn kafka(rest: &str) -> Result<Sink, String> {
    let brokers = rest.trim_end_matches('/');
    if brokers.contains('@') {
        let text = "brokers that ask for a login are not for the demo: write a pipeline with `rdkafka = { … }`";
        return Err(format!("{text}, see `tidegate list kafka`"));
    }
    if brokers.is_empty() || brokers.contains('/') {
        return Err("brokers are wanted, with commas between them: `kafka://HOST:9092,HOST:9092`".to_owned());
    }
    let with_ports: Vec<_> = brokers
        .split(',')
        .map(|broker| if has_port(broker) { broker.to_owned() } else { format!("{broker}:9092") })
        .collect();
    let brokers = with_ports.join(",");
    Ok(Sink { kind: Kind::Kafka, shown: format!("kafka://{brokers}"), variables: vec![(BROKERS, brokers)] })
}

/// Returns whether an address ends with a port; one of IPv6 has colons of its own.
fn has_port(host: &str) -> bool {
    host.rsplit_once(':').is_some_and(|(before, port)| {
        port.bytes().all(|byte| byte.is_ascii_digit()) && (!before.contains(':') || before.ends_with(']'))
    })
}

/// Returns a text with `%40` and the like read.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let code = tail.get(..2).and_then(|code| std::str::from_utf8(code).ok());
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()).filter(|_| *first == b'%') {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn unknown_kind(scheme: &str) -> String {
    // Whoever has left the scheme out may have begun with a password.
    let is_word = scheme.len() <= 20 && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'+');
    let what = if is_word { format!("no store is of the kind `{scheme}`") } else { "no kind of store".to_owned() };
    match near(scheme) {
        Some((_, example)) => format!("{what}: did you mean `{example}`?"),
        None => format!("{what}; there are: {}", known_kinds()),
    }
}

fn near(word: &str) -> Option<&'static (&'static str, &'static str)> {
    let meant = nearest(word, KNOWN.iter().map(|(kind, _)| *kind))?;
    KNOWN.iter().find(|(kind, _)| *kind == meant)
}

fn known_kinds() -> String {
    KNOWN.iter().map(|(_, example)| format!("`{example}`")).collect::<Vec<_>>().join(", ")
}

/// Kinds, with an address of each.
const KNOWN: [(&str, &str); 5] = [
    ("postgres", "postgres://USER:PASSWORD@HOST:5432/DATABASE"),
    ("timescale", "timescale://USER:PASSWORD@HOST:5432/DATABASE"),
    ("questdb", "questdb://HOST:9000"),
    ("kafka", "kafka://HOST:9092"),
    ("sqlite", "sqlite:FILE"),
];

const QUESTDB_SETTINGS: [&str; 4] = ["addr", "username", "password", "token"];

// Not TIDEGATE_…, which are the host's keys.
const URL: &str = "DEMO_SINK_URL";
const USER: &str = "DEMO_SINK_USER";
const PASSWORD: &str = "DEMO_SINK_PASSWORD";
const TOKEN: &str = "DEMO_SINK_TOKEN";
const BROKERS: &str = "DEMO_SINK_BROKERS";
const FILE: &str = "DEMO_SINK_FILE";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_says_which_store_and_what_is_secret_of_it_is_shown_nowhere() {
        for (address, name, shown) in [
            ("postgres://me:hunter2@db:5432/feed?sslmode=require", "postgres", "postgres://me@db:5432/feed"),
            ("postgresql://db/feed?password=hunter2", "postgres", "postgres://db/feed"),
            ("timescale://me:p@hunter2@db/feed", "timescale", "timescale://me@db/feed"),
            ("questdb://admin:hunter2@quest", "questdb", "http://quest:9000"),
            ("questdbs://quest:9443/", "questdb", "https://quest:9443"),
            ("http::addr=quest:9000;username=admin;password=hunter2;", "questdb", "http://quest:9000"),
            ("http://[::1]:9000", "questdb", "http://[::1]:9000"),
            ("kafka://one,two:9093", "kafka", "kafka://one:9092,two:9093"),
            ("sqlite:/tmp/a b.sqlite", "sqlite", "/tmp/a b.sqlite"),
            ("/tmp/x:1.db", "sqlite", "/tmp/x:1.db"),
        ] {
            let sink = Sink::read(address).unwrap();
            assert_eq!((sink.name(), sink.shown.as_str()), (name, shown), "{address}");
            let toml = sink.toml(7, "demo.sqlite");
            let said = format!("{toml}{sink:?}{:?}", sink.commands(7));
            assert!(!said.contains("hunter2"), "{said}");
            assert_eq!(toml.matches("${").count(), sink.variables.len(), "each is asked for: {toml}");
        }
        let sink = Sink::read("questdb://me:p%40ss%25@quest:9000").unwrap();
        assert!(sink.variables.contains(&(PASSWORD, "p@ss%".to_owned())), "percent codes are read");
    }

    #[test]
    fn an_address_that_is_none_is_answered_with_one_that_is_and_quotes_no_secret() {
        for (address, remedy) in [
            ("postgre://me:hunter2@db/feed", "did you mean `postgres://USER:PASSWORD@HOST:5432/DATABASE`?"),
            ("mysql://me:hunter2@db/feed", "no store is of the kind `mysql`; there are: `postgres://"),
            ("me:hunter2@db/feed", "there are: `postgres://"),
            ("postgres", "wants an address: `postgres://USER"),
            ("kafak", "wants an address: `kafka://HOST:9092`"),
            ("nothing", "or the path of an SQLite file"),
            ("postgres://", "names no database"),
            ("questdb://", "names no host"),
            ("questdb://quest:9000/exec", "has no path"),
            ("http::addr=quest;pasword=hunter2;", "did you mean `password`?"),
            ("http::username=admin;", "have no `addr=HOST:9000`"),
            ("kafka://me:hunter2@broker", "see `tidegate list kafka`"),
            ("kafka://", "brokers are wanted"),
            ("sqlite:", "names no file"),
        ] {
            let why = Sink::read(address).unwrap_err();
            assert!(why.contains(remedy) && !why.contains("hunter2"), "{address}: {why}");
        }
    }
}
