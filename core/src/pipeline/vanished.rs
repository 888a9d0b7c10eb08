//! Sinks and sources that a pipeline had and that are no longer in its TOML. A name is the identity of both: a store under
//! another one would get everything again that the spool still has, and a feed under another one would begin anew, with
//! streams of which nobody knows where they were left. So nobody guesses.

use std::{fs, path::Path, sync::Arc};

use crate::{
    Result,
    config::Commands,
    delivery::{Floor, Known},
    health::{Registry, StageId},
    spool::{
        SourceInfo,
        disk::{RealDisk, trouble},
    },
};

/// A sink that is known beside the spool and stands nowhere in the TOML.
#[derive(Debug)]
pub(super) struct Vanished {
    pub(super) name: String,
    /// What the spool keeps for it.
    pub(super) floor: Floor,
    /// The first offset of the newest segment of which its store may have something; 0 for none.
    pub(super) entered: u64,
    commands: Commands,
}

impl Vanished {
    /// Returns all of them, in the order of their names.
    ///
    /// # Errors
    ///
    /// `Permanent` when the folder cannot be read, `Transient` when it cannot for now.
    pub(super) fn find(folder: &Path, sinks: &[&str], commands: &Commands) -> Result<Vec<Self>> {
        let unreadable = |error| trouble(format!("cannot read the folder `{}`", folder.display()), error);
        let mut found = Vec::new();
        for entry in fs::read_dir(folder).map_err(unreadable)? {
            let name = entry.map_err(unreadable)?.file_name();
            let Some(name) = name.to_str().and_then(|name| name.strip_suffix(".json")) else { continue };
            if !sinks.contains(&name) {
                found.push(Self::new(folder, name, commands.clone()));
            }
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    fn new(folder: &Path, name: &str, commands: Commands) -> Self {
        // Where nobody can tell what it has, it may need everything.
        let (at, entered) = match Known::open(Arc::new(RealDisk::at(folder)), name).map(|known| known.noted()) {
            Ok(noted) => (noted.position.or(noted.begins_at), noted.entered.unwrap_or_default()),
            Err(_) => (None, u64::MAX),
        };
        Self { name: name.to_owned(), floor: Floor { committed: at, replay_from: at }, entered, commands }
    }

    /// Shows it as a failed stage.
    pub(super) fn show(&self, registry: &Registry, pipeline: &str) {
        let from = self.floor.committed.map_or(1, |position| position.offset + 1);
        registry.stage(StageId::sink(pipeline, &self.name)).failed(format!(
            "is not in the TOML any more, and the spool keeps everything for it from offset {from} on; {}",
            self.remedy("NEW")
        ));
    }

    /// Says why a sink that nothing is known of has to wait.
    pub(super) fn holds_back(&self, new: &str) -> String {
        format!(
            "not opened: `[sink.{}]` is not in the TOML any more, and if this is its store under another name, rows would \
             be stored again; {}",
            self.name,
            self.remedy(new)
        )
    }

    fn remedy(&self, new: &str) -> String {
        let Self { name, commands, .. } = self;
        let (rename, forget) = (commands.rename_sink(name, new), commands.forget_sink(name));
        format!(
            "give the sink its name back, `[sink.{name}]`, or stop, and either hand over what it has: {rename}, or give it \
             up: {forget}"
        )
    }
}

/// Returns for each source of today why it has to wait, if it has to: the spool knows nothing of it, and knows one of its
/// type that is gone.
pub(super) fn renamed(today: &[SourceInfo], known: &[SourceInfo]) -> Vec<Option<String>> {
    let is_in = |sources: &[SourceInfo], name: &str| sources.iter().any(|source| &*source.name == name);
    let gone: Vec<_> = known.iter().filter(|old| !is_in(today, &old.name)).collect();
    let old_name_of = |source: &SourceInfo| {
        let old = gone.iter().find(|old| old.venue == source.venue)?;
        (!is_in(known, &source.name)).then(|| held_back(&old.name))
    };
    today.iter().map(old_name_of).collect()
}

fn held_back(old: &str) -> String {
    format!(
        "not started: `[source.{old}]` is not in the TOML any more, and if this is the same feed under another name, \
         nobody would ask for what was made since it was left, and rows could be stored again; give the source its name \
         back, `[source.{old}]`, or put a feed that is another one into a pipeline of its own"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_source_waits_where_a_known_one_of_its_type_is_gone() {
        let source =
            |name: &str, venue: &str| SourceInfo { name: name.into(), venue: venue.into(), tables: Vec::new() };
        let (old, new) = (source("deribit", "deribit"), source("venue", "deribit"));
        let other = source("other", "polygon");
        let held = |today: &[&SourceInfo], known: &[&SourceInfo]| {
            let owned = |list: &[&SourceInfo]| list.iter().map(|source| (*source).clone()).collect::<Vec<_>>();
            renamed(&owned(today), &owned(known))
        };
        let found = held(&[&new, &other], &[&old]);
        let why = found[0].as_ref().unwrap();
        assert!(why.contains("give the source its name back, `[source.deribit]`"), "{why}");
        assert_eq!(found[1], None, "it is of another type");
        assert_eq!(held(&[&old, &new], &[&old]), [None, None], "a second one beside the first");
        assert_eq!(held(&[&new], &[&old, &new]), [None], "it has streams of its own");
        assert_eq!(held(&[&new], &[]), [None], "the spool is new");
    }

    #[test]
    fn a_sink_without_its_table_is_found_with_its_position_and_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write("kept.json", r#"{"boot":"0000000000000007","offset":3}"#);
        write("gone.json", r#"{"boot":"0000000000000007","offset":5}"#);
        write("torn.json", "");
        write("kept.json.new", "");
        fs::create_dir(folder.path().join("kept")).unwrap();
        let commands = Commands::new(Path::new("eth.toml"), None);
        let found = Vanished::find(folder.path(), &["kept"], &commands).unwrap();
        let names: Vec<_> = found.iter().map(|sink| &*sink.name).collect();
        assert_eq!(names, ["gone", "torn"]);
        assert_eq!(found[0].floor.committed.unwrap().offset, 5);
        assert_eq!(found[1].floor.committed, None, "it may need everything");
        assert_eq!(found[1].entered, u64::MAX, "and may have something of every segment: none of them is dropped");
        let why = found[0].holds_back("new");
        for way in ["`[sink.gone]`", "`tidegate sink rename eth.toml gone new`", "`tidegate sink forget eth.toml gone`"]
        {
            assert!(why.contains(way), "{why}");
        }
    }
}
