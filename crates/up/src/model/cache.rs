//! Where fetched models are kept.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::Error;

/// `$PLUMB_CACHE`, else `plumb` in the user's cache directory.
pub(super) fn directory() -> Result<PathBuf, Error> {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let path = set("PLUMB_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|base| base.join("plumb")))
        .or_else(|| set("HOME").map(|home| home.join(".cache/plumb")))
        .ok_or_else(|| Error::Fetch("no directory to keep it in: set PLUMB_CACHE".into()))?;
    std::fs::create_dir_all(&path)
        .map_err(|e| Error::Fetch(format!("{}: {e}; set PLUMB_CACHE", path.display())))?;
    Ok(path)
}

/// Whether the file's SHA-256 is `hex`.
pub(super) fn matches(path: &Path, hex: &str) -> std::io::Result<bool> {
    let mut hasher = Sha256::new();
    std::io::copy(&mut std::fs::File::open(path)?, &mut hasher)?;
    let digest: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(digest == hex)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_changed_byte_is_seen() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("f");
        std::fs::write(&file, "abc").expect("written");
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert!(super::matches(&file, abc).expect("read"));
        std::fs::write(&file, "abd").expect("written");
        assert!(!super::matches(&file, abc).expect("read"));
    }
}
