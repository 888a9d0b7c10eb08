//! `run`: several pipelines in one process.

use std::process::ExitCode;

use tidegate_core::{catalog::Catalog, config::Loaded, pipeline};

use super::{Failure, Outcome, RunArgs, print, reference};
use crate::{
    host::{self, logging},
    page::in_one_line,
};

pub(super) fn run(catalog: &Catalog, args: &RunArgs) -> Outcome {
    let mut loaded = reference::load_to_use(catalog, &args.files, args.host.as_deref());
    let Some(host) = loaded.host.take() else { return Ok(ExitCode::from(2)) };
    let is_wanted = |name: &str| args.only.as_deref().is_none_or(|glob| fits(glob, name));
    let known: Vec<_> = loaded.pipelines.iter().map(|pipeline| pipeline.name.clone()).collect();
    let pipelines: Vec<_> =
        loaded.pipelines.into_iter().filter(|pipeline| pipeline.enabled && is_wanted(&pipeline.name)).collect();
    if pipelines.is_empty() {
        if loaded.report.errors() > 0 {
            return Ok(ExitCode::from(2));
        }
        let text = format!("no pipeline to run; there are: {}", known.join(", "));
        return Err(Failure::usage(format!("{text} (`enabled = false` and `--only` leave pipelines out)")));
    }
    // One that is left out need not be right. Of a file without a name nobody knows whether it is.
    let mut refused = loaded.refused;
    refused.retain(|refused| refused.name.as_deref().is_none_or(is_wanted));
    logging::start(&host.log).map_err(Failure::usage)?;
    let runtime = runtime()?;
    let plan = host::Plan { host, pipelines, known, refused, drain: args.drain, supervised: args.supervised };
    let outcome = runtime.block_on(host::run(plan));
    // What still runs after a second signal is not waited for.
    runtime.shutdown_background();
    logging::finish();
    Ok(ExitCode::from(outcome?))
}

/// Dials what the files name, prints a line for each as it comes, and returns whether all is well.
pub(super) fn check_connections(loaded: &Loaded) -> Result<bool, Failure> {
    let mut well = true;
    let runtime = runtime()?;
    let data_dir = loaded.host.as_ref().map(|host| host.data_dir.clone()).unwrap_or_default();
    for pipeline in &loaded.pipelines {
        let folder = pipeline::Folder::of(&data_dir, pipeline);
        for check in runtime.block_on(pipeline::check_connections(pipeline, &folder)) {
            let (word, found) = match check.outcome {
                Ok(found) => ("ok    ", found),
                Err(error) => ("failed", error.chain()),
            };
            well &= word == "ok    ";
            print(format_args!("{word}  {}  {}\n", check.stage, in_one_line(&found)))?;
        }
    }
    Ok(well)
}

pub(super) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.enable_all().thread_name("tidegate").max_blocking_threads(MOST_THREADS).build();
    runtime.map_err(|error| Failure::failed(format!("cannot start the runtime: {error}")))
}

/// Returns whether a name fits a pattern, in which `*` stands for any text and `?` for any character.
fn fits(pattern: &str, name: &str) -> bool {
    let mut rest = pattern.chars();
    match rest.next() {
        None => name.is_empty(),
        Some('*') => {
            name.char_indices().map(|(at, _)| at).chain([name.len()]).any(|at| fits(rest.as_str(), &name[at..]))
        }
        Some(wanted) => {
            let mut letters = name.chars();
            letters
                .next()
                .is_some_and(|letter| (wanted == '?' || wanted == letter) && fits(rest.as_str(), letters.as_str()))
        }
    }
}

/// Each pipeline and each sink keeps a thread, and so does each call that a disk holds up. They are made as they are needed.
const MOST_THREADS: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn a_pattern_fits_whole_names_only() {
        assert!(fits("deribit-*", "deribit-eth"));
        assert!(fits("*", "") && fits("*eth*", "deribit-eth-options") && fits("e?h", "eth"));
        assert!(!fits("deribit", "deribit-eth") && !fits("e?h", "eh") && !fits("*-btc", "deribit-eth"));
    }
}
