//! What a scan found, in the form of `plumb hooks --json`.

use std::path::Path;

use plumb_target::{Range, image};
use serde::{Serialize, Serializer};

/// Everything that sits between a process and its memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Hooks {
    /// Functions whose text differs from its file, in order of address.
    pub patched: Vec<Patched>,
    /// Names of memory functions that lead elsewhere than to the C or C++ library.
    pub interposed: Vec<Interposed>,
    /// Libraries that were loaded before the program's own.
    pub preloads: Vec<Preload>,
    /// Who else looks at or filters the process.
    pub tracers: Vec<Tracer>,
    /// Executable files that could not be compared.
    pub unread: Vec<Unread>,
    /// Every range of text that differs, breakpoints included, and the file it is of.
    #[serde(skip)]
    pub(crate) differing: Vec<(String, Range)>,
}

impl Hooks {
    /// Whether any byte of the text at `addresses` differs from its file, be it by a breakpoint. A
    /// uprobe there would not put back what it found: the kernel restores the file's byte.
    pub fn text_differs(&self, addresses: &Range) -> bool {
        self.differing.iter().any(|(_, r)| r.start < addresses.end && addresses.start < r.end)
    }

    /// Whether any text of the file at `path` (as the process names it) differs, or could not be
    /// compared.
    pub fn module_differs(&self, path: &Path) -> bool {
        let differs = self.differing.iter().any(|(module, _)| Path::new(module) == path);
        differs || self.unread.iter().any(|unread| Path::new(&unread.module) == path)
    }

    /// Whether nothing stands between the process and its memory. Tracers and preloads that touch
    /// no memory function do not count.
    pub fn is_clean(&self) -> bool {
        self.patched.is_empty() && self.interposed.is_empty()
    }
}

/// A function that was changed in memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Patched {
    /// Its public name, demangled, without a version; `None` where no symbol covers the place.
    pub symbol: Option<String>,
    /// Other names of the same address.
    pub aliases: Vec<String>,
    /// The file whose text it is.
    pub module: String,
    /// Where the function starts, or the change where there is no symbol.
    pub address: u64,
    /// Where its jump ends up, if a symbol is there.
    pub target_symbol: Option<String>,
    /// The library that owns the target; `None` where the patch leads nowhere that has a name.
    pub owner: Option<String>,
    /// What the file has, from `address`.
    #[serde(serialize_with = "hex")]
    pub file_bytes: Vec<u8>,
    /// What the memory has, as long as `file_bytes`.
    #[serde(serialize_with = "hex")]
    pub memory_bytes: Vec<u8>,
}

/// A name that leads elsewhere than its ordinary library.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Interposed {
    /// The function, demangled.
    pub symbol: String,
    /// Whose definition was replaced for all, or whose slot was changed.
    pub module: String,
    /// Where it leads; `None` where no file stands behind that.
    pub owner: Option<String>,
}

/// Why a library is taken for a preload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum PreloadSource {
    /// The environment that the process started with.
    #[serde(rename = "LD_PRELOAD")]
    Preload,
    /// An auditor of the dynamic linker, from the environment.
    #[serde(rename = "LD_AUDIT")]
    Audit,
    /// The system's list.
    #[serde(rename = "/etc/ld.so.preload")]
    System,
    /// It stands between the program and its first library, where only a preload can.
    #[serde(rename = "link map")]
    LinkMap,
}

/// A library that was loaded before the program's own, or was meant to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Preload {
    /// Its path; where it is not loaded, as it was asked for.
    pub module: String,
    /// How it is known.
    pub source: PreloadSource,
    /// Whether it is there.
    pub loaded: bool,
}

/// What sort of tracer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TracerKind {
    /// Another process traces it (a debugger, strace).
    Ptrace,
    /// A breakpoint while a debugger is attached.
    Breakpoint,
    /// A breakpoint that the kernel put there: perf, bpftrace, bcc, an agent with eBPF.
    Uprobe,
    /// Uprobes were hit in this process earlier; none is in its text now.
    UprobesBefore,
    /// A filter of system calls, as containers and sandboxes use.
    Seccomp,
}

/// Who else looks at the process, or stands before its system calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Tracer {
    /// What sort.
    pub kind: TracerKind,
    /// The tracing process's name.
    pub name: Option<String>,
    /// The tracing process.
    pub pid: Option<u32>,
    /// The function with the breakpoint, demangled.
    pub symbol: Option<String>,
    /// The file with the breakpoint.
    pub module: Option<String>,
    /// Where the breakpoint is.
    pub address: Option<u64>,
}

impl Tracer {
    pub(crate) fn of(kind: TracerKind) -> Self {
        Self { kind, name: None, pid: None, symbol: None, module: None, address: None }
    }
}

/// An executable file that could not be compared with the memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unread {
    /// The file.
    pub module: String,
    /// Why not.
    pub reason: String,
}

fn hex<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&image::hex(bytes))
}
