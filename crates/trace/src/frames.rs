//! A frame as a person reads it.

use serde::Serialize;

/// Which floor a frame is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FrameKind {
    /// Machine code.
    Native,
    /// A function of Python source.
    Python,
}

/// One frame, possibly of an inlined function.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Frame {
    /// Machine code or Python.
    pub kind: FrameKind,
    /// Demangled, without an offset. `None` where the file has no name for it.
    pub function: Option<String>,
    /// Full path of the module; for Python, of the interpreter's module where known.
    pub module: Option<String>,
    /// Source file.
    pub file: Option<String>,
    /// Line in it.
    pub line: Option<u32>,
    /// The address that the module's file states, where it has no name for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<u64>,
    /// The build id of that file, in lower-case hex: who has its debug file can name the address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build_id: Option<String>,
}

impl Frame {
    /// A native frame of which only the address is known.
    pub fn unknown() -> Self {
        Self {
            kind: FrameKind::Native,
            function: None,
            module: None,
            file: None,
            line: None,
            address: None,
            build_id: None,
        }
    }

    /// The module's name without its path.
    pub fn module_name(&self) -> Option<&str> {
        self.module.as_deref().and_then(|module| module.rsplit('/').next())
    }
}
