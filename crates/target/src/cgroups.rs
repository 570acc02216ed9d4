//! The control groups of a process, in both versions of the hierarchy, and where they are mounted.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::Process;

/// A process's place in one cgroup hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroup {
    /// The hierarchy's controllers; empty for version 2.
    pub controllers: Vec<String>,
    /// The path within the hierarchy.
    pub path: String,
}

impl Cgroup {
    /// Whether it is the container's whose id starts so: `docker-ID.scope`, `cri-containerd-ID.scope`,
    /// `…:cri-containerd:ID`, `libpod-ID.scope`, `/docker/ID`. What watches a container for its engine
    /// is none of its processes.
    pub fn is_container(&self, id: &str) -> bool {
        self.path.split('/').any(|name| {
            !name.contains("conmon") && name.split(['-', '.', ':']).any(|word| word.starts_with(id))
        })
    }
}

/// The cgroups that a process is in, one a hierarchy; none where they cannot be read.
pub fn of(process: &Process) -> Vec<Cgroup> {
    parse(&String::from_utf8_lossy(&process.read("cgroup").unwrap_or_default()))
}

fn parse(text: &str) -> Vec<Cgroup> {
    text.lines()
        .filter_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let controllers = parts.next()?.split(',').filter(|c| !c.is_empty());
            let controllers = controllers.map(str::to_owned).collect();
            Some(Cgroup { controllers, path: parts.next()?.to_owned() })
        })
        .collect()
}

/// Where a hierarchy is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mount {
    /// Which of its groups is seen at the mount's root: in a container often the container's own.
    root: String,
    at: PathBuf,
    version: u8,
    /// Of version 1, its controllers among other options.
    options: String,
}

fn mounts() -> &'static [Mount] {
    static MOUNTS: OnceLock<Vec<Mount>> = OnceLock::new();
    let read = || fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    MOUNTS.get_or_init(|| parse_mounts(&read()))
}

/// `/proc/PID/mountinfo`: id, parent, device, root, mount point, options, optional fields, `-`, type,
/// source, options of the file system.
fn parse_mounts(text: &str) -> Vec<Mount> {
    let mount = |line: &str| {
        let (mount, system) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(3);
        let mut system = system.split(' ');
        let version = match system.next()? {
            "cgroup" => 1,
            "cgroup2" => 2,
            _ => return None,
        };
        let options = system.nth(1).unwrap_or_default().into();
        Some(Mount { root: mount.next()?.into(), at: mount.next()?.into(), version, options })
    };
    text.lines().filter_map(mount).collect()
}

/// The path within a hierarchy of a group that is named by its directory; other paths are as they are.
pub(crate) fn within_hierarchy(path: &str) -> String {
    let named = |mount: &Mount| {
        let inside = Path::new(path).strip_prefix(&mount.at).ok()?;
        Some((mount.at.as_os_str().len(), Path::new(&mount.root).join(inside)))
    };
    let longest = mounts().iter().filter_map(named).max_by_key(|(length, _)| *length);
    let found = longest.map(|(_, path)| path.to_string_lossy().trim_end_matches('/').to_owned());
    found.filter(|path| !path.is_empty()).unwrap_or_else(|| path.to_owned())
}

/// The directory in which the memory of a process's cgroup is counted and the version of the hierarchy
/// (1 or 2), where it is mounted here. A group of version 2 without the controller is counted in the
/// nearest one above it that has it.
pub fn memory(process: &Process) -> Option<(PathBuf, u8)> {
    let (groups, version) = groups(&of(process), mounts(), "memory")?;
    groups.into_iter().find(|dir| dir.join("memory.stat").is_file()).map(|dir| (dir, version))
}

