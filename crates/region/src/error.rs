use rustix::io::Errno;

/// What kept a region from existing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A region of zero bytes, or of more than an address space.
    #[error("region {name}: {bytes} bytes cannot be mapped; ask for 1 byte up to isize::MAX")]
    Size {
        /// The region's name.
        name: String,
        /// What was asked for.
        bytes: usize,
    },
    /// The kernel refused a step; for `populate` and `map` it is mostly memory that is short.
    #[error("region {name} ({bytes} bytes): {step}: {errno}")]
    System {
        /// The region's name.
        name: String,
        /// Its size.
        bytes: usize,
        /// What was being done.
        step: &'static str,
        /// The kernel's answer.
        errno: Errno,
    },
    /// A peer's descriptor is smaller than the peer said: reading it would end in SIGBUS.
    #[error("region {name}: the peer promised {promised} bytes, its descriptor holds {held}")]
    Short {
        /// The region's name.
        name: String,
        /// Bytes promised.
        promised: usize,
        /// Bytes there.
        held: u64,
    },
    /// A peer's descriptor could be shrunk under our mapping.
    #[error("region {name}: the peer's descriptor is not sealed against shrinking; refused")]
    Unsealed {
        /// The region's name.
        name: String,
    },
}
