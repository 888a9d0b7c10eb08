//! What the pages say is there is there. That the README's commands run is shown by `scripts/readme`.
#![allow(clippy::unwrap_used, reason = "clippy takes the helpers of tests for something else")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

#[test]
fn the_first_screen_has_the_picture_and_the_two_commands() {
    let readme = page("README.md");
    let screen: Vec<&str> = readme.lines().take(45).collect();
    let screen = screen.join("\n");
    for wanted in ["cargo run --release -- demo", "scripts/test", "intake", "What you will see"] {
        assert!(screen.contains(wanted), "no `{wanted}` on the first screen");
    }
}

#[test]
fn every_block_of_commands_is_run_or_says_why_not() {
    for (name, least) in [("README.md", 8), ("CONTRIBUTING.md", 1)] {
        let mut run = 0;
        for mark in page(name).lines().filter_map(|line| line.strip_prefix("```sh")) {
            let known = [" run for ", " needs ", " in less time: "];
            let is_known = mark.is_empty() || known.iter().any(|known| mark.starts_with(known));
            assert!(is_known || mark.starts_with(" not here: "), "`{mark}`");
            run += usize::from(is_known);
        }
        assert!(run >= least, "{name}: {run} blocks are run");
    }
}

#[test]
fn every_path_that_a_page_names_is_there() {
    let top = top();
    for name in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"] {
        let text = page(name);
        let mut seen = 0;
        for span in text.split('`').skip(1).step_by(2).filter(|span| !span.contains(char::is_whitespace)) {
            let is_path = ["core/", "sources/", "sinks/", "pipelines/", "tests/", "examples/", "scripts/", "docs/"]
                .iter()
                .any(|folder| span.starts_with(folder));
            if is_path && !span.contains("NAME") && !span.contains('*') {
                assert!(top.join(span).exists(), "{name} names `{span}`");
                seen += 1;
            }
        }
        assert!(seen > 1, "{name} names {seen} paths");
    }
}

#[test]
fn what_the_table_says_is_there_now_is_what_the_program_lists() {
    let text = page("README.md");
    let row = |name: &str| text.lines().find(|line| line.starts_with(&format!("| {name} |"))).unwrap().to_owned();
    let list = Command::new(env!("CARGO_BIN_EXE_tidegate")).arg("list").stdin(Stdio::null()).output().unwrap();
    let list = String::from_utf8(list.stdout).unwrap();
    for (title, role) in [("Sources", "sources"), ("Sinks", "sinks")] {
        let row = row(title);
        let (now, planned) = row.trim_end_matches('|').rsplit_once('|').unwrap();
        let there = list.lines().find_map(|line| line.strip_prefix(role)).unwrap();
        for name in there.split_whitespace() {
            assert!(now.contains(&format!("`{name}`")), "{title}: no `{name}` in {now}");
            assert!(!planned.to_lowercase().contains(name), "{title}: {name} is planned, and there");
        }
    }
    let help = Command::new(env!("CARGO_BIN_EXE_tidegate")).arg("--help").stdin(Stdio::null()).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    for name in row("Tools").split('`').skip(1).step_by(2) {
        assert!(help.contains(&format!("\n  {name} ")), "no command `{name}`:\n{help}");
    }
}

#[test]
fn every_failing_step_of_the_test_script_ends_with_a_summary_that_says_failed() {
    let folder = tempfile::tempdir().unwrap();
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    for (failing, step) in [("fmt --all --check", "format"), ("clippy --quiet*", "lints"), ("doc *", "docs")] {
        let cargo = folder.path().join("cargo");
        fs::write(&cargo, format!("#!/bin/sh\ncase \"$*\" in {}) exit 1;; esac\n", failing.replace(' ', "\\ ")))
            .unwrap();
        fs::set_permissions(&cargo, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let mut script = Command::new(top().join("scripts/test"));
        let output = script.arg("quick").env("PATH", &path).stdin(Stdio::null()).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(!output.status.success(), "{text}");
        assert!(text.ends_with(&format!("FAILED: {step}\n0 passed, 1 failed, 0 skipped\n")), "{text}");
    }
}

#[test]
fn no_page_promises_what_is_not_there() {
    for name in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"] {
        let text = page(name).to_lowercase();
        for word in ["coming soon", "todo", "fixme", "tbd"] {
            assert!(!text.contains(word), "{name}: `{word}`");
        }
    }
}

fn page(name: &str) -> String {
    fs::read_to_string(top().join(name)).unwrap()
}

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}
