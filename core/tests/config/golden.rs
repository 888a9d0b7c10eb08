//! Each folder of `tests/golden` holds files, and in `expected.txt` what is said about them. `UPDATE_GOLDEN=1` writes anew.

use std::{
    ffi::OsString,
    fs,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

use tidegate_core::config::{Environment, Files, Look, load};

use crate::catalog::catalog;

/// Stands in every secret of the cases, and in every variable whose value does not fit.
pub(crate) const MARKER: &str = "hunter2";

#[test]
fn every_mistake_is_shown_with_its_line_and_a_remedy() {
    let mut differing = Vec::new();
    let mut cases: Vec<PathBuf> = fs::read_dir("tests/golden").unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    for case in cases {
        let said = check(&case);
        let expected = case.join("expected.txt");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&expected, &said).unwrap();
        } else if fs::read_to_string(&expected).unwrap_or_default() != said {
            differing.push(format!("{}:\n{said}", case.display()));
        }
        assert!(!said.contains(MARKER), "{} shows a secret:\n{said}", case.display());
        for rust in ["invalid type", "invalid value", "struct ", "u32", "Option", "untagged", "variant"] {
            assert!(!said.contains(rust), "{} speaks Rust ({rust}):\n{said}", case.display());
        }
    }
    assert!(differing.is_empty(), "not as expected (UPDATE_GOLDEN=1 writes anew):\n{}", differing.join("\n"));
}

fn check(case: &Path) -> String {
    let mut files: Vec<PathBuf> = fs::read_dir(case).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    let loaded = load(&catalog(), Files::read(&files, None), &environment(case));
    let exit = loaded.report.exit_code(false);
    format!("{}exit code {exit}\n", loaded.report.render(Look::default()))
}

fn environment(case: &Path) -> Environment {
    let text = |text: &str| OsString::from(text);
    let mut variables = Vec::from([
        ("SECRET", text(MARKER)),
        ("NUMBER", text("7")),
        ("WORD", text("hunter2word")),
        ("EVIL", text("\"\n[sink.evil] # hunter2\npath = \"x\"")),
        ("HUGE", text(&"hunter2 ".repeat(1280))),
        ("BINARY", OsString::from_vec(vec![b'h', 0xff, 0xfe])),
        ("EMPTY", text("")),
    ]);
    if case.ends_with("host_file") {
        variables.extend([("TIDEGATE_LOG_STATS", text(MARKER)), ("TIDEGATE_LOG_STAT", text("1m"))]);
        variables.extend([("TIDEGATE_DATA_DIR", OsString::from_vec(vec![0xff]))]);
    }
    Environment::new(variables)
}
