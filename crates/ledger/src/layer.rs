//! The layers: who owns a resident byte.

use serde::{Serialize, Serializer};

/// The owner of a resident byte. The order is the order of every listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Layer {
    /// Executables and libraries: text, relocated data, `.data`, `.bss`.
    Code,
    /// Other file mappings.
    Files,
    /// Memfds, tmpfs files, System V segments, shared anonymous memory.
    Shared,
    /// Live chunks of an allocator that we can read.
    HeapInUse,
    /// The rest of such an allocator's memory: freed and kept, or fragmentation.
    HeapRetained,
    /// An allocator's memory that cannot be split with certainty.
    Heap,
    /// Live objects in CPython's arenas.
    PythonInUse,
    /// The rest of those arenas.
    PythonFree,
    /// CPython's memory where it cannot be split with certainty.
    Python,
    /// Stacks of threads.
    Stacks,
    /// Anonymous executable memory.
    Jit,
    /// Mappings of devices and of the kernel's own buffers.
    Device,
    /// Private anonymous memory outside every heap that we can read.
    Anonymous,
    /// All-zero pieces of anonymous huge pages: an estimate.
    HugePageSlack,
}

impl Layer {
    /// All layers, in order.
    pub const ALL: [Self; 14] = [
        Self::Code,
        Self::Files,
        Self::Shared,
        Self::HeapInUse,
        Self::HeapRetained,
        Self::Heap,
        Self::PythonInUse,
        Self::PythonFree,
        Self::Python,
        Self::Stacks,
        Self::Jit,
        Self::Device,
        Self::Anonymous,
        Self::HugePageSlack,
    ];

    /// Its name in every output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Code => "code",
            Self::Files => "files",
            Self::Shared => "shared",
            Self::HeapInUse => "heap_in_use",
            Self::HeapRetained => "heap_retained",
            Self::Heap => "heap",
            Self::PythonInUse => "python_in_use",
            Self::PythonFree => "python_free",
            Self::Python => "python",
            Self::Stacks => "stacks",
            Self::Jit => "jit",
            Self::Device => "device",
            Self::Anonymous => "anonymous",
            Self::HugePageSlack => "huge_page_slack",
        }
    }

    /// Its place in [`Layer::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// Whether it stands for a pair that could not be split: shown only where it has bytes.
    pub fn is_unsplit(self) -> bool {
        matches!(self, Self::Heap | Self::Python)
    }
}

impl Serialize for Layer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_layer_stands_at_its_index() {
        for (index, layer) in Layer::ALL.into_iter().enumerate() {
            assert_eq!(layer.index(), index);
        }
    }
}
