//! Whether a sink that was never written to belongs to a pipeline that was renamed: another one has written to its tables.
//!
//! Two pipelines may well feed one table. What tells them from one under two names is what became of the other: one that
//! is named by a file or runs has its own spool and goes on; one whose spool lies here, and which no file names any more,
//! was renamed or given up, and only a person knows which.

use std::collections::{BTreeMap, BTreeSet};

use crate::{config::Commands, sink::Neighbour};

/// The other pipelines of the data directory.
#[derive(Debug, Clone, Default)]
pub struct Others {
    /// All that have a folder.
    pub here: BTreeSet<String>,
    /// Those that no file names and nobody runs, with the ids of their spools.
    pub strays: BTreeMap<String, u64>,
}

/// What to do about a neighbour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Advice {
    /// Nothing is written before a person has looked.
    Hold(String),
    /// It cannot be told, so it is said, and rows are written.
    Tell(String),
}

impl Others {
    /// Returns what to do about the neighbours of a sink that was never written to.
    pub(super) fn judge(&self, neighbours: &[Neighbour], commands: &Commands) -> Option<Advice> {
        let is_stray = |neighbour: &&Neighbour| self.strays.get(&neighbour.pipeline) == Some(&neighbour.spool);
        if let Some(stray) = neighbours.iter().find(is_stray) {
            let Neighbour { pipeline, .. } = stray;
            return Some(Advice::Hold(format!(
                "not written to: {}, its spool lies in the folder `{pipeline}` of the data directory, and no file names it \
                 any more. If it is this pipeline under another name, what was made since it stopped would never be asked \
                 for, and what its spool may still have never be stored. Give the pipeline its name back, \
                 `name = \"{pipeline}\"`, or stop, and give its spool and what it has stored the new one: {}; or, if this \
                 is another feed, move that folder away; then start again",
                shown(stray),
                commands.rename_spool(pipeline)
            )));
        }
        let stranger = neighbours.iter().find(|neighbour| !self.here.contains(&neighbour.pipeline))?;
        Some(Advice::Tell(format!(
            "{}, and has no spool here. If it is this pipeline under another name, what was made since it stopped is \
             missing: give it back its name and its data directory; if both are meant to write there, nothing has to be \
             done, and the next start does not say so again",
            shown(stranger)
        )))
    }
}

fn shown(neighbour: &Neighbour) -> String {
    let Neighbour { pipeline, sink, host, tables, .. } = neighbour;
    let (noun, tables) = (if tables.len() == 1 { "table" } else { "tables" }, tables.join("`, `"));
    format!("pipeline `{pipeline}`, by its sink `{sink}` on host `{host}`, has written to {noun} `{tables}`, too")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipeline_that_no_file_names_is_asked_about_and_one_that_is_not_here_is_told_of() {
        let others =
            Others { here: ["old", "other"].map(str::to_owned).into(), strays: [("old".to_owned(), 7)].into() };
        let neighbour = |pipeline: &str, spool| Neighbour {
            pipeline: pipeline.to_owned(),
            sink: "sqlite".to_owned(),
            spool,
            host: "here".to_owned(),
            tables: vec!["trades".to_owned()],
        };
        let judge =
            |neighbours: &[Neighbour]| others.judge(neighbours, &Commands::new(std::path::Path::new("eth.toml"), None));
        assert_eq!(judge(&[]), None);
        assert_eq!(judge(&[neighbour("other", 8)]), None, "two feeds in one table");
        assert_eq!(judge(&[neighbour("old", 8)]), None, "another history of that name");
        let told = judge(&[neighbour("other", 8), neighbour("elsewhere", 9)]);
        assert!(matches!(told, Some(Advice::Tell(text)) if text.contains("pipeline `elsewhere`")));
        let Some(Advice::Hold(held)) = judge(&[neighbour("elsewhere", 9), neighbour("old", 7)]) else { panic!() };
        assert!(held.contains("`name = \"old\"`") && held.contains("`tidegate spool rename eth.toml old`"), "{held}");
    }
}
