//! The program with the source in it, run on a pipeline as a user would.
#![allow(clippy::unwrap_used, reason = "in the helpers of tests, too")]

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
};

#[test]
fn every_throw_is_collected_once_to_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let text = "[pipeline]\nname = \"dice\"\n[source.dice]\nthrows = 1000\n[sink.file]\npath = \"out\"\n";
    fs::write(folder.path().join("dice.toml"), text).unwrap();
    fs::write(folder.path().join("tidegate.toml"), "listen = \"127.0.0.1:0\"\n").unwrap();
    let output = run(folder.path(), &["run", "dice.toml"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(throws(folder.path()), (1..=1_000).collect::<Vec<_>>(), "{}", said(&output));
}

#[test]
fn its_options_are_explained_and_checked_as_those_of_the_built_in_ones() {
    let folder = tempfile::tempdir().unwrap();
    let page = said(&run(folder.path(), &["list", "dice"]));
    assert!(page.contains("How often."), "{page}");
    let text = "[pipeline]\nname = \"dice\"\n[source.dice]\nthrows = 0\n[sink.stdout]\n";
    fs::write(folder.path().join("dice.toml"), text).unwrap();
    let output = run(folder.path(), &["check", "dice.toml"]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(said(&output).contains("then there is nothing to collect"), "{}", said(&output));
}

fn run(folder: &Path, args: &[&str]) -> Output {
    let mut program = Command::new(env!("CARGO_BIN_EXE_own-source"));
    program.args(args).current_dir(folder).stdin(Stdio::null()).output().unwrap()
}

/// Returns the numbers of the rows in the files below `out`, sorted.
fn throws(folder: &Path) -> Vec<u64> {
    let files = fs::read_dir(folder.join("out")).unwrap().map(|entry| entry.unwrap().path());
    let text: String = files.filter(|path| path.is_file()).map(|path| fs::read_to_string(path).unwrap()).collect();
    let of_dice = text.lines().filter(|line| line.contains("DICE"));
    let mut numbers: Vec<u64> = of_dice.map(|line| number_of(line).unwrap()).collect();
    numbers.sort_unstable();
    numbers
}

fn number_of(line: &str) -> Option<u64> {
    line.split_once("\"seq\":")?.1.split([',', '}']).next()?.parse().ok()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}
