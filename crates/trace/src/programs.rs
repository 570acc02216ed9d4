//! The burst programs for kernels that put one program on many functions at once (Linux 6.6,
//! `BPF_TRACE_UPROBE_MULTI`).
//!
//! To take a probe off, the kernel waits until nobody runs it any more, a tenth of a second. Probes of
//! their own wait one after the other, so that the last of twenty is on for two seconds; those of one
//! link go together, and wait once. The loader that Plumb uses cannot load a program for it, so the
//! programs are loaded here, with the maps that are there already.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use aya::Ebpf;
use aya::maps::Map;
use aya_obj::Object;
use aya_obj::btf::{Btf, BtfFeatures};
use aya_obj::generated::{bpf_attach_type, bpf_attr, bpf_cmd, bpf_prog_type};

use crate::Error;

/// The programs at functions' entries and returns, and where memory is given back.
#[derive(Debug)]
pub struct Multi {
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

impl Multi {
    /// Loads the programs.
    ///
    /// # Errors
    /// A kernel that does not know such links.
    pub fn load(object: &[u8], maps: &[(String, OwnedFd)]) -> Result<Self, Error> {
        let mut object = Object::parse(object).map_err(|e| Error::load("object", &e))?;
        // A kernel with such links knows all of BTF that this loader does.
        let all = BtfFeatures::new(true, true, true, true, true, true, true, true);
        let btf = object.fixup_and_sanitize_btf(&all).map_err(|e| Error::load("BTF", &e))?;
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
        let load = |name: &str| {
            load_program(&object, name, btf.as_ref().map(AsFd::as_fd))
                .map_err(|e| Error::load(name, &e))
        };
        Ok(Self {
            entry: load("asks")?,
            leave: load("gives")?,
            free: load("frees")?,
            told_given: load("told_given")?,
            told_freed: load("told_freed")?,
        })
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

fn load_program(object: &Object, name: &str, btf: Option<BorrowedFd<'_>>) -> io::Result<OwnedFd> {
    let program = object.programs.get(name).ok_or(io::ErrorKind::NotFound)?;
    let function = object.functions.get(&program.function_key()).ok_or(io::ErrorKind::NotFound)?;
    let functions = function.func_info.func_info_bytes();
    // SAFETY: an all-zero attribute is valid; the kernel reads instructions, license and function
    // records during the call, in which they live.
    unsafe {
        let mut attr: bpf_attr = std::mem::zeroed();
        let ask = &mut attr.__bindgen_anon_3;
        ask.prog_type = bpf_prog_type::BPF_PROG_TYPE_KPROBE as u32;
        ask.expected_attach_type = bpf_attach_type::BPF_TRACE_UPROBE_MULTI as u32;
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
