//! The components that a program knows, by the name that stands behind `type =`.

use std::{
    any::type_name,
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::Arc,
};

use figment::value::Dict;
use schemars::JsonSchema;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    Error, Result,
    caught::text_of,
    chunk::SinkTable,
    config::{Faults, Keys, Layers, Mended, Options, Path, Report, explain, stage},
    log_source::LogSource,
    protocol::Protocol,
    sink::Sink,
    source::Source,
};

/// A component's configuration, which is also its constructor.
///
/// The struct is the component's TOML table without the keys that its driver reads. Derive `Deserialize` with
/// `deny_unknown_fields` and (where every option has a default) `default`, `Serialize`, which `check --resolved` shows,
/// and `JsonSchema`: the doc comments become the reference page, so every option has one.
///
/// serde's `flatten` and `untagged` forget where a mistake stands: for an option that is a text or a table, take
/// [`TextOr`](crate::config::TextOr), for a password [`Secret`](crate::config::Secret), for a number with a unit the
/// types beside them.
pub trait Component: DeserializeOwned + Serialize + JsonSchema + Send + Sync + 'static {
    /// What `type = "…"` says: the venue or store, in lower snake case.
    const TYPE: &'static str;

    /// What a first file needs besides the defaults, as lines of TOML: `instruments = ["ETH-PERPETUAL"]`.
    const EXAMPLE: &'static str = "";

    /// Whether a sink does what [`SinkTable::on_conflict`] says. One that does not stores every row, and no table of its can
    /// have a key.
    const HAS_KEYS: bool = false;

    /// Whether a sink guards the positions of two parts of a log apart: `open` takes that of [`Owner::part`] alone, and several
    /// instances, in several processes, write one part each. Who opens a part last has it: what an older one still writes is
    /// stored neither then nor later, and may open it again. Only such a sink can be fed by a
    /// [`LogSource`].
    ///
    /// [`Owner::part`]: crate::sink::Owner::part
    const GUARDS_PARTS: bool = false;

    /// Whether a sink's store drops rows that are older than [`SinkTable::retention`] says. One that does not keeps every row,
    /// and no table of its can have a retention.
    const HAS_RETENTION: bool = false;

    /// `Box<dyn Protocol>`, `Box<dyn Source>`, `Box<dyn LogSource>` or `Box<dyn Sink>`.
    type Built;

    /// Looks for what no type keeps out, and adds all of it, each with its key. By default there is nothing.
    ///
    /// Called also when some values are wrong by themselves: these were said, and have their defaults here, or are left
    /// out of their list. What is said about their keys then is not shown.
    fn check(&self, faults: &mut Faults) {
        _ = faults;
    }

    /// Builds the component; does no I/O. Called for a check that found nothing, also when values that are wrong by
    /// themselves were left out, to see which tables a source has; then once for each that is needed: a protocol per
    /// connection, a sink again after a crash.
    ///
    /// # Errors
    ///
    /// `Config` for what [`Component::check`] cannot see. It is shown at the first key of the table that the message names
    /// in backticks.
    fn build(&self) -> Result<Self::Built>;

    /// Names the store that a sink writes to, so that two sinks of a pipeline do not write a table twice: the same for
    /// two spellings of one store. By default nothing is known.
    fn store(&self) -> Option<String> {
        None
    }

    /// Returns the file or the folder that a sink of `pipeline` writes on this machine, so that it is none of the engine's own
    /// and no other sink's. It is shown at the key `path`. By default there is none.
    fn path(&self, pipeline: &str) -> Option<PathBuf> {
        _ = pipeline;
        None
    }

    /// Looks whether a sink can write these tables, as all files together name them; does no I/O. A sink calls it again
    /// in `open`, since the spool may still hold tables that no source declares any more. By default it can.
    ///
    /// # Errors
    ///
    /// `Config` for a table that the store cannot have, or an option that does not fit the tables. It is shown as for
    /// [`build`](Self::build), or at the name in `tables` that the message names in backticks; a key of a table within is
    /// named `outer.inner`.
    fn check_tables(&self, _tables: &[SinkTable]) -> Result<()> {
        Ok(())
    }
}

/// Makes a component as often as it is needed.
pub type Factory<B> = Arc<dyn Fn() -> Result<B> + Send + Sync>;

/// What a sink's configuration says about tables: [`Component::check_tables`].
pub(crate) type TableCheck = Box<dyn Fn(&[SinkTable]) -> Result<()>>;

/// Where a sink of a pipeline writes on this machine: [`Component::path`].
pub(crate) type PathOf = Box<dyn Fn(&str) -> Option<PathBuf>>;

