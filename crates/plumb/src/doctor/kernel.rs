//! The kernel: its version, and settings that change what can be seen.

use std::fs;
use std::path::Path;

use plumb_target::{Process, cgroups};

use super::{Check, State};

/// A file's text without white space at its ends; none where it cannot be read.
pub(super) fn text(path: impl AsRef<Path>) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

pub(super) fn checks() -> Vec<Check> {
    vec![version(), cgroup(), huge_pages()]
}

/// BPF ring buffers need 5.8, and are what the programs send with.
const OLDEST: (u32, u32) = (5, 8);
/// On which `mem`, `watch` and `hunt` were run: Debian's own and the one of our tests.
const TESTED: [(u32, u32); 4] = [(5, 10), (6, 1), (6, 12), (6, 18)];

fn version() -> Check {
    let release = text("/proc/sys/kernel/osrelease").unwrap_or_default();
    let check = Check::ok("kernel", "everything", format!("Linux {release}"));
    match parse(&release) {
        Some(version) if TESTED.contains(&version) => check,
        Some(version) if version >= OLDEST => {
            Check { found: format!("Linux {release}: untested"), ..check }.but(
                State::Limited,
                "features are tried before they are used; the lines below say what was found",
            )
        }
        _ => check.but(
            State::Limited,
            "`mem` and `watch` work; `hunt` needs Linux 5.8 or later for BPF ring buffers",
        ),
    }
}

fn parse(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn cgroup() -> Check {
    let what = "time to out-of-memory in `watch`, the cgroup's split in `mem`";
    match cgroups::memory(&Process::own()) {
        Some((directory, version)) => Check::ok(
            "cgroup",
            what,
            format!("version {version}, memory controller at {}", directory.display()),
        ),
        None => Check::ok("cgroup", what, "no memory controller is mounted here").but(
            State::Limited,
            "mount the cgroup file system (in a container: give it /sys/fs/cgroup); until then \
             `watch` counts towards the machine's memory and the process's own limits only",
        ),
    }
}

fn huge_pages() -> Check {
    let what = "`huge_page_slack`";
    let setting = text("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
    let chosen = setting.split(['[', ']']).nth(1).unwrap_or("none").to_owned();
    let check = Check::ok("transparent_huge_pages", what, format!("mode {chosen}"));
    match chosen.as_str() {
        "always" => check.but(
            State::Limited,
            "every large mapping may be rounded up to 2 MiB pages: where `mem` shows much \
             huge_page_slack, write `madvise` to /sys/kernel/mm/transparent_hugepage/enabled",
        ),
        _ => check,
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn releases() {
        assert_eq!(parse("6.18.44-custom"), Some((6, 18)));
        assert_eq!(parse("5.8"), Some((5, 8)));
        assert_eq!(parse("unknown"), None);
    }
}
