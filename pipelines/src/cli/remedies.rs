//! `adopt`, `sink rename | forget`, `spool rename`: what a person decides after an accident, shown in numbers before it is
//! done.

use std::{
    collections::BTreeMap,
    fmt::Display,
    io::{self, IsTerminal},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Subcommand};
use tidegate_core::{
    catalog::Catalog,
    config::{self, Environment, Files, shell_word},
    pipeline::remedies::{SpoolRenaming, Stopped, Trust},
};

use super::{Failure, Outcome, inspect, print, run, tell};
use crate::host::is_named_in;

#[derive(Debug, Args)]
pub(crate) struct AdoptArgs {
    /// A pipeline file.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// A sink of it.
    #[arg(value_name = "SINK")]
    pub(crate) sink: String,
    /// Feed the store from what the spool retains.
    #[arg(long, required_unless_present = "from_store", conflicts_with = "from_store")]
    pub(crate) from_log: bool,
    /// Take the store's position.
    #[arg(long)]
    pub(crate) from_store: bool,
    #[command(flatten)]
    pub(crate) common: RemedyArgs,
}

/// What all commands have in common that change what an accident has left.
#[derive(Debug, Args)]
pub(crate) struct RemedyArgs {
    /// Do it without asking.
    #[arg(long)]
    pub(crate) yes: bool,
    /// The host file.
    #[arg(long, value_name = "FILE")]
    pub(crate) host: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tidegate sink rename eth.toml sqlite archive\n  tidegate sink forget eth.toml sqlite"
)]
pub(crate) struct SinkArgs {
    #[command(subcommand)]
    pub(crate) command: SinkCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SinkCommand {
    /// Give what is known of a sink, its dead letters and its position in the store to the new name that it has in the file.
    #[command(after_help = SINK_RENAME_HELP)]
    Rename {
        /// A pipeline file.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// The name that the sink had.
        #[arg(value_name = "OLD")]
        old: String,
        /// The name that it has now.
        #[arg(value_name = "NEW")]
        new: String,
        #[command(flatten)]
        common: RemedyArgs,
    },
    /// Give up a sink that is not in the file any more: the spool keeps nothing for it from then on.
    #[command(after_help = SINK_FORGET_HELP)]
    Forget {
        /// A pipeline file.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// The name that the sink had.
        #[arg(value_name = "NAME")]
        name: String,
        #[command(flatten)]
        common: RemedyArgs,
    },
}

const SINK_RENAME_HELP: &str = "\
Example:
  tidegate sink rename eth.toml sqlite archive

The file says [sink.archive] now, with the same store. It goes on where `sqlite` was: nothing is sent again and nothing left
out. Asked about on a terminal; otherwise --yes is needed.";

const SINK_FORGET_HELP: &str = "\
Example:
  tidegate sink forget eth.toml sqlite

What the sink had not got is counted, and lost at that sink in the ledger: see tidegate coverage. Its store is not touched,
and its dead letters stay. Asked about on a terminal; otherwise --yes is needed.";

#[derive(Debug, Args)]
pub(crate) struct SpoolRenameArgs {
    /// A pipeline file, with the new name in it.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// The name that the pipeline had.
    #[arg(value_name = "OLD")]
    pub(crate) old: String,
    #[command(flatten)]
    pub(crate) common: RemedyArgs,
}

pub(super) const SPOOL_RENAME_HELP: &str = "\
Example:
  tidegate spool rename ether.toml eth

The file says name = \"ether\" now. The folder data_dir/eth becomes data_dir/ether, the spool in it that of `ether`, and the
positions in the stores go by the new name: nothing is sent again and nothing left out, and what was made since it was left
is asked for. A spool that a start under the new name has begun makes way: it stays in the folder, and no store gets its
rows. Asked about on a terminal; otherwise --yes is needed.";

pub(super) const ADOPT_HELP: &str = "\
Examples:
  tidegate adopt eth.toml sqlite --from-log
  tidegate adopt eth.toml sqlite --from-store --yes

A sink stops with the three positions where its store, the note beside the spool and the spool do not fit. What each option
means then:

