//! What `hunt` stands on: the programs are loaded and attached, and taken off again.

use std::fs;
use std::path::Path;

use plumb_target::Process;
use plumb_trace::burst::{Bursts, Of};
use plumb_trace::modules::Modules;
use plumb_trace::probe::Probe;
use plumb_trace::unwind::Space;

use super::{Check, State, rights};

const AS_ROOT: &str = "run as root, or give the binary CAP_BPF, CAP_PERFMON and CAP_SYS_PTRACE";

pub(super) fn checks(child: &Process) -> Vec<Check> {
    vec![bpf(), btf(), tracepoints(), uprobes(child), unwinding(child)]
}

fn bpf() -> Check {
    let check = Check::ok("bpf", "`hunt`", "Plumb's programs load and attach");
    match Probe::attach() {
        Ok(_detached_when_dropped) => check,
        Err(error @ plumb_trace::Error::Permission(_)) => {
            Check { found: error.to_string(), ..check }.but(State::Missing, AS_ROOT)
        }
        Err(error) => Check { found: error.to_string(), ..check }.but(
            State::Missing,
            "a kernel of 5.8 or later with CONFIG_BPF_SYSCALL and raw tracepoints is needed",
        ),
    }
}

fn btf() -> Check {
    const FILE: &str = "/sys/kernel/btf/vmlinux";
    let check = Check::ok("btf", "`hunt` on kernels whose structures differ", FILE);
    if fs::metadata(FILE).is_ok_and(|file| file.len() > 0) {
        return check;
    }
    Check { found: format!("no {FILE}"), ..check }
        .but(State::Limited, "use a kernel with CONFIG_DEBUG_INFO_BTF=y")
}

fn tracepoints() -> Check {
    let what = "other tracers; `hunt` attaches raw tracepoints without it";
    let roots = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];
    let mounted = roots.iter().find(|root| Path::new(root).join("events/raw_syscalls").is_dir());
    match mounted {
        Some(root) => Check::ok("tracepoints", what, format!("tracefs at {root}")),
        None => {
            let hidden = !rights::may("SYS_ADMIN");
            let found = if hidden { "tracefs cannot be seen" } else { "tracefs is not mounted" };
            let advice = if hidden {
                "only root may look into tracefs; `hunt` as root does not need it"
            } else {
                "not needed by `hunt`; for other tools: mount -t tracefs tracefs /sys/kernel/tracing"
            };
            Check::ok("tracepoints", what, found).but(State::Limited, advice)
        }
    }
}

fn uprobes(child: &Process) -> Check {
    let check = Check::ok("uprobes", "who holds what is on the heap, in `hunt`", "");
    match probed(child) {
        Ok(found) => Check { found: found.into(), ..check },
        Err(error @ plumb_trace::Error::Permission(_)) => {
            Check { found: error.to_string(), ..check }.but(State::Missing, AS_ROOT)
        }
        Err(error) => Check { found: error.to_string(), ..check }.but(
            State::Limited,
            "a kernel with CONFIG_UPROBE_EVENTS, 5.15 or later; `hunt` traces system calls without",
        ),
    }
}

/// Puts probes on a child's malloc and takes them off again.
fn probed(child: &Process) -> Result<&'static str, plumb_trace::Error> {
    let mut probe = Probe::attach()?;
    let mut bursts = Bursts::new(child, Of::Heap, &mut probe)?;
    bursts.on(&mut probe)?;
    bursts.wait_off(&mut probe);
    Ok(match probe.bursts()?.together() {
        true => "probes on a child's malloc went on and off, together",
        false => "probes on a child's malloc went on and off, one by one",
    })
}

fn unwinding(child: &Process) -> Check {
    let check = Check::ok("unwinding", "stacks in `hunt`", "");
    let (mut space, mut modules) = (Space::new(), Modules::default());
    if let Err(error) = space.refresh(child, &mut modules) {
        let found = error.to_string();
        return Check { found, ..check }.but(State::Missing, AS_ROOT);
    }
    let maps = plumb_target::maps::read(child).unwrap_or_default();
    let code: Vec<_> = maps.iter().filter(|m| m.permissions.execute && m.has_file()).collect();
    let known = code.iter().filter(|map| space.knows(map.start + 64)).count();
    let found = format!("unwind tables of {known} of {} code mappings of a child", code.len());
    let check = Check { found, ..check };
    if known == code.len() && known > 0 {
        return check;
    }
    check.but(
        State::Limited,
        "stacks end at code without .eh_frame; build it with -fasynchronous-unwind-tables",
    )
}
