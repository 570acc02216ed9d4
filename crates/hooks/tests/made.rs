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

/// A function of four bytes that is patched by thirteen, with an unsized symbol before it; a short
/// jump into the padding before a function, where the long one is; each is one row.
#[test]
fn a_patch_that_needs_room_beside_its_function_is_one_row() {
    let victim = victim();
    let image = victim.image("libc.so");
    let symbols = image.symbols().expect("symbols");
    let tight = symbols.all().windows(2).find(|pair| {
        let end = pair[0].address + pair[0].size;
        pair[0].is_function
            && pair[0].is_exported
            && (1..13).contains(&pair[0].size)
            && pair[1].address >= pair[0].address + 13
            && image.function(image.bias + end).is_none()
    });
    let tight = tight.map(|pair| image.bias + pair[0].address).expect("a tiny function");
    victim.write(tight, &jump_to(victim.code_page));
    let hooks = victim.running.scan();
    let [patch] = hooks.patched.as_slice() else { panic!("{hooks:#?}") };
    assert_eq!(
        (patch.address, patch.memory_bytes.as_slice()),
        (tight, &*jump_to(victim.code_page))
    );

    let victim = self::victim();
    let shmdt = victim.address("libc.so", "shmdt");
    let target = victim.address("ld-", "__tls_get_addr");
    victim.write(shmdt, &[0xeb, 0xf9]);
    let near = target.wrapping_sub(shmdt) as u32;
    victim.write(shmdt - 5, &[&[0xe9][..], &near.to_le_bytes()].concat());
    let hooks = victim.running.scan();
    let [patch] = hooks.patched.as_slice() else { panic!("{hooks:#?}") };
    assert_eq!(
        (patch.symbol.as_deref(), patch.memory_bytes.as_slice()),
        (Some("shmdt"), &[0xeb, 0xf9][..])
    );
    assert_eq!(patch.target_symbol.as_deref(), Some("__tls_get_addr"));
}

/// The variant of memset that this processor gets is known by the name that programs call.
#[test]
fn an_indirect_function_has_its_callers_name() {
    let mut python = Command::new("python3");
    let running =
        Running::start(python.args(["-c", "print('ready', flush=True); input()"])).ready();
    let process = running.process();
    let images = images(&process, &maps::read(&process).expect("maps"));
    let memory = OpenOptions::new().read(true).write(true).open(process.path("mem")).expect("root");
    let bound = images.iter().find_map(|user| {
        let file = user.open().ok()?;
        let view = FileView::new(&file, &user.elf);
        let slots = Dynamic::read(&view, &user.elf).slots(&view, |name| name == b"memset");
        let mut word = [0; 8];
        memory.read_exact_at(&mut word, user.bias + slots.first()?.address).ok()?;
        let holds = u64::from_le_bytes(word);
        let libc = plumb_target::image::find(&images, holds)?;
        libc.name().starts_with("libc.so").then_some(holds)
    });
    let bound = bound.expect("a slot for memset");
    memory.write_all_at(&[0x31, 0xc0, 0xc3], bound).expect("written");
    let hooks = running.scan();
    let [patch] = hooks.patched.as_slice() else { panic!("{hooks:#?}") };
    assert_eq!((patch.address, patch.symbol.as_deref()), (bound, Some("memset")));
}

/// Some hooks do not write to text: they put a changed copy of the page in its place.
#[test]
fn a_page_of_text_that_was_replaced_is_compared() {
    const REPLACE: &str = r"
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = libc.mremap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
libc.mremap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p]
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
at = ctypes.cast(libc.shmdt, ctypes.c_void_p).value
page = at & ~4095
copy = libc.mmap(None, 4096, 3, 0x22, -1, 0)
ctypes.memmove(copy, page, 4096)
ctypes.memmove(copy + at - page, b'\x31\xc0\xc3', 3)
libc.mprotect(copy, 4096, 5)
libc.mremap(copy, 4096, 4096, 3, page)
print('ready', flush=True)
input()
";
    let running = Running::start(Command::new("python3").args(["-c", REPLACE])).ready();
    let hooks = running.scan();
    let [patch] = hooks.patched.as_slice() else { panic!("{hooks:#?}") };
    assert_eq!(
        (patch.symbol.as_deref(), &*patch.memory_bytes),
        (Some("shmdt"), &[0x31, 0xc0, 0xc3][..])
    );
}