                                     --from-log                         --from-store
  the store has no position          all that the spool has is sent     goes on where the note says; what was
  (emptied, replaced, row deleted)                                      stored in the last second may come twice
  the store is ahead of the spool    sent is what lies behind the last  all that the spool has by now is left out
  (spool restored from a copy)       place that both have
  another history (spool deleted,    sent is what lies behind the last  all that the spool has by now is left out
  copied, another host's)            place that both have, else all
  the store is behind what the       all that the spool has is sent     the same
  spool still has (old backup)
  a table of the store is gone       all that the spool has is sent     it is made anew; what was in it is lost
  the note cannot be read            goes on where the store is, or,    goes on where the store is, or, without
                                     without a position, all is sent    one, leaves out what the spool has
  they fit                           nothing is done                    nothing is done

So --from-log leaves nothing out that the spool has, and what the store had got otherwise may be there twice (a table with a
`key` and on_conflict = \"ignore\" takes none of those); --from-store sends nothing of the spool twice, and what it leaves out is
lost at that sink. The ledger says so: see tidegate coverage. Where the store has rows that the spool never had (it is ahead, or of
another history), the venue is asked for that time again, whichever is chosen: what it repeats is there twice, but for such a key.
Rows are neither changed nor removed in the store.

What will happen is shown in numbers first, and asked about on a terminal; otherwise --yes is needed. Exit code 0 when it is
done, or nothing was to be done, and 2 when it was not confirmed.";

pub(super) fn adopt(catalog: &Catalog, args: &AdoptArgs) -> Outcome {
    let AdoptArgs { file, sink, from_store, common, .. } = args;
    let stopped = stopped(catalog, file, common)?;
    let trust = if *from_store { Trust::Store } else { Trust::Log };
    let runtime = run::runtime()?;
    let adoption = runtime.block_on(stopped.adoption(sink, trust))?;
    if !is_wanted(&adoption, adoption.changes_something(), common)? {
        return Ok(ExitCode::SUCCESS);
    }
    runtime.block_on(stopped.adopt(adoption))?;
    done(file)
}

pub(super) fn sink(catalog: &Catalog, args: &SinkArgs) -> Outcome {
    match &args.command {
        SinkCommand::Rename { file, old, new, common } => {
            let stopped = stopped(catalog, file, common)?;
            let runtime = run::runtime()?;
            let renaming = runtime.block_on(stopped.sink_renaming(old, new))?;
            if !is_wanted(&renaming, renaming.changes_something(), common)? {
                return Ok(ExitCode::SUCCESS);
            }
            runtime.block_on(stopped.rename_sink(renaming))?;
            done(file)
        }
        SinkCommand::Forget { file, name, common } => {
            let stopped = stopped(catalog, file, common)?;
            let forgetting = stopped.forgetting(name)?;
            if !is_wanted(&forgetting, forgetting.changes_something(), common)? {
                return Ok(ExitCode::SUCCESS);
            }
            stopped.forget(forgetting)?;
            done(file)
        }
    }
}

pub(super) fn rename_spool(catalog: &Catalog, args: &SpoolRenameArgs) -> Outcome {
    let SpoolRenameArgs { file, old, common } = args;
    let (pipeline, data_dir, _) = inspect::spooled(catalog, file, common.host.as_deref())?;
    let others = beside(catalog, (file, old), common.host.as_deref());
    let renaming = SpoolRenaming::look(pipeline, &data_dir, old, &others)?;
    if !is_wanted(&renaming, renaming.changes_something(), common)? {
        return Ok(ExitCode::SUCCESS);
    }
    run::runtime()?.block_on(renaming.rename())?;
    done(file)
}

/// Returns the pipelines that the other files of a file's folder name. What is wrong with those is not said here, and of one
/// that cannot be used nobody asks more than whether it may be that of the old name.
fn beside(catalog: &Catalog, (file, old): (&Path, &str), host: Option<&Path>) -> BTreeMap<String, PathBuf> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let loaded = config::load(catalog, Files::read(&[folder.to_owned()], host), &Environment::of_process());
    let sound = loaded.pipelines.into_iter().map(|pipeline| (pipeline.name, pipeline.file));
    let names_old = |file: &PathBuf| std::fs::read_to_string(file).is_ok_and(|text| is_named_in(&text, old));
    let refused = loaded.refused.into_iter().map(|refused| refused.file).filter(names_old);
    let refused = refused.map(|file| (old.to_owned(), file));
    let is_other = |other: &PathBuf| other.file_name() != file.file_name();
    sound.chain(refused).filter(|(_, other)| is_other(other)).collect()
}

fn stopped(catalog: &Catalog, file: &Path, common: &RemedyArgs) -> Result<Stopped, Failure> {
    let (pipeline, folder) = inspect::written_by(catalog, file, common.host.as_deref())?;
    Ok(Stopped::open(pipeline, folder)?)
}

/// Shows what will happen, and returns whether it is to happen.
fn is_wanted(outlook: &impl Display, changes_something: bool, common: &RemedyArgs) -> Result<bool, Failure> {
    print(outlook)?;
    if !changes_something || common.yes {
        return Ok(changes_something);
    }
    if !io::stdin().is_terminal() {
        return Err(Failure::usage("nothing was changed: to have it done, say --yes"));
    }
    tell("do it? [y/N] ");
    let mut answer = String::new();
    let read = io::stdin().read_line(&mut answer);
    read.map_err(|error| Failure::failed(format!("cannot read the answer: {error}")))?;
    if matches!(answer.trim(), "y" | "Y" | "yes") { Ok(true) } else { Err(Failure::usage("nothing was changed")) }
}

fn done(file: &Path) -> Outcome {
    print(format_args!("done; next: tidegate run {}\n", shell_word(file)))?;
    Ok(ExitCode::SUCCESS)
}
