//! A disk that hangs, without privileges: `hang.c` is loaded into the program and holds its calls up; see there.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tempfile::TempDir;
use tokio::time::{Duration, Instant, sleep};

use super::{PATIENCE, power::layer};

/// What makes the disk hang under a program.
pub struct Hang {
    notes: TempDir,
    library: PathBuf,
}

impl Hang {
    /// Builds the layer, where that can be had.
    pub fn new() -> Option<Self> {
        let notes = tempfile::tempdir().unwrap();
        let library = layer("hang", notes.path())?;
        Some(Self { notes, library })
    }

    /// Returns the variables that the program has to be started with.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        vec![
            ("LD_PRELOAD", text(&self.library)),
            ("HANG_FILE", text(&self.told())),
            ("HANG_MET", text(&self.notes.path().join("met"))),
        ]
    }

    /// From now on these operations hang on files whose paths begin so.
    pub fn begin(&self, operations: &str, paths: &[PathBuf]) {
        let lines = paths.iter().map(|path| format!("{operations} {}\n", path.display()));
        // In one step: a layer that reads half of a line holds up what it should not.
        let fresh = self.notes.path().join("fresh");
        fs::write(&fresh, lines.collect::<String>()).unwrap();
        fs::rename(fresh, self.told()).unwrap();
    }

    /// Lets all that hangs go on.
    pub fn end(&self) {
        fs::remove_file(self.told()).unwrap();
    }

    /// Waits until something hangs on each of these paths.
    pub async fn until_met(&self, paths: &[PathBuf]) {
        let deadline = Instant::now() + PATIENCE;
        let is_met = |met: &str, path: &PathBuf| met.lines().any(|line| line.contains(path.to_str().unwrap()));
        loop {
            let met = fs::read_to_string(self.notes.path().join("met")).unwrap_or_default();
            let Some(free) = paths.iter().find(|path| !is_met(&met, path)) else { return };
            assert!(Instant::now() < deadline, "nothing hangs on `{}`; on others:\n{met}", free.display());
            sleep(Duration::from_millis(10)).await;
        }
    }

    fn told(&self) -> PathBuf {
        self.notes.path().join("told")
    }
}
