//! The host file `tidegate.toml`: what is one per process, and the defaults of all pipelines.

use std::{collections::BTreeMap, net::SocketAddr, num::NonZeroU32, path::PathBuf, sync::Arc};

use figment::value::{Dict, Value};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    document::{Document, Path},
    environment::Environment,
    explain::{self, Keys},
    layers::{Layer, Layers, Variable, path},
    level::LogLevel,
    options::Options,
    places::{Place, Writer},
    problem::{Problem, Text},
    report::Report,
    resolved::{self, Setting},
    secret::Secret,
    stage,
    units::{Address, ByteSize, Duration, positive},
};
use crate::{Error, Result};

/// What is one per process.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Host {
    /// Where `/health` and `/metrics` are served, without TLS. An address that other machines reach needs a `token`.
    pub listen: Address,
    /// What a request has to bring, as `Authorization: Bearer TOKEN`; only `/health/live` answers without. A file is read at the
    /// start.
    pub token: Option<Secret>,
    /// The folder of spools, captures and dead letters, a folder per pipeline.
    pub data_dir: PathBuf,
    /// What is logged, and where.
    pub log: LogConfig,
}

impl Default for Host {
    fn default() -> Self {
        Self {
            listen: Address(SocketAddr::from(([127, 0, 0, 1], 8080))),
            token: None,
            data_dir: "data".into(),
            log: LogConfig::default(),
        }
    }
}

impl Host {
    /// Returns the token that requests have to bring; `None` where they need none.
    ///
    /// # Errors
    ///
    /// `Config` when its file cannot be read, or when no header can carry it. The message does not hold it.
    pub fn bearer_token(&self) -> Result<Option<String>> {
        let Some(token) = self.token.as_ref().map(Secret::reveal).transpose()? else { return Ok(None) };
        if token.is_empty() {
            return Err(Error::config("`token` is empty"));
        }
        if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Error::config("`token` has a character that its header cannot carry, such as a space"));
        }
        Ok(Some(token))
    }
}

/// The table `[log]`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// "error", "warn", "info", "debug", "trace" or "off", also per target: "info,tidegate_core=debug". The variable
    /// LOG_LEVEL counts where this is left out.
    pub level: LogLevel,
    /// How often each pipeline logs a line of figures; "0s" for never.
    pub stats: Duration,
    /// How often the full health report is logged as JSON; "0s" for never.
    pub report: Duration,
    /// How a line is written.
    pub format: LogFormat,
    /// A file to log into instead of the terminal.
    pub file: Option<LogFile>,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            level: LogLevel::default(),
            stats: Duration::from_secs(60),
            report: Duration::from_secs(5 * 60),
            format: LogFormat::Auto,
            file: None,
        }
    }
}

/// How a line of the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people on a terminal, as JSON elsewhere.
    Auto,
    /// For people.
    Human,
    /// As JSON.
    Json,
}

/// A log file.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LogFile {
    /// Where it is.
    pub path: PathBuf,
    /// At this size it is put aside and a new one begun.
    #[serde(default = "LogFile::default_max", deserialize_with = "positive")]
    pub max: ByteSize,
    /// So many of the old ones are kept.
    #[serde(default = "LogFile::default_keep")]
    pub keep: NonZeroU32,
}

impl LogFile {
    fn default_max() -> ByteSize {
        ByteSize::from_mib(100)
    }

    fn default_keep() -> NonZeroU32 {
        const { NonZeroU32::new(7).expect("a literal above 0") }
    }
}

/// The key of the host file that is read elsewhere: by the stages that the defaults are for.
#[derive(JsonSchema)]
struct DefaultsKey {
    #[expect(dead_code, reason = "only its name is asked for")]
    defaults: Option<bool>,
}

/// What the variables of the process that set an option begin with.
const PREFIX: &str = "TIDEGATE_";

/// Reads what is one per process; `None` when it cannot be used. `files` may name variables of the user's own.
pub(super) fn read(
    document: Option<&Document>,
    files: &[Arc<Text>],
    environment: &Environment,
    report: &mut Report,
) -> Option<HostRead> {
    let options = Options::of::<Host>();
    let log_level = BTreeMap::from([("LOG_LEVEL".to_owned(), "log.level".to_owned())]);
    let mut layers = vec![Layer::Variables(variables(&log_level, environment, report))];
    if let Some(document) = document {
        let mut dict = document.data.clone();
        dict.remove("defaults");
        misplaced(&mut dict, document, report);
        layers.push(Layer::File { document, at: Vec::new(), dict });
    }
    let known = variables_of(&options);
    let texts = files.iter().chain(document.map(|document| &document.file)).map(|file| &*file.text);
    warn_of_unknown(&known, texts.collect(), environment, report);
    layers.push(Layer::Variables(variables(&known, environment, report)));
    let layers = Layers::merge(layers);
    let secrets = options.secrets();
    stage::guard_secrets(&layers, &secrets, report);
    stage::note_secret_files(&layers, &secrets, None, report);
    let all = [options, Options::of::<DefaultsKey>()];
    let keys = Keys { table: "the host file".into(), secrets: &secrets, ..Keys::of_table("", &all) };
    let host: Host = layers.read(layers.root.clone(), &keys, report)?;
    if !is_guarded(&host, &layers, report) {
        return None;
    }
    let mut settings = Vec::new();
    resolved::collect(&layers, &[], &serde_json::to_value(&host).unwrap_or_default(), &mut settings);
    let at = path(["log", "file", "path"]);
    let log = host.log.file.as_ref().map(|file| {
        let variable = layers.variable(&at).map(|(_, variable)| variable.name.clone());
        Place::new(&file.path, Writer::Log, layers.value(&at)).by(variable)
    });
    Some(HostRead { host, settings, log })
}

