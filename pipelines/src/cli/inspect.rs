//! `spool inspect | verify | dump`, `deadletter list`: what lies on the disk of a stopped pipeline.

use std::process::ExitCode;

use tidegate_core::{catalog::Catalog, deadletter, spool::inspect};

use super::{DeadletterArgs, DeadletterCommand, Failure, Outcome, SpoolArgs, SpoolCommand, reference};

pub(super) fn spool(args: &SpoolArgs) -> Outcome {
    match &args.command {
        SpoolCommand::Inspect(at) => {
            print!("{}", inspect::inspect(&at.dir)?);
            Ok(ExitCode::SUCCESS)
        }
        SpoolCommand::Verify(at) => {
            let verified = inspect::verify(&at.dir)?;
            print!("{verified}");
            Ok(if verified.sound { ExitCode::SUCCESS } else { ExitCode::from(1) })
        }
        SpoolCommand::Dump(at) => {
            inspect::dump(&at.dir, inspect::DumpFormat::Json, &mut std::io::stdout().lock())?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

pub(super) fn deadletters(catalog: &Catalog, args: &DeadletterArgs) -> Outcome {
    let DeadletterCommand::List { file, host } = &args.command;
    let loaded = reference::load(catalog, std::slice::from_ref(file), host.as_deref());
    let (Some(host), Some(pipeline)) = (&loaded.host, loaded.pipelines.first()) else { return Ok(ExitCode::from(2)) };
    let mut count = 0_u64;
    for sink in &pipeline.sinks {
        let path = tidegate_core::pipeline::Folder::of(&host.data_dir, pipeline).dead_letters(&sink.name);
        if !path.exists() {
            continue;
        }
        let listing = deadletter::list(&path)?;
        if listing.unreadable > 0 {
            eprintln!("{}: {} lines cannot be read", path.display(), listing.unreadable);
        }
        for letter in listing.letters {
            let line = serde_json::to_string(&letter).map_err(|error| Failure::failed(error.to_string()))?;
            println!("{line}");
            count += 1;
        }
    }
    eprintln!("{count} dead letters of {}", pipeline.name);
    Ok(ExitCode::SUCCESS)
}
