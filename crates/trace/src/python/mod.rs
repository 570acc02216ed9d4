//! Python frames: where an interpreter keeps them, and what they mean.

/// One frame of Python source.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PythonFrame {
    /// Qualified where the version tells.
    pub function: String,
    /// As compiled.
    pub file: String,
    /// Line, where the code object's table could be read.
    pub line: Option<u32>,
    /// Whether C called it: the run of frames that one native evaluation loop holds ends here.
    pub entry: bool,
}