/// What a component is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Rows come from it.
    Source,
    /// Rows go to it.
    Sink,
}

/// Why a component that exists, or will, cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unavailable {
    /// The program was built without this feature.
    Feature(&'static str),
    /// It is not there yet.
    Version,
}

/// All components that TOML files may name. Registration is explicit.
#[derive(Default)]
pub struct Catalog {
    pub(crate) protocols: Shelf<Box<dyn Protocol>>,
    pub(crate) sources: Shelf<Box<dyn Source>>,
    pub(crate) logs: Shelf<Box<dyn LogSource>>,
    pub(crate) sinks: Shelf<Box<dyn Sink>>,
    unavailable: BTreeMap<(Role, &'static str), Unavailable>,
}

impl Catalog {
    /// Adds a venue: something that speaks over a WebSocket.
    pub fn protocol<C: Component<Built = Box<dyn Protocol>>>(&mut self) -> &mut Self {
        self.protocols.add::<C>(&stage::shared_keys(Role::Source));
        self.assert_one_source(C::TYPE);
        self
    }

    /// Adds a source of another kind.
    pub fn source<C: Component<Built = Box<dyn Source>>>(&mut self) -> &mut Self {
        self.sources.add::<C>(&stage::source_keys());
        self.assert_one_source(C::TYPE);
        self
    }

    /// Adds a source that is a durable log itself.
    pub fn log<C: Component<Built = Box<dyn LogSource>>>(&mut self) -> &mut Self {
        self.logs.add::<C>(&stage::source_keys());
        self.assert_one_source(C::TYPE);
        self
    }

    /// Adds a store.
    pub fn sink<C: Component<Built = Box<dyn Sink>>>(&mut self) -> &mut Self {
        self.sinks.add::<C>(&stage::shared_keys(Role::Sink));
        self
    }

    /// Names a component that is not there, so that a file that uses it is answered with the reason. Does nothing when
    /// the component is there after all.
    pub fn unavailable(&mut self, role: Role, component: &'static str, why: Unavailable) -> &mut Self {
        self.unavailable.insert((role, component), why);
        self
    }

    /// Returns the types of a role, in the order of the alphabet.
    pub fn names(&self, role: Role) -> Vec<&'static str> {
        let mut names: Vec<_> = match role {
            Role::Source => {
                let sources = self.sources.0.keys().chain(self.logs.0.keys());
                self.protocols.0.keys().chain(sources).copied().collect()
            }
            Role::Sink => self.sinks.0.keys().copied().collect(),
        };
        names.sort_unstable();
        names
    }

    /// Returns the types of sinks that guard the positions of parts.
    pub(crate) fn guarding(&self) -> Vec<&'static str> {
        self.sinks.0.iter().filter(|(_, shelved)| shelved.entry.guards_parts).map(|(name, _)| *name).collect()
    }

    /// Returns the types that are known and not there, with the reason.
    pub(crate) fn missing(&self, role: Role) -> impl Iterator<Item = (&'static str, Unavailable)> {
        let there = self.names(role);
        let of_role = self.unavailable.iter().filter(move |((of, name), _)| *of == role && !there.contains(name));
        of_role.map(|((_, name), why)| (*name, *why))
    }

    /// Reports what is wrong with single values of a component's table.
    pub(crate) fn look_over(
        &self,
        role: Role,
        component: &str,
        layers: &Layers<'_>,
        table: Dict,
        keys: &Keys<'_>,
        report: &mut Report,
    ) {
        let protocol = || self.protocols.0.get(component).map(|shelved| shelved.look_over);
        let look_over = match role {
            Role::Source => {
                let source = || self.sources.0.get(component).map(|shelved| shelved.look_over);
                protocol().or_else(source).or_else(|| self.logs.0.get(component).map(|shelved| shelved.look_over))
            }
            Role::Sink => self.sinks.0.get(component).map(|shelved| shelved.look_over),
        };
        if let Some(look_over) = look_over {
            look_over(layers, table, keys, report);
        }
    }

    fn assert_one_source(&self, name: &str) {
        let (protocols, sources, logs) = (&self.protocols.0, &self.sources.0, &self.logs.0);
        let of = [protocols.contains_key(name), sources.contains_key(name), logs.contains_key(name)];
        assert!(of.iter().filter(|is_there| **is_there).count() == 1, "two sources are called `{name}`");
    }

    /// Returns what is known of a component without building it.
    pub(crate) fn entry(&self, role: Role, component: &str) -> Option<&Entry> {
        match role {
            Role::Source => {
                let protocol = self.protocols.0.get(component).map(|shelved| &shelved.entry);
                let source = || self.sources.0.get(component).map(|shelved| &shelved.entry);
                protocol.or_else(source).or_else(|| self.logs.0.get(component).map(|shelved| &shelved.entry))
            }
            Role::Sink => self.sinks.0.get(component).map(|shelved| &shelved.entry),
        }
    }
}

