//! `spool inspect | verify | dump`: what lies on the disk of a stopped pipeline.

use std::{
    error::Error as _,
    io,
    path::{self, Path, PathBuf},
    process::ExitCode,
};

use tidegate_core::{catalog::Catalog, config::Pipeline, pipeline::Folder, spool::inspect};

use super::{Failure, Outcome, SpoolArgs, SpoolCommand, print, reference, remedies};

pub(super) fn spool(catalog: &Catalog, args: &SpoolArgs) -> Outcome {
    match &args.command {
        SpoolCommand::Inspect(at) => {
            print(inspect::inspect(&at.spool())?)?;
            Ok(ExitCode::SUCCESS)
        }
        SpoolCommand::Verify(at) => {
            let verified = inspect::verify(&at.spool())?;
            print(&verified)?;
            Ok(if verified.sound { ExitCode::SUCCESS } else { ExitCode::from(1) })
        }
        SpoolCommand::Dump(at) => {
            let dumped = inspect::dump(&at.spool(), inspect::DumpFormat::Json, &mut io::stdout().lock());
            dumped.map_err(|error| if is_unread(&error) { Failure::unread() } else { error.into() })?;
            Ok(ExitCode::SUCCESS)
        }
        SpoolCommand::Rename(args) => remedies::rename_spool(catalog, args),
    }
}

/// Returns whether the reader of standard output is gone.
fn is_unread(error: &tidegate_core::Error) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
    cause.is_some_and(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

/// Returns the only pipeline of a file, with the folder of what its runs have written.
pub(super) fn written_by(catalog: &Catalog, file: &Path, host: Option<&Path>) -> Result<(Pipeline, Folder), Failure> {
    let (pipeline, data_dir, is_relative) = spooled(catalog, file, host)?;
    let folder = Folder::of(&data_dir, &pipeline);
    let spool = folder.spool();
    if spool.is_dir() {
        return Ok((pipeline, folder));
    }
    let why = if is_relative { ", or not from here: `data_dir` is relative to where you run" } else { "" };
    Err(Failure::usage(format!("there is no spool `{}`: the pipeline has not run yet{why}", spool.display())))
}

/// Returns the only pipeline of a file, with the folder that its dead letters are in.
pub(super) fn of_letters(catalog: &Catalog, file: &Path, host: Option<&Path>) -> Result<(Pipeline, Folder), Failure> {
    let (pipeline, data_dir, _) = only(catalog, file, host)?;
    if !pipeline.is_log() {
        return written_by(catalog, file, host);
    }
    let folder = Folder::of(&data_dir, &pipeline);
    Ok((pipeline, folder))
}

/// As [`only`], of a pipeline that has a spool: most commands look into it.
pub(super) fn spooled(
    catalog: &Catalog,
    file: &Path,
    host: Option<&Path>,
) -> Result<(Pipeline, PathBuf, bool), Failure> {
    let found = only(catalog, file, host)?;
    let (pipeline, ..) = &found;
    let Some(source) = pipeline.sources.iter().find(|_| pipeline.is_log()) else { return Ok(found) };
    Err(Failure::usage(format!(
        "`{}` has no spool and no ledger: its source `{}` is a log itself. What is not stored yet stays there, `/health` says \
         how much of each part, and the store keeps the positions. What was received and what is missing, the pipelines that \
         write into that log can say",
        pipeline.name, source.name
    )))
}

/// Returns the only pipeline of a file, the data directory, and whether that is relative in the host file.
pub(super) fn only(catalog: &Catalog, file: &Path, host: Option<&Path>) -> Result<(Pipeline, PathBuf, bool), Failure> {
    let loaded = reference::load(catalog, &[file.to_owned()], host);
    let pipelines = loaded.pipelines.len() + loaded.refused.len();
    if pipelines > 1 {
        let text = format!("`{}` holds {pipelines} pipelines: name the file of one of them", file.display());
        return Err(Failure::usage(text));
    }
    let (Some(host), Some(pipeline)) = (loaded.host, loaded.pipelines.into_iter().next()) else {
        // What is wrong with the file has been said.
        return Err(Failure::usage(""));
    };
    let data_dir = path::absolute(&host.data_dir).unwrap_or_else(|_| host.data_dir.clone());
    Ok((pipeline, data_dir, host.data_dir.is_relative()))
}
