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
    /// Of version 1, whether it has the memory controller.
    memory: bool,
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
        let options = system.nth(1).unwrap_or_default();
        let memory = options.split(',').any(|option| option == "memory");
        Some(Mount { root: mount.next()?.into(), at: mount.next()?.into(), version, memory })
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
    memory_of(&of(process), mounts())
}

fn memory_of(groups: &[Cgroup], mounts: &[Mount]) -> Option<(PathBuf, u8)> {
    let v1 = groups.iter().find(|g| g.controllers.iter().any(|c| c == "memory"));
    let (group, version) = match v1 {
        Some(v1) => (v1, 1),
        None => (groups.iter().find(|g| g.controllers.is_empty())?, 2),
    };
    // It is outside of what our own namespace shows.
    if group.path.starts_with("/..") {
        return None;
    }
    let of_version = mounts.iter().filter(|m| m.version == version && (m.memory || version == 2));
    let found = of_version.filter_map(|mount| {
        // A root above our own namespace's is at least above the group.
        let above = mount.root.starts_with("/..");
        let root = if above { group.path.as_str() } else { &mount.root };
        let inside = Path::new(&group.path).strip_prefix(root).ok()?;
        let directory = mount.at.join(inside);
        let counted = directory.ancestors().take_while(|dir| dir.starts_with(&mount.at));
        counted.map(Path::to_owned).find(|dir| dir.join("memory.stat").is_file())
    });
    found.map(|dir| (dir, version)).next()
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
        let (found, version) = memory_of(&parse(group), &parse_mounts(&mounts.replace("AT", at)))?;
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
}
