//! A scan as a person reads it: a line a finding, and a sentence at the end.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

use plumb_target::{image, printable};

use crate::report::{Hooks, Interposed, Patched, PreloadSource, Tracer, TracerKind};

impl Display for Hooks {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        for patch in &self.patched {
            patched(f, patch)?;
        }
        for (symbols, module, owner) in groups(&self.interposed) {
            let symbols = printable(&symbols.join(", "));
            writeln!(f, "interposed {symbols}")?;
            writeln!(f, "           by {}, in {module}", who(owner))?;
        }
        for preload in &self.preloads {
            let source = match preload.source {
                PreloadSource::Preload => "LD_PRELOAD",
                PreloadSource::Audit => "LD_AUDIT",
                PreloadSource::System => "/etc/ld.so.preload",
                PreloadSource::LinkMap => "by its place in the link map",
            };
            let state = if preload.loaded { "" } else { ", not loaded" };
            writeln!(f, "preload    {} ({source}{state})", printable(&preload.module))?;
        }
        for tracer in &self.tracers {
            writeln!(f, "tracer     {}", traced(tracer))?;
        }
        for unread in &self.unread {
            writeln!(f, "unread     {}: {}", printable(&unread.module), printable(&unread.reason))?;
        }
        writeln!(f, "{}", self.sentence())
    }
}

/// Rows of one owner together: an allocator replaces thirty names, a tracer the slots of each of
/// a hundred libraries.
fn groups(rows: &[Interposed]) -> Vec<(Vec<&str>, String, Option<&str>)> {
    let mut modules: BTreeMap<(&str, Option<&str>), Vec<&str>> = BTreeMap::new();
    for row in rows {
        let key = (row.symbol.as_str(), row.owner.as_deref());
        modules.entry(key).or_default().push(&row.module);
    }
    let mut groups: BTreeMap<(Option<&str>, Vec<&str>), Vec<&str>> = BTreeMap::new();
    for ((symbol, owner), modules) in modules {
        groups.entry((owner, modules)).or_default().push(symbol);
    }
    let shown = |modules: &[&str]| match modules {
        [one, rest @ ..] if !rest.is_empty() => {
            format!("{} and {} more", printable(one), rest.len())
        }
        _ => printable(modules.first().unwrap_or(&"")),
    };
    let row = |((owner, modules), symbols): ((_, Vec<&str>), _)| (symbols, shown(&modules), owner);
    groups.into_iter().map(row).collect()
}

impl Hooks {
    /// The finding in one sentence.
    pub fn sentence(&self) -> String {
        if self.is_clean() {
            let but = if self.unread.is_empty() { "" } else { ", as far as it could be read" };
            return format!("Nothing sits between this process and its memory{but}.");
        }
        let rows = self.patched.iter().map(|p| p.owner.as_deref());
        let mut owners: Vec<String> =
            rows.chain(self.interposed.iter().map(|i| i.owner.as_deref())).map(who).collect();
        owners.sort();
        owners.dedup();
        let verb = if owners.len() == 1 { "sits" } else { "sit" };
        format!("{} {verb} between this process and its memory.", owners.join(", "))
    }
}

fn patched(f: &mut Formatter, patch: &Patched) -> fmt::Result {
    let symbol = patch.symbol.as_deref().map_or_else(
        || format!("{:#x}", patch.address),
        |symbol| match patch.aliases.as_slice() {
            [] => printable(symbol),
            aliases => format!("{} ({})", printable(symbol), printable(&aliases.join(", "))),
        },
    );
    writeln!(f, "patched    {symbol} in {}", printable(&patch.module))?;
    let target = patch.target_symbol.as_deref().unwrap_or("a place without a name");
    match &patch.owner {
        Some(owner) => {
            writeln!(f, "           leads to {} in {}", printable(target), printable(owner))?
        }
        None => writeln!(f, "           does not lead to a file")?,
    }
    const SHOWN: usize = 16;
    let hex = |bytes: &[u8]| -> String {
        let text = image::hex(&bytes[..bytes.len().min(SHOWN)]);
        if bytes.len() > SHOWN { format!("{text}…") } else { text }
    };
    writeln!(f, "           file {}, memory {}", hex(&patch.file_bytes), hex(&patch.memory_bytes))
}

fn who(owner: Option<&str>) -> String {
    owner.map_or_else(|| "Code that no file owns".to_owned(), printable)
}

fn traced(tracer: &Tracer) -> String {
    let place = || {
        let symbol = tracer.symbol.as_deref().unwrap_or("a place without a name");
        let module = tracer.module.as_deref().unwrap_or("?");
        format!("{} in {}", printable(symbol), printable(module))
    };
    match tracer.kind {
        TracerKind::Ptrace => {
            let name = printable(tracer.name.as_deref().unwrap_or("a process"));
            format!("{name} (pid {}) is attached by ptrace", tracer.pid.unwrap_or(0))
        }
        TracerKind::Breakpoint => format!("a breakpoint at {}", place()),
        TracerKind::Uprobe => format!("a uprobe at {}", place()),
        TracerKind::UprobesBefore => "uprobes were hit here before; none is left".to_owned(),
        TracerKind::Seccomp => "a seccomp filter stands before its system calls".to_owned(),
    }
}
