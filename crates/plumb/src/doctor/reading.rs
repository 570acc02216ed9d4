//! Reading another process from outside: tried on a child.

use plumb_ledger::{Depth, Sample};
use plumb_target::{Memory, Pagemap, Process, ReadMemory, maps};

use super::{Check, State};

pub(super) fn checks(child: &Process) -> Vec<Check> {
    vec![memory(child), page_table(child), ledger(child)]
}

/// What a refusal means, whoever refused.
const REFUSED: &str = "a seccomp filter or a security module forbids it: in a container, add \
                       --cap-add SYS_PTRACE or a profile that allows process_vm_readv";

fn memory(child: &Process) -> Check {
    let check = Check::ok("read_memory", "heap_in_use, python_in_use", "a child's memory is read");
    let readable = || -> Result<bool, plumb_target::Error> {
        let memory = Memory::open(child)?;
        let maps = maps::read(child)?;
        let code = maps.iter().find(|map| map.permissions.execute && map.has_file());
        let magic = code.and_then(|map| memory.u64_at(map.start));
        Ok(magic.is_some())
    };
    match readable() {
        Ok(true) => check,
        Ok(false) => Check { found: "a child's memory cannot be read".into(), ..check }
            .but(State::Missing, REFUSED),
        Err(error) => Check { found: error.to_string(), ..check }.but(State::Missing, REFUSED),
    }
}

fn page_table(child: &Process) -> Check {
    let check = Check::ok("page_table", "mappings with several owners", "PAGEMAP_SCAN works");
    match Pagemap::open(child) {
        Ok(pagemap) if pagemap.knows_huge() => check,
        Ok(_) => {
            let found = "no PAGEMAP_SCAN: entries are read one by one".into();
            Check { found, ..check }.but(
                State::Limited,
                "Linux 6.7 has the faster call; before it huge_page_slack is not known and large \
                 mappings take longer",
            )
        }
        Err(error) => Check { found: error.to_string(), ..check }.but(State::Missing, REFUSED),
    }
}

fn ledger(child: &Process) -> Check {
    let check = Check::ok("ledger", "`mem`, `watch`", "");
    match plumb_ledger::take(child, Depth::FULL) {
        Ok(sample) => {
            let found = summary(&sample);
            let small =
                sample.residual_bytes.unsigned_abs() <= (sample.rss_bytes / 100).max(1 << 18);
            let check = Check { found, ..check };
            if small {
                return check;
            }
            check.but(State::Limited, "the layers do not add up here: please report this machine")
        }
        Err(error) => Check { found: error.to_string(), ..check }.but(State::Missing, REFUSED),
    }
}

fn summary(sample: &Sample) -> String {
    format!(
        "a child's {} KiB in {} mappings, residual {} bytes",
        sample.rss_bytes >> 10,
        sample.vmas,
        sample.residual_bytes
    )
}
