//! The burst programs, loaded apart from the others: for links that put one program on many functions
//! at once (Linux 6.6, `BPF_TRACE_UPROBE_MULTI`), elsewhere for probes that each have a cookie.
//!
//! To take a probe off, the kernel waits until nobody runs it any more, a tenth of a second. Those of one
//! link go together, and wait once; probes of their own wait one after the other. The loader that Plumb
//! uses cannot load a program for such links, so the programs are loaded here, with the maps that are
//! there already.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use aya::Ebpf;
use aya::maps::Map;
use aya_obj::Object;
use aya_obj::btf::Btf;
use aya_obj::generated::{bpf_attr, bpf_cmd, bpf_prog_type};

use crate::Error;
use crate::keeper::{self, UPROBE_MULTI};

/// The programs at functions' entries and returns, and where memory is given back.
#[derive(Debug)]
pub struct Programs {
    together: bool,
    entry: OwnedFd,
    leave: OwnedFd,
    free: OwnedFd,
    told_given: OwnedFd,
    told_freed: OwnedFd,
}

/// The maps of a loaded object by name, kept for programs that are loaded later.
pub fn maps_of(ebpf: &Ebpf) -> io::Result<Vec<(String, OwnedFd)>> {
    let known = ebpf.maps().filter_map(|(name, map)| match map {
        Map::Array(data)
        | Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::PerCpuArray(data)
        | Map::RingBuf(data) => Some((name, data)),
        _ => None,
    });
    known
        .map(|(name, data)| Ok((name.to_owned(), data.fd().as_fd().try_clone_to_owned()?)))
        .collect()
}

impl Programs {
    /// Loads the programs: for links of many functions, where the kernel has such and they are wanted.
    ///
    /// # Errors
    /// A kernel that does not take them.
    pub fn load(object: &[u8], maps: &[(String, OwnedFd)], many: bool) -> Result<Self, Error> {
        let mut object = Object::parse(object).map_err(|e| Error::load("object", &e))?;
        let known = aya::features().btf();
        let btf = known.map(|known| object.fixup_and_sanitize_btf(known)).transpose();
        let btf = btf.map_err(|e| Error::load("BTF", &e))?.flatten();
        let btf = btf.map(|btf| load_btf(&btf.to_bytes())).transpose();
        let btf = btf.map_err(|e| Error::load("BTF", &e))?;
        let kernel = Btf::from_sys_fs().map_err(|e| Error::load("the kernel's BTF", &e))?;
        object.relocate_btf(&kernel).map_err(|e| Error::load("BTF", &e))?;
        let of_object = std::mem::take(&mut object.maps);
        let fd = |name: &str| maps.iter().find(|(n, _)| n == name).map(|(_, fd)| fd.as_raw_fd());
        let maps = of_object.iter().filter_map(|(name, map)| Some((&**name, fd(name)?, map)));
        let text = object.functions.keys().map(|(section, _)| *section).collect();
        object.relocate_maps(maps, &text).map_err(|e| Error::load("maps", &e))?;
        object.relocate_calls(&text).map_err(|e| Error::load("calls", &e))?;
        let btf = btf.as_ref().map(AsFd::as_fd);
        let load = |name: &str, attach_type| {
            let loaded = load_program(&object, name, btf, attach_type);
            loaded.map_err(|e| Error::load(name, &e))
        };
        // Kernels that do not know the type of link load such a program all the same.
        let takes_many = |program: OwnedFd| keeper::takes_many(program.as_fd());
        let together = many && load("asks", UPROBE_MULTI).is_ok_and(takes_many);
        let load = |name: &str| load(name, if together { UPROBE_MULTI } else { 0 });
        Ok(Self {
            together,
            entry: load("asks")?,
            leave: load("gives")?,
            free: load("frees")?,
            told_given: load("told_given")?,
            told_freed: load("told_freed")?,
        })
    }

    /// Whether one link has many functions.
    pub fn together(&self) -> bool {
        self.together
    }

    /// The program at functions' entries.
    pub fn entry(&self) -> BorrowedFd<'_> {
        self.entry.as_fd()
    }

    /// The program at the entries of functions that take memory back.
    pub fn free(&self) -> BorrowedFd<'_> {
        self.free.as_fd()
    }

    /// The program where a target tells of an allocation, or of a free.
    pub fn told(&self, alloc: bool) -> BorrowedFd<'_> {
        if alloc { self.told_given.as_fd() } else { self.told_freed.as_fd() }
    }

    /// The program at their returns.
    pub fn leave(&self) -> BorrowedFd<'_> {
        self.leave.as_fd()
    }
}

fn load_btf(bytes: &[u8]) -> io::Result<OwnedFd> {
    // SAFETY: an all-zero attribute is valid; the kernel reads the bytes during the call.
    unsafe {
        let mut attr: bpf_attr = std::mem::zeroed();
        let ask = &mut attr.__bindgen_anon_7;
        ask.btf = bytes.as_ptr() as u64;
        ask.btf_size = bytes.len() as u32;
        bpf(bpf_cmd::BPF_BTF_LOAD, &attr)
    }
}

fn load_program(
    object: &Object,
    name: &str,
    btf: Option<BorrowedFd<'_>>,
    attach_type: u32,
) -> io::Result<OwnedFd> {
    let program = object.programs.get(name).ok_or(io::ErrorKind::NotFound)?;
    let function = object.functions.get(&program.function_key()).ok_or(io::ErrorKind::NotFound)?;
    let functions = function.func_info.func_info_bytes();
    // SAFETY: an all-zero attribute is valid; the kernel reads instructions, license and function
    // records during the call, in which they live.
    unsafe {
        let mut attr: bpf_attr = std::mem::zeroed();
        let ask = &mut attr.__bindgen_anon_3;
        ask.prog_type = bpf_prog_type::BPF_PROG_TYPE_KPROBE as u32;
        ask.expected_attach_type = attach_type;
        ask.insns = function.instructions.as_ptr() as u64;
        ask.insn_cnt = function.instructions.len() as u32;
        ask.license = program.license.as_ptr() as u64;
        if let Some(btf) = btf {
            ask.prog_btf_fd = btf.as_raw_fd() as u32;
            ask.func_info = functions.as_ptr() as u64;
            ask.func_info_cnt = function.func_info.len() as u32;
            ask.func_info_rec_size = function.func_info_rec_size as u32;
        }
        bpf(bpf_cmd::BPF_PROG_LOAD, &attr)
    }
}

/// # Safety
/// What the attribute points to must live through the call.
unsafe fn bpf(command: bpf_cmd, attr: &bpf_attr) -> io::Result<OwnedFd> {
    // SAFETY: the kernel reads the attribute, and gives a descriptor that is ours.
    unsafe {
        let size = size_of::<bpf_attr>();
        let fd =
            libc::syscall(libc::SYS_bpf, command as libc::c_int, std::ptr::from_ref(attr), size);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd as i32)) }
    }
}
