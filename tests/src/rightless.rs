//! Programs as a user without rights runs them.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// A folder from which such a user may run things, wherever the build is.
#[derive(Debug)]
pub struct Rightless(TempDir);

impl Rightless {
    /// Nothing in it yet.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).expect("ours");
        Self(dir)
    }

    /// A copy of the program where that user may run it.
    pub fn copy(&self, program: &Path) -> PathBuf {
        let copy = self.0.path().join(program.file_name().expect("a file"));
        if !copy.exists() {
            fs::copy(program, &copy).expect("copied");
        }
        copy
    }

    /// Runs a copy of the program as that user; as ourselves where we have no rights to give up.
    pub fn command(&self, program: &Path) -> Command {
        let copy = self.copy(program);
        if !rustix::process::geteuid().is_root() {
            return Command::new(copy);
        }
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(copy);
        command
    }
}

impl Default for Rightless {
    fn default() -> Self {
        Self::new()
    }
}
