//! Executable files of a process that cannot be compared with its memory.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;

use plumb_target::{Map, image};

use crate::report::Unread;
use crate::scan::Scene;

/// Each executable mapping of a file that no image was read from, with the reason. Files that are
/// no ELF files hold code that some runtime made: there is nothing to compare them with.
pub(crate) fn find(scene: &Scene) -> Vec<Unread> {
    let mut found: Vec<Unread> = Vec::new();
    let executable = scene.maps.iter().filter(|map| map.has_file() && map.permissions.execute);
    for map in executable.filter(|map| image::find(scene.images, map.start).is_none()) {
        let Some(path) = map.path() else { continue };
        let module = path.to_string_lossy().into_owned();
        if map.permissions.shared || found.iter().any(|unread| unread.module == module) {
            continue;
        }
        if let Some(reason) = reason(scene, map) {
            found.push(Unread { module, reason: reason.to_owned() });
        }
    }
    found
}

fn reason(scene: &Scene, map: &Map) -> Option<&'static str> {
    let path = map.path()?;
    if path.to_string_lossy().starts_with("/memfd:") || path.starts_with("/dev") {
        return None;
    }
    if map.is_deleted() {
        return Some("deleted or replaced on disk since it was mapped");
    }
    let Ok(mut file) = File::open(scene.process.path_in_root(path)) else {
        return Some("cannot be opened");
    };
    if file.metadata().is_ok_and(|meta| meta.ino() != map.inode) {
        return Some("replaced on disk since it was mapped");
    }
    let mut head = [0; 5];
    let is_elf = file.read_exact(&mut head).is_ok() && head.starts_with(b"\x7fELF");
    match head[4] {
        1 if is_elf => Some("a 32-bit file: only 64-bit ones are read"),
        _ if scene.images.iter().any(|image| image.path == path) => None,
        _ if is_elf => Some("an ELF file that is not understood"),
        _ => None,
    }
}
