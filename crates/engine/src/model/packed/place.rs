//! Where a pack file may lie.

use super::Layout;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Paths for the pack file of a model, the best first.
pub(super) fn candidates(model: &Path, layout: &Layout<'_>) -> Vec<PathBuf> {
    let file = file_name(model, layout);
    let beside = model.parent().map(|dir| dir.join(&file));
    let cache = std::env::var_os("PLUMB_CACHE").map(|dir| PathBuf::from(dir).join(&file));
    let memory = own_memory_dir().map(|dir| dir.join(&file));
    [beside, cache, memory].into_iter().flatten().collect()
}

/// Models of one name in different folders, and engines that pack in different ways, do not
/// overwrite each other's file.
fn file_name(model: &Path, layout: &Layout<'_>) -> String {
    let name = model.file_name().unwrap_or_default().to_string_lossy();
    let print: String =
        layout.fingerprint()[..4].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{name}.{print}.packed")
}

/// A folder of ours alone in memory: in a shared one anybody could put weights before us.
fn own_memory_dir() -> Option<PathBuf> {
    let user = rustix::process::geteuid().as_raw();
    let dir = PathBuf::from(format!("/dev/shm/plumb-{user}"));
    // It may be there already; what counts is whose it is.
    drop(std::fs::DirBuilder::new().mode(0o700).create(&dir));
    let meta = std::fs::symlink_metadata(&dir).ok()?;
    (meta.is_dir() && meta.uid() == user && meta.mode() & 0o077 == 0).then_some(dir)
}