/// The directories of a process's group and of those above it, innermost first, in the hierarchy that
/// has this controller, as far as it is mounted here; and its version.
fn groups(of: &[Cgroup], mounts: &[Mount], controller: &str) -> Option<(Vec<PathBuf>, u8)> {
    let v1 = of.iter().find(|g| g.controllers.iter().any(|c| c == controller));
    let (group, version) = match v1 {
        Some(v1) => (v1, 1),
        None => (of.iter().find(|g| g.controllers.is_empty())?, 2),
    };
    // It is outside of what our own namespace shows.
    if group.path.starts_with("/..") {
        return None;
    }
    let has = |mount: &&Mount| {
        mount.version == version
            && (version == 2 || mount.options.split(',').any(|option| option == controller))
    };
    let found = mounts.iter().filter(has).find_map(|mount| {
        // A root above our own namespace's is at least above the group.
        let above = mount.root.starts_with("/..");
        let root = if above { group.path.as_str() } else { &mount.root };
        let inside = Path::new(&group.path).strip_prefix(root).ok()?;
        let directory = mount.at.join(inside);
        let groups = directory.ancestors().take_while(|dir| dir.starts_with(&mount.at));
        Some(groups.map(Path::to_owned).collect::<Vec<_>>())
    });
    found.map(|groups| (groups, version))
}

/// Limits on processor time that hold for a process: its group's and those of the groups above it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Quotas {
    counted_in: Vec<PathBuf>,
}

impl Quotas {
    /// Those in force now; mostly there are none.
    pub fn of(process: &Process) -> Self {
        Self::among(groups(&of(process), mounts(), "cpu"))
    }

    fn among(groups: Option<(Vec<PathBuf>, u8)>) -> Self {
        let Some((groups, version)) = groups else { return Self::default() };
        let (file, none) =
            if version == 1 { ("cpu.cfs_quota_us", "-") } else { ("cpu.max", "max") };
        let limits =
            |dir: &PathBuf| fs::read_to_string(dir.join(file)).is_ok_and(|t| !t.starts_with(none));
        let counted_in = groups.into_iter().filter(limits).map(|dir| dir.join("cpu.stat"));
        Self { counted_in: counted_in.collect() }
    }

    /// For how many seconds these groups were kept from running, of all their processors together;
    /// `None` where nothing limits them.
    pub fn throttled_s(&self) -> Option<f64> {
        let seconds = |text: String| {
            let row =
                |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.parse().ok());
            let version_1 = row("throttled_time ").map(|nanoseconds: f64| nanoseconds * 1e-9);
            version_1.or_else(|| Some(row("throttled_usec ")? * 1e-6))
        };
        let counted = self.counted_in.iter().filter_map(|file| fs::read_to_string(file).ok());
        counted.filter_map(seconds).reduce(|all, group| all + group)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4f5c0ad5d1b0c9c3d7a9e1f2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6";

    #[test]
    fn containers_are_known_by_their_ids_whoever_runs_them() {
        for path in [
            format!("/docker/{ID}"),
            format!("/system.slice/docker-{ID}.scope"),
            format!("/user.slice/user-1000.slice/user@1000.service/user.slice/docker-{ID}.scope"),
            format!("/machine.slice/libpod-{ID}.scope"),
            format!("/machine.slice/libpod-{ID}.scope/container"),
            format!("/kubepods/burstable/pod12e4-88/{ID}"),
            format!(
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1b_2c.slice/\
                 cri-containerd-{ID}.scope"
            ),
            format!("/kubepods.slice/kubepods-pod1b_2c.slice/crio-{ID}.scope"),
            format!("/system.slice/containerd.service/kubepods-pod1b.slice:cri-containerd:{ID}"),
        ] {
            for id in [ID, &ID[..12]] {
                assert!(parse(&format!("0::{path}\n"))[0].is_container(id), "{path}");
            }
            assert!(!parse(&format!("0::{path}\n"))[0].is_container(&ID[1..13]), "{path}");
        }
        for path in ["/machine.slice/libpod-conmon-", "/kubepods.slice/crio-conmon-"] {
            assert!(!parse(&format!("0::{path}{ID}.scope\n"))[0].is_container(ID), "{path}");
        }
    }