/// The components of one kind.
pub(crate) struct Shelf<B>(BTreeMap<&'static str, Shelved<B>>);

struct Shelved<B> {
    read: fn(&Layers<'_>, Dict, &Keys<'_>, &mut Report) -> Option<Made<B>>,
    look_over: fn(&Layers<'_>, Dict, &Keys<'_>, &mut Report),
    entry: Entry,
}

/// What is known of a component without building it.
pub(crate) struct Entry {
    /// Its own options, without its driver's.
    pub(crate) options: Options,
    pub(crate) example: &'static str,
    /// Whether it guards the positions of parts.
    pub(crate) guards_parts: bool,
}

/// A component that was read, and built once to see whether it can be.
pub(crate) struct Made<B> {
    pub(crate) factory: Factory<B>,
    pub(crate) first: B,
    /// The values in force, secrets hidden.
    pub(crate) values: serde_json::Value,
    /// The keys whose values were wrong: they have their defaults.
    pub(crate) wrong: Vec<Path>,
    pub(crate) store: Option<String>,
    pub(crate) path: PathOf,
    pub(crate) check_tables: TableCheck,
    /// Whether the tables of a sink may have keys.
    pub(crate) has_keys: bool,
    /// Whether the tables of a sink may have a retention.
    pub(crate) has_retention: bool,
}

impl<B> Default for Shelf<B> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<B: 'static> Shelf<B> {
    fn add<C: Component<Built = B>>(&mut self, taken: &[String]) {
        let (options, example, guards_parts) = (Options::of::<C>(), C::EXAMPLE, C::GUARDS_PARTS);
        let entry = Entry { options, example, guards_parts };
        let clash = entry.options.keys.iter().find(|key| taken.contains(key));
        assert!(clash.is_none(), "`{}` has the key {clash:?}, which its driver reads", C::TYPE);
        let earlier = self.0.insert(C::TYPE, Shelved { read: read::<C>, look_over: look_over::<C>, entry });
        assert!(earlier.is_none(), "two components are called `{}`, the second is {}", C::TYPE, type_name::<C>());
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Reads the table of the component `name`; `None` when there is none of this name.
    pub(crate) fn read(
        &self,
        name: &str,
        layers: &Layers<'_>,
        table: Dict,
        keys: &Keys<'_>,
        report: &mut Report,
    ) -> Option<Option<Made<B>>> {
        let read = self.0.get(name)?.read;
        let made = catch_unwind(AssertUnwindSafe(|| read(layers, table, keys, report)));
        Some(made.unwrap_or_else(|panic| {
            let error = Error::config(format!("the component `{name}` panicked: {}", text_of(&*panic)));
            report.add(explain::component(layers, keys, &error));
            None
        }))
    }
}

/// Reports what is wrong with single values.
fn look_over<C: Component>(layers: &Layers<'_>, table: Dict, keys: &Keys<'_>, report: &mut Report) {
    layers.read::<C>(table, keys, report);
}

fn read<C: Component>(
    layers: &Layers<'_>,
    table: Dict,
    keys: &Keys<'_>,
    report: &mut Report,
) -> Option<Made<C::Built>> {
    let Mended { value: config, wrong, has_faults } = layers.read_mended(table, keys, C::check, report)?;
    if has_faults {
        return None;
    }
    match config.build() {
        Ok(first) => {
            let values = serde_json::to_value(&config).unwrap_or_default();
            let store = config.store();
            let config = Arc::new(config);
            let of_path = config.clone();
            let path: PathOf = Box::new(move |pipeline| of_path.path(pipeline));
            let of_tables = config.clone();
            let check_tables = Box::new(move |tables: &[SinkTable]| of_tables.check_tables(tables));
            let factory = Arc::new(move || config.build());
            let (has_keys, has_retention) = (C::HAS_KEYS, C::HAS_RETENTION);
            Some(Made { factory, first, values, wrong, store, path, check_tables, has_keys, has_retention })
        }
        Err(error) => {
            // It may follow from what was left out.
            if wrong.is_empty() && !layers.is_broken(&[]) {
                report.add(explain::component(layers, keys, &error));
            }
            None
        }
    }
}
