//! The engine inside a program of your own: `cargo run --example several_pipelines -- a.toml b.toml`.
//!
//! What `tidegate run` does with its command line, signals, log and HTTP, in the few calls that it rests on: read the
//! files, run each pipeline as a task, look at the registry, stop. One pipeline that fails leaves the others running.

use std::{error::Error, path::PathBuf, time::Duration};

use tidegate::{
    config::{self, Environment, Files, Look},
    health::Registry,
    http::HttpClient,
    pipeline::{self, Surroundings},
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let files: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    // The components of this build; `Catalog::default()` with your own would do as well.
    let catalog = tidegate::built_in();
    let loaded = config::load(&catalog, Files::read(&files, None), &Environment::of_process());
    eprint!("{}", loaded.report.render(Look::default()));
    let host = loaded.host.ok_or("the host file is wrong")?;

    let registry = Registry::new();
    let stop = CancellationToken::new();
    // One for all of them: they share its connections.
    let http = HttpClient::new();
    let mut running = JoinSet::new();
    for pipeline in loaded.pipelines {
        running.spawn(pipeline::run(
            pipeline,
            Surroundings {
                data_dir: host.data_dir.clone(),
                registry: registry.clone(),
                stop: stop.clone(),
                drain: Duration::from_secs(10),
                shown_at: "in this program".to_owned(),
                strays: Vec::new(),
                http: http.clone(),
            },
        ));
    }
    let asked = stop.clone();
    let on_ctrl_c = tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            asked.cancel();
        }
    });
    while let Some(ended) = running.join_next().await {
        match ended? {
            Ok(ended) => println!("{ended}"),
            Err(error) => println!("failed: {}", error.chain()),
        }
    }
    on_ctrl_c.abort();
    for (stage, check) in registry.report().checks {
        println!("{stage}: {} ({})", check.status, check.reason);
    }
    Ok(())
}