/// Refuses a token that no request can bring, and an address that other machines reach without one.
fn is_guarded(host: &Host, layers: &Layers<'_>, report: &mut Report) -> bool {
    let (key, problem) = match &host.token {
        None if host.listen.0.ip().is_loopback() => return true,
        None => {
            let problem = Problem::error("`listen` is reachable from other machines, and there is no `token`");
            let help = "listen on 127.0.0.1, or set `token` in the host file, or the variable TIDEGATE_TOKEN or \
                        TIDEGATE_TOKEN_FILE";
            (path(["listen"]), problem.at(layers.value(&path(["listen"])), "").help(help))
        }
        // Whoever runs the program opens the file.
        Some(token) if token.is_in_file() => return true,
        Some(_) => match host.bearer_token() {
            Ok(_) => return true,
            Err(error) => (path(["token"]), Problem::error(error.to_string()).at(layers.value(&path(["token"])), "")),
        },
    };
    report.add(explain::with_variable(problem, layers, &key));
    false
}

/// What is one per process, as it was read.
pub(super) struct HostRead {
    pub(super) host: Host,
    /// Every value, and where it comes from.
    pub(super) settings: Vec<Setting>,
    /// Where the log is written.
    pub(super) log: Option<Place>,
}

/// Tables that belong into another version, or into another file, as the advice says.
pub(super) const MISPLACED: [(&str, Option<&str>); 7] = [
    ("notify", None),
    ("alert", None),
    ("table", Some("it belongs into a pipeline's file")),
    ("pipeline", Some("it belongs into a pipeline's file")),
    ("source", Some("it belongs into a pipeline's file; for all sources write [defaults.source]")),
    ("sink", Some("it belongs into a pipeline's file; for all sinks write [defaults.sink]")),
    ("spool", Some("it belongs into a pipeline's file; for all pipelines write [defaults.spool]")),
];

/// Takes out what belongs into another file, or another version.
fn misplaced(dict: &mut Dict, document: &Document, report: &mut Report) {
    for (name, advice) in MISPLACED {
        if dict.remove(name).is_none() {
            continue;
        }
        let spot = document.key(&path([name]));
        report.add(match advice {
            None => not_in_this_version(name).at(spot, ""),
            Some(advice) => Problem::error(format!("[{name}] in the host file")).at(spot, advice),
        });
    }
}

/// Returns the problem of a table that is planned.
pub(super) fn not_in_this_version(name: &str) -> Problem {
    let help = "take it out: /health and /metrics tell what there is to tell";
    Problem::error(format!("[{name}] is not in this version")).help(help)
}

/// Returns the variables that set options, with the keys of these: `TIDEGATE_LOG_LEVEL` and `log.level`. A secret may come from
/// a file as well: `TIDEGATE_TOKEN` and `token`, `TIDEGATE_TOKEN_FILE` and `token.file`.
pub(super) fn variables_of(options: &Options) -> BTreeMap<String, String> {
    let all = options.all();
    let files: Vec<String> =
        all.iter().filter(|option| option.is_secret).map(|option| option.key.clone() + ".file").collect();
    let keys: Vec<String> = all.into_iter().map(|option| option.key).collect();
    // A whole table cannot stand in a variable.
    let is_table =
        |key: &str| keys.iter().any(|other| other.strip_prefix(key).is_some_and(|rest| rest.starts_with('.')));
    let single = keys.iter().filter(|key| !is_table(key)).chain(&files);
    single.map(|key| (PREFIX.to_owned() + &key.replace('.', "_").to_uppercase(), key.clone())).collect()
}

/// Returns the options that variables of the process set. As in a shell, an empty one counts as not set.
fn variables(
    known: &BTreeMap<String, String>,
    environment: &Environment,
    report: &mut Report,
) -> BTreeMap<Vec<String>, Variable> {
    let mut set = BTreeMap::new();
    for (name, key) in known {
        match environment.look_up(name) {
            Some(Some(value)) if !value.is_empty() => {
                let path: Path = key.split('.').map(String::from).collect();
                set.insert(path, Variable { name: name.clone(), value: value.to_owned() });
            }
            Some(None) => report.add(Problem::error(format!("the variable {name} is not UTF-8"))),
            Some(Some(_)) | None => {}
        }
    }
    for (path, Variable { name, .. }) in &set {
        if let Some((around, of)) = path.split_last().and_then(|(_, around)| Some((around, set.get(around)?))) {
            let (key, other) = (around.join("."), &of.name);
            report.add(Problem::error(format!("both {other} and {name} set `{key}`: take one of the two away")));
        }
    }
    set
}

/// Warns of variables that look as if they set an option. One that a file names is the user's own, for `${…}`.
fn warn_of_unknown(known: &BTreeMap<String, String>, texts: Vec<&str>, environment: &Environment, report: &mut Report) {
    let unknown = environment.names(PREFIX).filter(|name| !known.contains_key(*name));
    for name in unknown.filter(|name| !texts.iter().any(|text| text.contains(name))) {
        let problem = Problem::warning(format!("the variable {name} sets nothing"));
        report.add(problem.at_with_nearest(None, name, known.keys().map(String::as_str)));
    }
}

/// Returns the table `[defaults.…]` of the host file.
pub(super) fn defaults<'d>(document: Option<&'d Document>, names: &[&str]) -> Option<&'d Dict> {
    let mut table = &document?.data;
    for name in ["defaults"].iter().chain(names) {
        let Value::Dict(_, inner) = table.get(*name)? else { return None };
        table = inner;
    }
    Some(table)
}
