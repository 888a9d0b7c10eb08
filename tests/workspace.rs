//! What the repository promises of itself: where things are, and which compiler builds it.
#![allow(clippy::unwrap_used, reason = "in the helpers of tests, too")]

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use serde_json::Value;

#[test]
fn the_top_level_has_what_a_newcomer_looks_for_and_nothing_else() {
    let wanted = ["Cargo.toml", "core", "sources", "sinks", "pipelines", "tests", "examples", "README.md"];
    let beside = [
        "Cargo.lock",
        "LICENSE-APACHE",
        "LICENSE-MIT",
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "clippy.toml",
        "deny.toml",
        "rustfmt.toml",
        // `docker compose up` looks for it here.
        "compose.yaml",
        "benches",
        "deploy",
        "docs",
        "scripts",
        "target",
    ];
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    let there: BTreeSet<String> =
        fs::read_dir(root()).unwrap().map(name).filter(|name| !name.starts_with('.') && *name != "data").collect();
    let lacking: Vec<_> = wanted.iter().filter(|name| !there.contains(**name)).collect();
    assert!(lacking.is_empty(), "not there: {lacking:?}");
    let strange: Vec<_> =
        there.iter().filter(|name| !wanted.iter().chain(&beside).any(|known| known == name)).collect();
    assert!(strange.is_empty(), "not among what belongs here: {strange:?}");
    for venue_or_store in
        ["sources/src/deribit", "sinks/src/sqlite", "sinks/src/postgres", "sinks/src/questdb", "sinks/src/kafka"]
    {
        for file in ["mod.rs", "config.rs"] {
            assert!(root().join(venue_or_store).join(file).is_file(), "{venue_or_store}/{file}");
        }
    }
}

/// What the standard library has since is clippy's to find (`incompatible_msrv`); that a dependency asks for more is found here.
#[test]
fn no_dependency_asks_for_a_newer_compiler_than_the_one_that_is_promised() {
    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--offline", "--locked", "--all-features"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(metadata.status.success(), "{}", String::from_utf8_lossy(&metadata.stderr));
    let metadata: Value = serde_json::from_slice(&metadata.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let version = |package: &Value| {
        let asked = package["rust_version"].as_str()?;
        let mut parts = asked.split('.').map(|part| part.parse::<u32>().unwrap());
        Some((parts.next()?, parts.next()?, parts.next().unwrap_or(0)))
    };
    let ours = packages.iter().filter(|package| package["source"].is_null());
    let promised: BTreeSet<_> = ours.map(version).collect();
    assert!(promised.len() == 1 && !promised.contains(&None), "all of ours promise one: {promised:?}");
    let promised = promised.into_iter().flatten().next().unwrap();
    let newer: Vec<_> = packages
        .iter()
        .filter(|package| version(package).is_some_and(|asked| asked > promised))
        .map(|package| format!("{} asks for {}", package["name"], package["rust_version"]))
        .collect();
    assert!(newer.is_empty(), "{newer:?}, and {promised:?} is promised");
    let highest = packages.iter().filter(|package| !package["source"].is_null()).filter_map(version).max();
    assert_eq!(highest, Some(promised), "it may be built with an older one: promise that");
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
