//! Programs whose memory functions lead elsewhere: who, where, and to whom.
#![forbid(unsafe_code)]

mod common;

use std::process::Command;

use common::{Running, lab, library, tracers};
use plumb_hooks::PreloadSource;

#[test]
fn a_patched_munmap_is_named_with_its_bytes() {
    let running = Running::start(&mut Command::new(lab("munmap_patched"))).ready();
    let hooks = running.scan();
    let [patch] = hooks.patched.as_slice() else { panic!("{hooks:#?}") };
    assert_eq!(patch.symbol.as_deref(), Some("munmap"));
    assert!(patch.aliases.iter().any(|name| name == "__munmap"), "{patch:?}");
    assert!(patch.module.contains("libc.so"), "{patch:?}");
    assert_eq!((patch.target_symbol.as_deref(), patch.owner.as_deref()), (None, None));
    assert_eq!(patch.memory_bytes, [0x31, 0xc0, 0xc3]);
    assert_eq!(patch.file_bytes.len(), 3);
    assert_eq!((hooks.interposed.len(), tracers(&hooks).len()), (0, 0));
    assert!(hooks.text_differs(&(patch.address..patch.address + 1)));
    assert!(!hooks.text_differs(&(patch.address + 3..patch.address + 64)));
    assert!(hooks.module_differs(patch.module.as_ref()));

    let json = serde_json::to_value(&hooks).expect("serialises");
    assert_eq!(json["patched"][0]["memory_bytes"], "31c0c3");
    for key in ["patched", "interposed", "preloads", "tracers"] {
        assert!(json[key].is_array(), "{json}");
    }
}

#[test]
fn a_preload_is_named_however_it_came() {
    let preload = lab("munmap_preload.so");
    let program = lab("mmap_freed");
    let mut by_environment = Command::new(&program);
    by_environment.env("LD_PRELOAD", &preload);
    let mut by_linker = Command::new("/lib64/ld-linux-x86-64.so.2");
    by_linker.arg("--preload").arg(&preload).arg(&program);
    for (mut command, source) in
        [(by_environment, PreloadSource::Preload), (by_linker, PreloadSource::LinkMap)]
    {
        let hooks = Running::start(&mut command).ready().scan();
        let path = preload.to_string_lossy().into_owned();
        assert_eq!(hooks.preloads.len(), 1, "{hooks:#?}");
        let found = &hooks.preloads[0];
        assert_eq!((&found.module, found.source, found.loaded), (&path, source, true));
        let [row] = hooks.interposed.as_slice() else { panic!("{hooks:#?}") };
        assert_eq!((row.symbol.as_str(), row.owner.as_ref()), ("munmap", Some(&path)));
        assert!(row.module.contains("libc.so"), "{row:?}");
        assert_eq!(hooks.patched, []);
    }
}

#[test]
fn allocators_that_stand_before_the_c_library_are_named() {
    for name in ["libjemalloc.so", "libmimalloc.so", "libtcmalloc.so"] {
        let path = library(name).to_string_lossy().into_owned();
        let mut command = Command::new("python3");
        command.env("LD_PRELOAD", &path).args(["-c", "print('ready', flush=True); input()"]);
        let hooks = Running::start(&mut command).ready().scan();
        for function in ["malloc", "calloc", "realloc", "free", "posix_memalign"] {
            let row = hooks.interposed.iter().find(|row| row.symbol == function);
            let row = row.unwrap_or_else(|| panic!("{function}: {hooks:#?}"));
            assert_eq!(row.owner.as_ref(), Some(&path));
        }
        assert!(hooks.interposed.iter().all(|row| row.owner.as_ref() == Some(&path)), "{hooks:#?}");
        assert_eq!(hooks.patched, []);
    }
}
