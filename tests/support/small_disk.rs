//! A disk that can be full, and the word of a test that cannot have one.

use std::path::Path;

use tempfile::TempDir;

/// Says that a test cannot run here; `scripts/test` counts these lines, for the runner shows nothing of a test that passes.
pub fn skipped(why: &str) {
    let line = format!("SKIPPED {}: {why}", std::thread::current().name().unwrap_or("a test"));
    eprintln!("{line}");
    if let Some(file) = std::env::var_os("SKIPPED_TESTS") {
        let mut file = std::fs::File::options().create(true).append(true).open(file).unwrap();
        std::io::Write::write_all(&mut file, format!("{line}\n").as_bytes()).unwrap();
    }
}

/// A disk that can be full: a file system in memory.
pub struct SmallDisk {
    folder: TempDir,
}

impl SmallDisk {
    /// Mounts it. `None`, with a word on standard error, where mounting is not allowed.
    pub fn mount(size: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let size = format!("size={size}");
        let mut mount = std::process::Command::new("mount");
        let mounted = mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder.path()).output();
        if mounted.as_ref().is_ok_and(|mounted| mounted.status.success()) {
            return Some(Self { folder });
        }
        skipped(&format!("no file system can be mounted here ({mounted:?})"));
        None
    }

    /// Returns where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Gives it another size.
    pub fn resize(&self, size: &str) {
        let size = format!("remount,size={size}");
        assert!(std::process::Command::new("mount").args(["-o", &size]).arg(self.path()).status().unwrap().success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        _ = std::process::Command::new("umount").arg("-l").arg(self.path()).status();
    }
}
