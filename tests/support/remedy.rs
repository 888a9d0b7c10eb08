//! The commands that heal an accident, given as a person would give them.

use std::{path::Path, process::Command};

use serde_json::Value;

use super::{Bench, Program};

/// What came of a command.
#[derive(Debug)]
pub struct Ran {
    /// Its exit code.
    pub code: i32,
    /// What it printed.
    pub printed: String,
    /// What it said on standard error.
    pub said: String,
}

/// Runs the program in a folder; nobody sits at a terminal.
pub fn tidegate(folder: &Path, words: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    let output = command.args(words).current_dir(folder).stdin(std::process::Stdio::null()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code().unwrap_or(-1), printed: text(output.stdout), said: text(output.stderr) }
}

impl Bench {
    /// Runs the command with `which` in it that a text shows between backticks, as it stands there, and confirms it. Twice
    /// is as once.
    pub fn paste(&self, text: &str, which: &str) -> Ran {
        let shown = text.split('`').find(|piece| piece.starts_with("tidegate ") && piece.contains(which));
        let shown = shown.unwrap_or_else(|| panic!("no command `{which}` in: {text}"));
        let words: Vec<&str> = shown.split(' ').skip(1).collect();
        let unconfirmed = tidegate(self.folder(), &words);
        assert_eq!(unconfirmed.code, 2, "{unconfirmed:?}");
        assert!(unconfirmed.said.contains("nothing was changed: to have it done, say --yes"), "{unconfirmed:?}");
        let words: Vec<&str> = words.into_iter().chain(["--yes"]).collect();
        let done = tidegate(self.folder(), &words);
        assert_eq!(done.code, 0, "{done:?}");
        assert!(done.printed.ends_with("done; next: tidegate run eth.toml\n"), "{done:?}");
        let again = tidegate(self.folder(), &words);
        assert_eq!(again.code, 0, "{again:?}");
        assert!(again.printed.contains("nothing to do"), "{again:?}");
        done
    }

    /// Stops the venue and then the program, when all that was made is stored once.
    pub async fn rest(&self, mut program: Program) {
        self.settle(&mut program).await.assert_exact(&program.log());
        assert_eq!(program.stop().await.0, 0);
    }

    /// Returns what the ledger says.
    pub fn coverage(&self) -> Value {
        let ran = tidegate(self.folder(), &["coverage", "eth.toml", "--json"]);
        let document: Value = serde_json::from_str(&ran.printed).unwrap_or_else(|_| panic!("{ran:?}"));
        document["coverage"].clone()
    }
}

impl Program {
    /// Waits until a stage needs a person, and returns why.
    pub async fn until_failed(&mut self, stage: &str) -> String {
        let failed = |report: &Value| report["checks"][stage]["status"] == "failed";
        let report = self.until(&format!("{stage} needs a person"), failed).await;
        report["checks"][stage]["reason"].as_str().unwrap().to_owned()
    }
}
