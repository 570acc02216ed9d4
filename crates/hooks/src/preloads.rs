//! Libraries that were loaded before the program's own.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use plumb_target::{Error, Process};

use crate::link::{Linked, Module};
use crate::report::{Preload, PreloadSource};

/// What the environment and the system's list asked for, and what only a preload explains.
pub(crate) fn find(process: &Process, linked: &Linked) -> Result<Vec<Preload>, Error> {
    let mut found: Vec<Preload> = Vec::new();
    for (variable, source) in
        [("LD_PRELOAD", PreloadSource::Preload), ("LD_AUDIT", PreloadSource::Audit)]
    {
        let value = process.environment(variable)?.unwrap_or_default();
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        found.extend(asked(linked, &value, source));
    }
    let system = process.path_in_root(Path::new("/etc/ld.so.preload"));
    let system = std::fs::read(system).unwrap_or_default();
    found.extend(asked(linked, &without_comments(&system), PreloadSource::System));
    for &index in linked.namespaces.first().map_or(&[][..], |n| &n.preloads) {
        let module = linked.modules[index].path();
        if !found.iter().any(|preload| preload.module == module) {
            found.push(Preload { module, source: PreloadSource::LinkMap, loaded: true });
        }
    }
    Ok(found)
}

fn without_comments(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    lines.collect::<Vec<_>>().join(" ")
}

/// The items of a list, with the full paths of those that are loaded.
fn asked(linked: &Linked, list: &str, source: PreloadSource) -> Vec<Preload> {
    let items = list.split([' ', ':', '\t', '\n']).filter(|item| !item.is_empty());
    items
        .map(|item| {
            let module = linked.modules.iter().find(|module| module.answers_to(item));
            let path = module.map_or_else(|| item.to_owned(), Module::path);
            Preload { module: path, source, loaded: module.is_some() }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_list_has_comments() {
        let text = without_comments(b"/a.so # why\n# nothing\n/b.so:/c.so\n");
        let nobody = Linked { modules: Vec::new(), namespaces: Vec::new() };
        let found = asked(&nobody, &text, PreloadSource::System);
        let paths: Vec<&str> = found.iter().map(|p| p.module.as_str()).collect();
        assert_eq!(paths, ["/a.so", "/b.so", "/c.so"]);
        assert!(found.iter().all(|p| !p.loaded));
    }
}
