//! What can go wrong while tracing, and what to do about it.

/// A failure to load, attach or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The user may not use BPF.
    #[error(
        "tracing needs root, or the capabilities CAP_BPF, CAP_PERFMON and CAP_SYS_PTRACE \
         (sudo plumb hunt …, or setcap on the binary): {0}"
    )]
    Permission(String),
    /// The kernel refused the programs.
    #[error("the kernel did not take Plumb's BPF programs ({what}): {why}")]
    Load {
        /// The program or map.
        what: String,
        /// The kernel's answer.
        why: String,
    },
    /// A uprobe could not be placed.
    #[error("no probe on {function} of {module}: {why}")]
    Uprobe {
        /// Function.
        function: String,
        /// File.
        module: String,
        /// Why.
        why: String,
    },
    /// The target could not be read.
    #[error(transparent)]
    Target(#[from] plumb_target::Error),
    /// A call to the system failed.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
}

impl Error {
    /// Whether it is this user or this kernel that does not let anything be traced.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Permission(_) | Self::Load { .. })
    }

    /// Names a failure of the BPF loader by its cause.
    pub(crate) fn load(what: &str, error: &(dyn std::error::Error + 'static)) -> Self {
        let mut why = error.to_string();
        let mut denied = false;
        let mut next = Some(error);
        while let Some(e) = next {
            if let Some(io) = e.downcast_ref::<std::io::Error>() {
                denied |= io.kind() == std::io::ErrorKind::PermissionDenied;
            }
            why = e.to_string();
            next = e.source();
        }
        if denied {
            return Self::Permission(why);
        }
        Self::Load { what: what.to_owned(), why }
    }
}
