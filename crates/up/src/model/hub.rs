//! `hf:owner/repo/file.gguf`, through the hub's own client and its cache.

use std::path::PathBuf;

use hf_hub::api::sync::ApiBuilder;

use crate::Error;

pub(super) async fn fetch(repo: String, file: String) -> Result<PathBuf, Error> {
    let name = format!("hf:{repo}/{file}");
    tokio::task::spawn_blocking(move || {
        let api = ApiBuilder::from_env().with_progress(true).build()?;
        api.model(repo).get(&file)
    })
    .await
    .map_err(|e| Error::Fetch(e.to_string()))?
    .map_err(|e| {
        Error::Fetch(format!(
            "{name}: {e}; is the hub reachable from here, and is the name right? A file can be \
             given by its path instead"
        ))
    })
}
