//! The bytes of another process, read without stopping it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::{Error, PAGE, Process};

/// Bytes at addresses: a live process, or an image of one.
pub trait ReadMemory {
    /// Copies the bytes at `address` into `out` and returns how many could be read from its start:
    /// fewer than `out.len()` where the mapping ends or a page is unreadable.
    fn read_at(&self, address: u64, out: &mut [u8]) -> usize;

    /// Reads pieces of `each` bytes at many addresses into `out` (`addresses.len() * each` bytes).
    /// Pieces that cannot be read are zero.
    fn read_scattered(&self, addresses: &[u64], each: usize, out: &mut [u8]) {
        for (&address, piece) in addresses.iter().zip(out.chunks_exact_mut(each)) {
            if self.read_at(address, piece) < each {
                piece.fill(0);
            }
        }
    }

    /// All of `out`, or nothing.
    fn read_exact(&self, address: u64, out: &mut [u8]) -> Option<()> {
        (self.read_at(address, out) == out.len()).then_some(())
    }

    /// A little-endian word.
    fn u64_at(&self, address: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        self.read_exact(address, &mut bytes)?;
        Some(u64::from_le_bytes(bytes))
    }

    /// A little-endian half word.
    fn u32_at(&self, address: u64) -> Option<u32> {
        let mut bytes = [0; 4];
        self.read_exact(address, &mut bytes)?;
        Some(u32::from_le_bytes(bytes))
    }

    /// `count` words.
    fn words_at(&self, address: u64, count: usize) -> Option<Vec<u64>> {
        let mut bytes = vec![0; count * 8];
        self.read_exact(address, &mut bytes)?;
        Some(words(&bytes))
    }

    /// A string that ends in NUL, of at most `limit` bytes.
    fn c_string_at(&self, address: u64, limit: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; limit];
        let got = self.read_at(address, &mut bytes);
        let end = bytes[..got].iter().position(|&b| b == 0)?;
        bytes.truncate(end);
        Some(bytes)
    }
}

/// The little-endian words of `bytes`; a rest shorter than a word is left out.
pub fn words(bytes: &[u8]) -> Vec<u64> {
    bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).collect()
}

/// The memory of a live process: `process_vm_readv`, or `/proc/PID/mem` where that call is
/// forbidden (a seccomp filter, a container) or the page is not readable by the process itself.
#[derive(Debug)]
pub struct Memory {
    pid: u32,
    file: Option<File>,
    call_forbidden: AtomicBool,
}

impl Memory {
    /// Opens the memory of a process for reading.
    ///
    /// # Errors
    /// [`Error::Denied`] where neither way of reading is allowed.
    pub fn open(process: &Process) -> Result<Self, Error> {
        let path = process.path("mem");
        let file = File::open(&path).map_err(|e| Error::of(process.pid(), &path, e))?;
        Ok(Self { pid: process.pid(), file: Some(file), call_forbidden: AtomicBool::new(false) })
    }

    /// All of `out`, or an error that names the place.
    ///
    /// # Errors
    /// [`Error::Unreadable`].
    pub fn read(&self, address: u64, out: &mut [u8]) -> Result<(), Error> {
        self.read_exact(address, out).ok_or(Error::Unreadable {
            pid: self.pid,
            address,
            length: out.len(),
        })
    }

    /// One call over many pieces; the number of bytes that arrived, `None` where the call is not
    /// to be had.
    fn call(&self, out: &mut [u8], remote: &[libc::iovec]) -> Option<usize> {
        if self.call_forbidden.load(Ordering::Relaxed) {
            return None;
        }
        let local = libc::iovec { iov_base: out.as_mut_ptr().cast(), iov_len: out.len() };
        // SAFETY: `local` describes `out`, which lives through the call and is written only by the
        // kernel; `remote` is only read, and its addresses are of the other process.
        let got = unsafe {
            libc::process_vm_readv(
                self.pid.cast_signed(),
                &raw const local,
                1,
                remote.as_ptr(),
                remote.len() as u64,
                0,
            )
        };
        if let Ok(got) = usize::try_from(got) {
            return Some(got);
        }
        match std::io::Error::last_os_error().raw_os_error() {
            Some(libc::EPERM | libc::ENOSYS) => {
                self.call_forbidden.store(true, Ordering::Relaxed);
                None
            }
            _ => Some(0),
        }
    }

    fn read_file(&self, address: u64, out: &mut [u8]) -> usize {
        let Some(file) = &self.file else { return 0 };
        let mut done = 0;
        while done < out.len() {
            match file.read_at(&mut out[done..], address + done as u64) {
                Ok(0) | Err(_) => break,
                Ok(got) => done += got,
            }
        }
        done
    }
}

