//! `adopt`, `sink rename | forget`, `spool rename`: what a person decides after an accident, shown in numbers before it is
//! done.

use std::{
    fmt::Display,
    io::{self, IsTerminal},
    path::Path,
    process::ExitCode,
};

use tidegate_core::{
    catalog::Catalog,
    config::shell_word,
    pipeline::remedies::{SpoolRenaming, Stopped, Trust},
};

use super::{
    AdoptArgs, Failure, Outcome, RemedyArgs, SinkArgs, SinkCommand, SpoolRenameArgs, inspect, print, run, tell,
};

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
    let (pipeline, data_dir, _) = inspect::only(catalog, file, common.host.as_deref())?;
    let renaming = SpoolRenaming::look(pipeline, &data_dir, old)?;
    if !is_wanted(&renaming, renaming.changes_something(), common)? {
        return Ok(ExitCode::SUCCESS);
    }
    run::runtime()?.block_on(renaming.rename())?;
    done(file)
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
