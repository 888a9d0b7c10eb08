//! `check`, `list`, `new`, `schema`, `graph`: what can be said without running anything.

use std::{
    io::{self, IsTerminal},
    path::{Path, PathBuf},
    process::ExitCode,
};

use tidegate_core::{
    catalog::Catalog,
    config::{self, Environment, Files, Loaded, Look, Shipped},
};

use super::{CheckArgs, Failure, GraphArgs, ListArgs, NewArgs, Outcome, SchemaArgs, look, print, tell};

/// Reads the files and shows what is wrong with them on standard error.
pub(super) fn load(catalog: &Catalog, files: &[PathBuf], host: Option<&Path>) -> Loaded {
    shown(config::load(catalog, Files::read(files, host), &Environment::of_process()))
}

/// Reads the files, and those that hold their secrets, to use them on this machine.
pub(super) fn load_to_use(catalog: &Catalog, files: &[PathBuf], host: Option<&Path>) -> Loaded {
    let mut loaded = config::load(catalog, Files::read(files, host), &Environment::of_process());
    loaded.open_secrets();
    shown(loaded)
}

fn shown(loaded: Loaded) -> Loaded {
    if loaded.report.errors() + loaded.report.warnings() > 0 {
        tell(loaded.report.render(look()));
    }
    loaded
}

pub(super) fn check(catalog: &Catalog, args: &CheckArgs) -> Outcome {
    // Without dialling it looks at nothing but the files themselves: they may be checked where the secrets are not.
    let load = if args.connect { load_to_use } else { load };
    let loaded = load(catalog, &args.files, args.host.as_deref());
    let code = loaded.report.exit_code(args.strict);
    if args.resolved {
        // Whoever reads it by a program wants a line for each value.
        let is_read_by_eye = io::stdout().is_terminal();
        let look = if is_read_by_eye { look() } else { Look { width: usize::MAX, ..Look::default() } };
        print(config::resolved(&loaded, look))?;
    }
    if loaded.report.errors() == 0 {
        // What was found to warn of has said so already, with the same words at its end.
        if loaded.report.warnings() == 0 {
            print(format_args!("{}\n", loaded.report.summary()))?;
        }
        if args.connect {
            return super::run::check_connections(&loaded)
                .map(|well| if well { ExitCode::from(code) } else { ExitCode::from(1) });
        }
    }
    Ok(ExitCode::from(code))
}

/// The pipelines that come with the program.
const SHIPPED: [Shipped<'_>; 1] =
    [Shipped { path: "pipelines/deribit-eth-options.toml", text: include_str!("../../deribit-eth-options.toml") }];

pub(super) fn list(catalog: &Catalog, args: &ListArgs) -> Outcome {
    match &args.component {
        None => print(config::list(catalog, look()))?,
        Some(component) => {
            let page = config::list_component(catalog, component, look(), &SHIPPED);
            print(page.map_err(|error| Failure::usage(error.to_string()))?)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn new(catalog: &Catalog, args: &NewArgs) -> Outcome {
    let text = config::template(catalog, &args.source, &args.sink);
    print(text.map_err(|error| Failure::usage(error.to_string()))?)?;
    tell("next: tidegate check FILE, then tidegate run FILE\n");
    Ok(ExitCode::SUCCESS)
}

pub(super) fn schema(catalog: &Catalog, args: &SchemaArgs) -> Outcome {
    let schema = if args.host { config::host_schema(catalog) } else { config::schema(catalog) };
    print(format_args!("{schema:#}\n"))?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn graph(catalog: &Catalog, args: &GraphArgs) -> Outcome {
    let loaded = load(catalog, std::slice::from_ref(&args.file), None);
    print(config::graph(&loaded))?;
    Ok(ExitCode::from(loaded.report.exit_code(false)))
}