fn piece(address: u64, length: usize) -> libc::iovec {
    libc::iovec { iov_base: std::ptr::without_provenance_mut(address as usize), iov_len: length }
}

impl ReadMemory for Memory {
    fn read_at(&self, address: u64, out: &mut [u8]) -> usize {
        if out.is_empty() || address.checked_add(out.len() as u64).is_none() {
            return 0;
        }
        let got = self.call(out, &[piece(address, out.len())]).unwrap_or(0);
        if got == out.len() {
            return got;
        }
        got + self.read_file(address + got as u64, &mut out[got..])
    }

    fn read_scattered(&self, addresses: &[u64], each: usize, out: &mut [u8]) {
        const PIECES_A_CALL: usize = 512;
        let mut pieces = Vec::with_capacity(PIECES_A_CALL);
        for (addresses, out) in
            addresses.chunks(PIECES_A_CALL).zip(out.chunks_mut(PIECES_A_CALL * each))
        {
            let mut at = 0;
            while at < addresses.len() {
                pieces.clear();
                pieces.extend(addresses[at..].iter().map(|&address| piece(address, each)));
                let whole = self.call(&mut out[at * each..], &pieces).unwrap_or(0) / each;
                at += whole;
                if at < addresses.len() {
                    let one = &mut out[at * each..][..each];
                    if self.read_file(addresses[at], one) < each {
                        one.fill(0);
                    }
                    at += 1;
                }
            }
        }
    }
}

/// Memory that is read a page at a time and not again: many small looks at few pages. Only what is asked
/// for is touched, and no page beside it.
#[derive(Debug)]
pub(crate) struct Cached<'a, M> {
    memory: &'a M,
    pages: RefCell<HashMap<u64, Box<[u8]>>>,
}

impl<'a, M: ReadMemory> Cached<'a, M> {
    pub fn new(memory: &'a M) -> Self {
        Self { memory, pages: RefCell::default() }
    }
}

impl<M: ReadMemory> ReadMemory for Cached<'_, M> {
    fn read_at(&self, address: u64, out: &mut [u8]) -> usize {
        let (page, within) = (address / PAGE * PAGE, (address % PAGE) as usize);
        if within + out.len() > PAGE as usize {
            return self.memory.read_at(address, out);
        }
        let mut pages = self.pages.borrow_mut();
        let bytes = pages.entry(page).or_insert_with(|| {
            let mut bytes = vec![0; PAGE as usize];
            let got = self.memory.read_at(page, &mut bytes);
            bytes.truncate(got);
            bytes.into()
        });
        let Some(bytes) = bytes.get(within..) else { return 0 };
        let got = bytes.len().min(out.len());
        out[..got].copy_from_slice(&bytes[..got]);
        got
    }
}

/// An image of memory: pieces of bytes at addresses. For tests, fuzzing and core files.
#[derive(Debug, Default, Clone)]
pub struct Pieces {
    pieces: std::collections::BTreeMap<u64, Vec<u8>>,
}

impl Pieces {
    /// Puts `bytes` at `address`; pieces must not overlap.
    pub fn put(&mut self, address: u64, bytes: Vec<u8>) {
        self.pieces.insert(address, bytes);
    }
}

impl ReadMemory for Pieces {
    fn read_at(&self, address: u64, out: &mut [u8]) -> usize {
        let mut done = 0;
        while done < out.len() {
            let Some(at) = address.checked_add(done as u64) else { break };
            let Some((start, bytes)) = self.pieces.range(..=at).next_back() else { break };
            let Some(bytes) = bytes.get((at - start) as usize..).filter(|b| !b.is_empty()) else {
                break;
            };
            let take = bytes.len().min(out.len() - done);
            out[done..done + take].copy_from_slice(&bytes[..take]);
            done += take;
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_itself_and_stops_at_a_hole() {
        let memory = Memory::open(&Process::own()).unwrap();
        let text = *b"the line that is exactly true";
        let address = text.as_ptr() as u64;
        let mut out = [0; 29];
        memory.read(address, &mut out).unwrap();
        assert_eq!(out, text);
        assert_eq!(memory.read_file(address, &mut out), 29);
        assert!(memory.read(8, &mut out).is_err());

        let mut pieces = [9; 12];
        memory.read_scattered(&[address, 8, address + 4], 4, &mut pieces);
        assert_eq!(&pieces, b"the \0\0\0\0line");
    }
}
