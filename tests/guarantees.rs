//! The pages of what is guaranteed name tests that are there, and leave out nothing.
#![allow(clippy::unwrap_used, reason = "clippy takes the helpers of tests for something else")]

use std::{collections::BTreeSet, fs, path::Path};

const PAGES: [&str; 2] = ["docs/guarantees.md", "docs/failure-modes.md"];

#[test]
fn every_test_that_a_page_names_is_in_the_sources_and_is_a_test() {
    for page in PAGES {
        let named = tests_of(&read(page));
        assert!(named.len() > 20, "{page} names {named:?}");
        for (path, name) in named {
            assert!(top().join(&path).exists(), "{page} names `{path}`, which is not there");
            assert!(is_test(&read(&path), &name), "{page} names `{path}::{name}`, which is no test there");
        }
    }
}

#[test]
fn each_of_the_forty_ways_has_one_line_with_a_test_or_a_reason() {
    let page = read("docs/failure-modes.md");
    let rows: Vec<(usize, &str)> = page.lines().filter_map(numbered).collect();
    let numbers: Vec<usize> = rows.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, (1..=40).collect::<Vec<_>>());
    for (number, row) in rows {
        let shown = row.rsplit('|').nth(1).unwrap();
        assert!(
            !tests_of(shown).is_empty() || shown.contains("waits: "),
            "{number}: neither a test nor a reason: {shown}"
        );
    }
}

#[test]
fn each_promise_has_a_test() {
    let page = read("docs/guarantees.md");
    let (promises, exceptions) = page.split_once("## What is not promised").unwrap();
    let rows = |text: &str| {
        let rows = text.lines().filter(|line| line.starts_with("| ") && !line.contains("Shown by"));
        rows.map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(rows(promises).len() > 25 && rows(exceptions).len() > 5);
    for row in rows(promises) {
        assert!(!tests_of(&row).is_empty(), "no test: {row}");
    }
}

#[test]
fn the_readme_and_the_pages_lead_to_one_another() {
    let claim = read("README.md");
    let claim = claim.split("\n\n").nth(1).unwrap();
    assert!(claim.contains("(docs/guarantees.md)"), "the claim of the README links to what shows it: {claim}");
    assert!(read(PAGES[0]).contains("(failure-modes.md)"));
}

#[test]
fn what_is_no_test_is_not_taken_for_one() {
    let source = "#[test]\nfn one_holds() {}\n\n    #[tokio::test(start_paused = true)]\n    #[cfg(unix)]\n    async fn two() {\n\
                  proptest! {\n    #[test]\n    fn three(bytes in any()) {}\n}\nfn four() {}\n";
    for (name, expected) in [("one_holds", true), ("two", true), ("three", true), ("four", false), ("one", false)] {
        assert_eq!(is_test(source, name), expected, "{name}");
    }
    let named = tests_of("| `a/b.rs::c` and `d` | `e.rs` `f/g.rs::h_i` |");
    assert_eq!(named, BTreeSet::from([("a/b.rs".to_owned(), "c".to_owned()), ("f/g.rs".to_owned(), "h_i".to_owned())]));
}

/// Returns the tests that a text names, as `path::name` in backticks.
fn tests_of(text: &str) -> BTreeSet<(String, String)> {
    let spans = text.split('`').skip(1).step_by(2);
    let named = spans.filter_map(|span| span.split_once(".rs::"));
    named.map(|(path, name)| (format!("{path}.rs"), name.to_owned())).collect()
}

/// Returns whether a function of this name stands below an attribute that makes it a test.
fn is_test(source: &str, name: &str) -> bool {
    let lines: Vec<&str> = source.lines().map(str::trim_start).collect();
    let is_named = |line: &str| {
        let declared = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
        declared.and_then(|rest| rest.strip_prefix(name)).is_some_and(|rest| rest.starts_with('('))
    };
    let Some(at) = lines.iter().position(|line| is_named(line)) else { return false };
    let above = lines[..at].iter().rev().take_while(|line| line.starts_with("#[") || line.starts_with("//"));
    above.into_iter().any(|line| line.starts_with("#[test]") || line.starts_with("#[tokio::test"))
}

/// Returns a row's number, if it begins with one.
fn numbered(line: &str) -> Option<(usize, &str)> {
    let (number, _) = line.strip_prefix("| ")?.split_once(" |")?;
    Some((number.parse().ok()?, line))
}

fn read(path: &str) -> String {
    fs::read_to_string(top().join(path)).unwrap()
}

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
