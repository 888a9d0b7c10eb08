//! Where sinks write on this machine: not among the engine's own files, and not where a sink of another kind does.

use std::path::{Path, PathBuf};

use super::{
    one_path,
    problem::{Problem, Spot},
    report::Report,
};

/// The file or the folder that a sink writes.
#[derive(Debug)]
pub(super) struct Place {
    /// In its one spelling.
    pub(super) path: PathBuf,
    /// The type of the sink.
    pub(super) component: String,
    pub(super) spot: Option<Spot>,
}

/// Refuses places in the folder of one of these pipelines, and one that two kinds of sinks would write.
pub(super) fn refuse<'p>(
    places: impl Iterator<Item = &'p Place> + Clone,
    data_dir: &Path,
    names: &[&str],
    report: &mut Report,
) {
    let data_dir = one_path(data_dir);
    for (number, place) in places.clone().enumerate() {
        let owner = names.iter().find(|name| place.path.starts_with(data_dir.join(name)));
        if let Some(owner) = owner {
            let problem = Problem::error(format!("here are the engine's own files of pipeline `{owner}`"));
            let problem = problem.at(place.spot.clone(), "its spool and its ledger are kept in this folder");
            report.add(problem.help(format!("write beside it: `rows/{owner}`, `{owner}.sqlite`")));
        }
        let is_taken = |other: &&Place| other.path == place.path && other.component != place.component;
        if let Some(other) = places.clone().take(number).find(is_taken) {
            let (one, another) = (&other.component, &place.component);
            let problem = Problem::error(format!("a sink of type `{one}` and one of type `{another}` have one path"));
            let problem = problem.at(place.spot.clone(), "this one").at(other.spot.clone(), "the other");
            report.add(problem.help("give each its own: none can read what the other writes"));
        }
    }
}
