//! What this user may do.

use super::kernel::text;
use super::{Check, State};

/// Capabilities that Plumb uses, by their bit (linux/capability.h).
const USED: [(&str, u32); 4] =
    [("SYS_PTRACE", 19), ("SYS_ADMIN", 21), ("PERFMON", 38), ("BPF", 39)];

pub(super) fn checks() -> Vec<Check> {
    vec![capabilities(), ptrace_scope(), perf_events()]
}

fn effective() -> u64 {
    let status = text("/proc/self/status").unwrap_or_default();
    let row = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    row.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0)
}

fn names(effective: u64, held: bool) -> String {
    let bit = |bit: u32| effective >> bit & 1 == 1;
    let names: Vec<&str> = USED.iter().filter(|(_, b)| bit(*b) == held).map(|(n, _)| *n).collect();
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

/// Whether this user may do what the named capability allows.
pub(super) fn may(name: &str) -> bool {
    USED.iter().any(|(n, bit)| *n == name && effective() >> bit & 1 == 1)
}

fn capabilities() -> Check {
    let effective = effective();
    let found = format!("held: {}; not held: {}", names(effective, true), names(effective, false));
    let check = Check::ok("capabilities", "other users' processes, `hunt`", found);
    if USED.iter().all(|(_, bit)| effective >> bit & 1 == 1) {
        return check;
    }
    let enough = may("SYS_PTRACE") && (may("SYS_ADMIN") || (may("BPF") && may("PERFMON")));
    if enough {
        return check;
    }
    let state = if effective == 0 { State::Missing } else { State::Limited };
    check.but(
        state,
        "run as root, or `setcap cap_bpf,cap_perfmon,cap_sys_ptrace+ep` on the binary (in a \
         container: --cap-add); without them `mem` and `watch` see this user's own processes",
    )
}

fn ptrace_scope() -> Check {
    let what = "reading heaps of other processes";
    let Some(scope) = text("/proc/sys/kernel/yama/ptrace_scope") else {
        return Check::ok(
            "ptrace_scope",
            what,
            "no Yama: a user may read the user's own processes",
        );
    };
    let check = Check::ok("ptrace_scope", what, format!("yama.ptrace_scope = {scope}"));
    match scope.as_str() {
        "0" => check,
        "3" => check.but(
            State::Missing,
            "no process may be read until the next boot; boot with kernel.yama.ptrace_scope=1",
        ),
        _ if may("SYS_PTRACE") => check,
        _ => check.but(
            State::Limited,
            "only children of the reader may be read: start the target with `plumb watch -- CMD`, \
             or run as root, or `sysctl kernel.yama.ptrace_scope=0`",
        ),
    }
}

fn perf_events() -> Check {
    let what = "`hunt`";
    let Some(level) = text("/proc/sys/kernel/perf_event_paranoid") else {
        return Check::ok("perf_event_paranoid", what, "the kernel has no perf events").but(
            State::Limited,
            "`hunt` does without them; a kernel with CONFIG_PERF_EVENTS has them",
        );
    };
    let check = Check::ok("perf_event_paranoid", what, level.clone());
    let free = level.parse::<i32>().is_ok_and(|level| level < 0);
    if free || may("PERFMON") || may("SYS_ADMIN") {
        return check;
    }
    check.but(
        State::Limited,
        "events of the kernel are for CAP_PERFMON: run `hunt` as root, or with that capability",
    )
}
