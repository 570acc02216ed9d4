//! Numbers of the x86-64 syscall table and the flags that decide what a mapping is.

/// `mmap`
pub const MMAP: u32 = 9;
/// `mprotect`
pub const MPROTECT: u32 = 10;
/// `munmap`
pub const MUNMAP: u32 = 11;
/// `brk`
pub const BRK: u32 = 12;
/// `mremap`
pub const MREMAP: u32 = 25;
/// `shmat`
pub const SHMAT: u32 = 30;
/// `shmdt`
pub const SHMDT: u32 = 67;
/// `memfd_create`
pub const MEMFD_CREATE: u32 = 319;

/// Mask of the sharing type in mmap's flags.
pub const MAP_TYPE: u64 = 0xf;
/// Private mapping.
pub const MAP_PRIVATE: u64 = 2;
/// No file behind it.
pub const MAP_ANONYMOUS: u64 = 0x20;
/// mmap's protection bit for code.
pub const PROT_EXEC: u64 = 4;
/// mremap leaves the old range mapped, empty.
pub const MREMAP_DONTUNMAP: u64 = 4;
