//! Several processes' memory, added up.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use serde::Serialize;

use crate::beyond::Kind;
use crate::sample::Sample;
use crate::table::{bytes, shorten};

/// How many there are, and their sums.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Together {
    /// How many processes.
    pub processes: usize,
    /// Their RSS: shared pages count several times.
    pub rss_bytes: u64,
    /// Their PSS: shared pages count once in all.
    pub pss_bytes: u64,
    /// What RSS does not show of them, a row a kind: a file that several hold counts once.
    pub beyond_rss: Vec<Total>,
}

/// One kind of memory beyond RSS, of all processes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Total {
    /// What it is.
    pub kind: Kind,
    /// Its bytes; `None` where they may not be seen of some process.
    pub bytes: Option<u64>,
    /// The biggest files, and who holds them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<Shared>,
}

/// A file in memory, and who holds it by descriptor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shared {
    /// Its name.
    pub name: String,
    /// What of it is in no process's RSS.
    pub bytes: u64,
    /// Who holds it.
    pub pids: BTreeSet<u32>,
}

/// How many files are named a kind.
const NAMED: usize = 5;

impl Together {
    /// Of these samples.
    pub fn of<'a>(samples: impl IntoIterator<Item = &'a Sample>) -> Self {
        let samples: Vec<&Sample> = samples.into_iter().collect();
        Self {
            processes: samples.len(),
            rss_bytes: samples.iter().map(|sample| sample.rss_bytes).sum(),
            pss_bytes: samples.iter().map(|sample| sample.pss_bytes).sum(),
            beyond_rss: Kind::ALL.into_iter().map(|kind| total(kind, &samples)).collect(),
        }
    }

    /// What RSS does not show, for a person.
    pub fn beyond(&self) -> String {
        let shown = self.beyond_rss.iter().filter(|total| total.bytes != Some(0));
        let texts = shown.map(|total| {
            let amount = total.bytes.map_or_else(|| "not visible".to_owned(), bytes);
            let items = total.items.iter().map(|item| {
                let pids: Vec<String> = item.pids.iter().map(u32::to_string).collect();
                format!(
                    " [{} {} held by {}]",
                    shorten(&item.name),
                    bytes(item.bytes),
                    pids.join(",")
                )
            });
            format!("{} {amount}{}", total.kind.name(), items.collect::<String>())
        });
        let text = texts.collect::<Vec<_>>().join(", ");
        if text.is_empty() { "nothing".to_owned() } else { text }
    }
}

fn total(kind: Kind, samples: &[&Sample]) -> Total {
    let of = |sample: &&Sample| sample.beyond_rss.iter().find(|row| row.kind == kind)?.bytes;
    let sum = samples.iter().map(of).sum::<Option<u64>>();
    let mut items = files(kind, samples);
    let bytes = match kind {
        Kind::MemfdUnmapped | Kind::TmpfsUnmapped => {
            sum.map(|_| items.iter().map(|item| item.bytes).sum())
        }
        _ => sum,
    };
    items.retain(|item| item.bytes > 0);
    items.sort_by_key(|item| std::cmp::Reverse(item.bytes));
    items.truncate(NAMED);
    Total { kind, bytes, items }
}

/// The files of a kind, each once: who maps one has it in RSS.
fn files(kind: Kind, samples: &[&Sample]) -> Vec<Shared> {
    let mut mapped = HashMap::<u64, u64>::new();
    for (&inode, &resident) in samples.iter().flat_map(|sample| &sample.files.mapped) {
        let most = mapped.entry(inode).or_default();
        *most = resident.max(*most);
    }
    let mut files = BTreeMap::<(u64, u64), Shared>::new();
    for sample in samples {
        for file in sample.files.held.iter().filter(|file| file.kind == kind) {
            let shared = files.entry(file.id).or_insert_with(|| Shared {
                name: file.name.clone(),
                bytes: file.unmapped(&mapped),
                pids: BTreeSet::new(),
            });
            shared.pids.insert(sample.pid);
        }
    }
    files.into_values().collect()
}

impl fmt::Display for Together {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rss, pss) = (bytes(self.rss_bytes), bytes(self.pss_bytes));
        write!(out, "{rss} resident, {pss} when shared pages are divided")
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;
    use std::process::{Command, Stdio};

    use plumb_target::Process;
    use rustix::fs::{MemfdFlags, memfd_create};

    use super::*;
    use crate::{Depth, take};

    #[test]
    fn a_memfd_that_several_hold_counts_once_with_who_holds_it() {
        // A child gets it as its standard output.
        let memfd = File::from(memfd_create("held-by-two", MemfdFlags::CLOEXEC).expect("a memfd"));
        (&memfd).write_all(&[1; 1 << 20]).expect("written");
        let mut child = Command::new("cat");
        child.stdin(Stdio::piped()).stdout(memfd.try_clone().expect("a descriptor"));
        let mut child = child.spawn().expect("cat");
        let other = Process::open(child.id()).expect("it runs");
        let mut samples = [Process::own(), other].map(|p| take(&p, Depth::FULL).expect("a sample"));
        let held = |samples: &[Sample]| {
            let totals = Together::of(samples).beyond_rss;
            let total = totals.into_iter().find(|total| total.kind == Kind::MemfdUnmapped);
            let items = total.expect("a row").items;
            items.into_iter().find(|item| item.name.contains("held-by-two"))
        };
        let once = held(&samples).expect("it is held");
        let pids = BTreeSet::from([std::process::id(), child.id()]);
        assert_eq!((once.bytes, once.pids), (1 << 20, pids));
        // What one of them maps is in its RSS.
        let (_, inode) = samples[0]
            .files
            .held
            .iter()
            .find(|file| file.name.contains("held-by-two"))
            .expect("it is held")
            .id;
        samples[1].files.mapped.insert(inode, 1 << 20);
        assert_eq!(held(&samples), None);
        drop(child.stdin.take());
        child.wait().expect("it ends");
    }
}