    /// Where the memory of `group` is counted, in a folder with these files of the hierarchy.
    fn counted(group: &str, mounts: &str, files: &[&str]) -> Option<(String, u8)> {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().to_str().unwrap();
        for file in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "anon 1\n").unwrap();
        }
        let mounts = parse_mounts(&mounts.replace("AT", at));
        let (groups, version) = groups(&parse(group), &mounts, "memory")?;
        let found = groups.into_iter().find(|dir| dir.join("memory.stat").is_file())?;
        Some((found.strip_prefix(at).unwrap().to_str().unwrap().to_owned(), version))
    }

    #[test]
    fn a_group_of_version_2_is_counted_where_the_controller_is() {
        let mounts = "29 23 0:26 / AT rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n\
                      30 23 0:27 / /proc rw - proc proc rw\n";
        let files =
            ["memory.stat", "system.slice/memory.stat", "system.slice/a.service/memory.stat"];
        let of = |group| counted(group, mounts, &files);
        let expected = |path: &str| Some((path.to_owned(), 2));
        assert_eq!(of("0::/system.slice/a.service\n"), expected("system.slice/a.service"));
        assert_eq!(of("0::/system.slice/b.service/x\n"), expected("system.slice"));
        assert_eq!(of("0::/\n"), expected(""));
        assert_eq!(of("0::/../other.slice\n"), None, "outside of our namespace");
        assert_eq!(counted("0::/a\n", mounts, &[]), None);
    }

    #[test]
    fn what_is_mounted_may_be_a_part_and_both_versions_side_by_side() {
        let mounts = "31 30 0:28 /docker/abc AT/m rw - cgroup cgroup rw,memory\n\
                      32 30 0:29 / AT/u rw - cgroup2 cgroup2 rw\n\
                      33 30 0:30 / AT/c rw - cgroup cgroup rw,cpu\n";
        let files = ["m/memory.stat", "m/x/memory.stat", "u/memory.stat"];
        let group = |path| format!("4:memory:{path}\n1:cpu:/\n0::/\n");
        let of = |path| counted(&group(path), mounts, &files);
        assert_eq!(of("/docker/abc/x"), Some(("m/x".into(), 1)));
        assert_eq!(of("/docker/abc"), Some(("m".into(), 1)));
        assert_eq!(of("/docker/def"), None, "another container's is not ours");
    }

    /// The seconds for which a group is throttled, where files of the hierarchy hold these texts.
    fn throttled(group: &str, mounts: &str, files: &[(&str, &str)]) -> Option<f64> {
        let folder = tempfile::tempdir().unwrap();
        for (file, text) in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let mounts = parse_mounts(&mounts.replace("AT", folder.path().to_str().unwrap()));
        Quotas::among(groups(&parse(group), &mounts, "cpu")).throttled_s()
    }

    #[test]
    fn a_quota_of_the_group_or_of_one_above_it_is_counted_in_either_version() {
        let v2 = "29 23 0:26 / AT rw - cgroup2 cgroup2 rw\n";
        let stat = "usage_usec 9\nnr_throttled 4\nthrottled_usec 2500000\nnr_bursts 0\n";
        let files = [
            ("pod/cpu.max", "50000 100000\n"),
            ("pod/cpu.stat", stat),
            ("pod/a/cpu.max", "max 100000\n"),
            ("pod/a/cpu.stat", "usage_usec 9\nthrottled_usec 7\n"),
        ];
        assert_eq!(throttled("0::/pod/a\n", v2, &files), Some(2.5));
        assert_eq!(throttled("0::/other\n", v2, &files), None);
        let v1 = "33 30 0:30 / AT rw - cgroup cgroup rw,cpu,cpuacct\n";
        let stat = "nr_periods 50\nnr_throttled 50\nthrottled_time 3144280234\n";
        let files = [
            ("docker/b/cpu.cfs_quota_us", "20000\n"),
            ("docker/b/cpu.stat", stat),
            ("docker/cpu.cfs_quota_us", "-1\n"),
            ("docker/cpu.stat", stat),
        ];
        let of = |group: &str| throttled(&format!("1:cpu,cpuacct:{group}\n0::/\n"), v1, &files);
        assert!((of("/docker/b").expect("a quota") - 3.144).abs() < 0.001);
        assert_eq!(of("/docker"), None);
    }
}
