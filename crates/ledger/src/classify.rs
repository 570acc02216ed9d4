//! The layer of a mapping that nobody claims, by its kind alone.

use std::collections::HashSet;
use std::os::unix::ffi::OsStrExt;

use plumb_target::{Image, Map, mounts::MemoryMounts};

use crate::Layer;

/// What decides the layer of a whole mapping.
#[derive(Debug, Default)]
pub struct Kinds {
    /// Device and inode of every ELF file that is loaded.
    code: HashSet<((u32, u32), u64)>,
    mounts: MemoryMounts,
    /// The layer of `[heap]` outside every claim: `anonymous` where the allocator's own records say
    /// that it is not theirs, `heap` where they cannot be read.
    brk: Option<Layer>,
}

impl Kinds {
    /// Of a process with these images and mounts.
    pub fn new(maps: &[Map], images: &[Image], mounts: MemoryMounts) -> Self {
        let loaded = maps.iter().filter(|map| {
            map.has_file() && images.iter().any(|image| image.range.contains(&map.start))
        });
        let code = loaded.map(|map| (map.device, map.inode)).collect();
        Self { code, mounts, brk: None }
    }

    /// Says whose the rest of `[heap]` is.
    pub fn set_brk(&mut self, layer: Layer) {
        self.brk = Some(layer);
    }

    /// The layer of a mapping.
    pub fn layer(&self, map: &Map) -> Layer {
        let name = map.name.as_bytes();
        if map.has_file() {
            return self.file_layer(map, name);
        }
        match name {
            b"[stack]" => Layer::Stacks,
            b"[heap]" => self.brk.unwrap_or(Layer::Heap),
            b"[vdso]" | b"[vsyscall]" | b"[uprobes]" => Layer::Code,
            _ if name.starts_with(b"[vvar") => Layer::Code,
            _ if name.starts_with(b"[anon_shmem:") || map.permissions.shared => Layer::Shared,
            _ if name.starts_with(b"[stack") => Layer::Stacks,
            _ if name.starts_with(b"anon_inode:") => Layer::Device,
            _ if map.permissions.execute => Layer::Jit,
            _ => Layer::Anonymous,
        }
    }

    fn file_layer(&self, map: &Map, name: &[u8]) -> Layer {
        if self.code.contains(&(map.device, map.inode)) {
            return Layer::Code;
        }
        let is_memory = name.starts_with(b"/memfd:")
            || name.starts_with(b"/SYSV")
            || name.starts_with(b"/dev/shm/")
            || name.starts_with(b"/dev/zero")
            || name.starts_with(b"[anon_shmem:")
            || self.mounts.is_memory(map.device) && !name.starts_with(b"/dev/");
        let is_device = name.starts_with(b"/dev/")
            || name.starts_with(b"anon_inode:")
            || name.starts_with(b"/dmabuf:")
            || name.starts_with(b"/drm ");
        match (is_memory, is_device) {
            // Runtimes that never map code writable and executable at once go through a memfd.
            (true, _) if map.permissions.execute => Layer::Jit,
            (true, _) => Layer::Shared,
            (false, true) => Layer::Device,
            // A file that is mapped executable but is not ELF is still somebody's code.
            (false, false) if map.permissions.execute => Layer::Code,
            (false, false) => Layer::Files,
        }
    }
}

/// What a person calls a mapping that nobody claims.
pub fn describe(map: &Map) -> String {
    if map.name.is_empty() {
        return if map.permissions.execute { "anonymous, executable" } else { "anonymous" }.into();
    }
    map.name.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use plumb_target::maps;

    fn layer(line: &str) -> Layer {
        let mounts = MemoryMounts::parse(b"1 1 0:50 / /scratch rw - tmpfs tmpfs rw\n");
        let map = &maps::parse(line.as_bytes()).unwrap()[0];
        Kinds::new(&[], &[], mounts).layer(map)
    }

    #[test]
    fn kinds_of_mappings() {
        for (line, expected) in [
            ("1000-2000 rw-p 0 00:00 0 ", Layer::Anonymous),
            ("1000-2000 rwxp 0 00:00 0 ", Layer::Jit),
            ("1000-2000 rw-p 0 00:00 0 [heap]", Layer::Heap),
            ("1000-2000 rw-p 0 00:00 0 [stack]", Layer::Stacks),
            ("1000-2000 rw-p 0 00:00 0 [anon:weights]", Layer::Anonymous),
            ("1000-2000 r-xp 0 00:00 0 [vdso]", Layer::Code),
            ("1000-2000 rw-s 0 00:01 7 /memfd:kv (deleted)", Layer::Shared),
            ("1000-2000 r-xs 0 00:01 7 /memfd:code (deleted)", Layer::Jit),
            ("1000-2000 rw-s 0 00:01 9 /SYSV00000000 (deleted)", Layer::Shared),
            ("1000-2000 rw-s 0 00:01 9 /dev/zero (deleted)", Layer::Shared),
            ("1000-2000 rw-s 0 00:19 9 /dev/shm/pool", Layer::Shared),
            ("1000-2000 rw-s 0 00:32 9 /scratch/pool", Layer::Shared),
            ("1000-2000 rw-s 0 00:06 9 /dev/nvidia0", Layer::Device),
            ("1000-2000 rw-s 0 00:0e 9 anon_inode:[io_uring]", Layer::Device),
            ("1000-2000 r--p 0 fe:00 9 /models/a.gguf", Layer::Files),
            ("1000-2000 r-xp 0 fe:00 9 /opt/odd", Layer::Code),
        ] {
            assert_eq!(layer(line), expected, "{line}");
        }
    }
}
