//! What growth of each layer can mean, and which cheap counter moves with it.

use super::Counter;
use crate::verdict::Nature;

/// Whether growth of a layer, by its name in outputs, can be a leak; `collected`: whether a collector
/// frees the process's memory.
pub(crate) fn nature(layer: &str, collected: bool) -> Nature {
    Nature::Harmless(match layer {
        "code" => {
            "pages of programs and libraries are read in as they are used, and can be dropped"
        }
        "files" => {
            "pages of mapped files belong to the files: the kernel can drop or write them back"
        }
        "heap_retained" => "freed memory that the allocator keeps: retention or fragmentation",
        "python_free" => "free memory that CPython's arenas keep",
        "huge_page_slack" => "huge pages round sparse memory up: not data of the program",
        "swap" => "memory that was moved out of RSS, not new memory",
        // Buffers of such a runtime are freed when the objects that own them are found dead.
        "anonymous" | "heap_in_use" | "heap" if collected => return Nature::Collected,
        _ => return Nature::Held,
    })
}

/// The counter in which a layer's bytes are counted too; none for what is beyond RSS.
pub(crate) fn counter(layer: &str) -> Option<Counter> {
    match layer {
        "heap_in_use" | "heap_retained" | "heap" | "python_in_use" | "python_free" | "python"
        | "stacks" | "jit" | "anonymous" | "huge_page_slack" => Some(Counter::Anonymous),
        "code" | "files" | "device" => Some(Counter::Files),
        "shared" => Some(Counter::Shared),
        _ => None,
    }
}

/// The layer that stands for a pair in a look that could not split it.
pub fn whole_of(layer: &str) -> Option<&'static str> {
    match layer {
        "heap_in_use" | "heap_retained" => Some("heap"),
        "python_in_use" | "python_free" => Some("python"),
        _ => None,
    }
}

/// The pair that such a layer stands for.
pub fn halves_of(layer: &str) -> Option<[&'static str; 2]> {
    match layer {
        "heap" => Some(["heap_in_use", "heap_retained"]),
        "python" => Some(["python_in_use", "python_free"]),
        _ => None,
    }
}
