//! Hooks that this test makes itself, through the memory of a program of the lab that has
//! executable pages of its own: a trampoline, and a slot that was turned elsewhere. Needs root, or
//! the right to trace one's own children.
#![forbid(unsafe_code)]

mod common;

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::process::Command;

use common::{Running, lab};
use plumb_target::image::{Dynamic, FileView};
use plumb_target::{Image, images, maps};

struct Victim {
    running: Running,
    images: Vec<Image>,
    memory: File,
    code_page: u64,
}

fn victim() -> Victim {
    let running = Running::start(&mut Command::new(lab("jit_pages"))).ready();
    let process = running.process();
    let all = maps::read(&process).expect("maps");
    let code = all.iter().find(|map| map.is_anonymous() && map.permissions.execute);
    let memory = OpenOptions::new().write(true).open(process.path("mem")).expect("writable");
    let images = images(&process, &all);
    Victim { running, images, memory, code_page: code.expect("executable pages").start }
}

impl Victim {
    fn image(&self, name: &str) -> &Image {
        self.images.iter().find(|image| image.name().starts_with(name)).expect("an image")
    }

    fn address(&self, image: &str, symbol: &str) -> u64 {
        let image = self.image(image);
        image.bias + image.symbols().expect("symbols").named(symbol).expect(symbol).address
    }

    fn write(&self, address: u64, bytes: &[u8]) {
        self.memory.write_all_at(bytes, address).expect("written");
    }
}

/// `mov r11, target; jmp r11`.
fn jump_to(target: u64) -> Vec<u8> {
    [&[0x49, 0xbb][..], &target.to_le_bytes(), &[0x41, 0xff, 0xe3]].concat()
}

#[test]
fn a_jump_is_followed_through_a_trampoline() {
    let victim = victim();
    // shmdt is not called by the program; its old beginning is kept, as hooks do.
    let at = victim.address("libc.so", "shmdt");
    let target = victim.address("ld-", "__tls_get_addr");
    let saving_registers = [0x50, 0x51, 0x52, 0x5a, 0x59, 0x58];
    let back = jump_to(at + 13);
    let trampoline = [&saving_registers[..], &jump_to(target), &back].concat();
    victim.write(victim.code_page, &trampoline);
    victim.write(at, &jump_to(victim.code_page));

    let hooks = victim.running.scan();
    let [patch] = hooks.patched.as_slice() else { panic!("{hooks:#?}") };
    assert_eq!((patch.symbol.as_deref(), patch.address), (Some("shmdt"), at));
    assert_eq!(patch.target_symbol.as_deref(), Some("__tls_get_addr"));
    assert!(patch.owner.as_deref().is_some_and(|owner| owner.contains("/ld-")), "{patch:?}");
    assert_eq!(patch.memory_bytes, jump_to(victim.code_page));
    assert_eq!(patch.file_bytes.len(), 13);

    // A trampoline that leads to itself is no library.
    victim.write(victim.code_page, &jump_to(victim.code_page));
    let hooks = victim.running.scan();
    assert_eq!((hooks.patched.len(), hooks.patched[0].owner.as_ref()), (1, None));
}

#[test]
fn two_functions_side_by_side_are_two_rows() {
    let victim = victim();
    let (first, second) = (victim.address("libc.so", "shmat"), victim.address("libc.so", "shmdt"));
    victim.write(first, &jump_to(victim.code_page));
    victim.write(second, &[0xc3]);
    let hooks = victim.running.scan();
    let symbols: Vec<_> = hooks.patched.iter().filter_map(|p| p.symbol.as_deref()).collect();
    assert_eq!(symbols, ["shmat", "shmdt"], "{hooks:#?}");
    assert_eq!(hooks.patched[1].memory_bytes, [0xc3]);
}

#[test]
fn a_slot_that_leads_elsewhere_is_named() {
    let victim = victim();
    let image = victim.image("jit_pages");
    let file = image.open().expect("opens");
    let view = FileView::new(&file, &image.elf);
    let slots = Dynamic::read(&view, &image.elf).slots(&view, |name| name == b"mmap");
    let slot = slots.first().expect("a slot for mmap");
    assert!(victim.running.scan().is_clean());

    let elsewhere = victim.address("jit_pages", "main");
    victim.write(image.bias + slot.address, &elsewhere.to_le_bytes());
    let hooks = victim.running.scan();
    let [row] = hooks.interposed.as_slice() else { panic!("{hooks:#?}") };
    let program = image.path.to_string_lossy();
    assert_eq!((row.symbol.as_str(), row.module.as_str()), ("mmap", &*program));
    assert_eq!(row.owner.as_deref(), Some(&*program));

    // Into memory without a file.
    victim.write(image.bias + slot.address, &victim.code_page.to_le_bytes());
    let hooks = victim.running.scan();
    assert_eq!((hooks.interposed.len(), hooks.interposed[0].owner.as_ref()), (1, None));
    assert!(hooks.sentence().contains("Code that no file owns"));
}
