//! What the fuzz targets share.

use plumb_gguf::{Error, Gguf};
use std::io::Write as _;
use std::os::fd::AsRawFd as _;

/// Opens bytes as a model file, by way of a file in memory.
pub fn open(bytes: &[u8]) -> Result<Gguf, Error> {
    let fd = rustix::fs::memfd_create("fuzz", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let mut file = std::fs::File::from(fd);
    file.write_all(bytes).unwrap();
    Gguf::open(format!("/proc/self/fd/{}", file.as_raw_fd()).as_ref())
}
