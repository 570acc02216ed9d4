//! Where the arguments of a program's own probes are, in the form in which the kernel's side is told.
//!
//! The contract is that of OpenTelemetry's eBPF profiler (its design document 3, memory profiling):
//! `otel_memory:alloc(pointer, size, weight)` at a sampled allocation, weight being the bytes that the
//! sample stands for, and `otel_memory:free(pointer)` when a sampled one is freed.

use std::path::PathBuf;

use plumb_target::{Image, Process, usdt};

use crate::allocators::checked;

/// A probe of the program's own, and what the kernel's side must know of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Whether it tells of an allocation; else of a free.
    pub alloc: bool,
    /// The file, as this process can open it.
    pub path: PathBuf,
    /// Where its nop is in the file.
    pub offset: u64,
    /// Where its counter is in the file; 0 for none.
    pub counter: u64,
    /// Its arguments, packed as `bpf/usdt.h` reads them.
    pub cookie: u64,
}

/// The provider.
const PROVIDER: &str = "otel_memory";
/// Bits of one argument.
const BITS: u32 = 21;
/// In the order of `struct regs` of `bpf/kernel.h`, each in its four widths.
const REGISTERS: [&str; 20] = [
    "r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi",
    "rdi", "", "", "", "", "rsp",
];

/// The probes of an image that tell of its allocations: none, unless it tells of frees too, for without
/// those nobody knows what stays.
pub fn told(process: &Process, image: &Image) -> Vec<Told> {
    let path = image.path_here();
    let told = |probe: usdt::Probe| {
        let arguments = match probe.name.as_str() {
            "alloc" => 3,
            "free" => 1,
            _ => return None,
        };
        let cookie = pack(&probe.arguments, arguments)?;
        let offset = checked(process, image, &probe.name, probe.address).ok()?;
        let counter = probe.counter;
        Some(Told { alloc: arguments == 3, path: path.clone(), offset, counter, cookie })
    };
    let found: Vec<Told> = usdt::probes(image, PROVIDER).into_iter().filter_map(told).collect();
    let has = |alloc: bool| found.iter().any(|t| t.alloc == alloc);
    if has(true) && has(false) { found } else { Vec::new() }
}

/// The first `count` arguments in one word. `None` where one of them is of a form that is not known.
pub fn pack(arguments: &str, count: usize) -> Option<u64> {
    let mut words = arguments.split_ascii_whitespace();
    (0..count as u32).try_fold(0, |all, i| Some(all | argument(words.next()?)? << (i * BITS)))
}

/// `8@%rdi`, `-4@-20(%rbp)`, `8@(%rax)`, `4@$7`.
fn argument(text: &str) -> Option<u64> {
    let (size, place) = text.split_once('@')?;
    let narrow = match size {
        "8" | "-8" => 0,
        "4" | "-4" => 1,
        _ => return None,
    };
    let packed = |kind: u64, register: usize, offset: i64| {
        let fits = (-4096..4096).contains(&offset);
        fits.then_some(kind | narrow << 2 | (register as u64) << 3 | (offset as u64 & 0x1fff) << 8)
    };
    if let Some(number) = place.strip_prefix('$') {
        return packed(0, 0, number.parse().ok()?);
    }
    if let Some(name) = place.strip_prefix('%') {
        return packed(1, register(name)?, 0);
    }
    let (offset, name) = place.strip_suffix(')')?.split_once("(%")?;
    let offset = if offset.is_empty() { 0 } else { offset.parse().ok()? };
    packed(2, register(name)?, offset)
}

fn register(name: &str) -> Option<usize> {
    let wide = match name.strip_prefix('r') {
        Some(rest) if rest.starts_with(|c: char| c.is_ascii_digit()) => {
            format!("r{}", rest.trim_end_matches('d'))
        }
        Some(_) => name.to_owned(),
        None => format!("r{}", name.strip_prefix('e')?),
    };
    REGISTERS.iter().position(|r| !r.is_empty() && *r == wide)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_packed_as_the_kernels_side_reads_them() {
        assert_eq!(pack("8@%r15", 1), Some(1));
        assert_eq!(pack("8@%rdi 8@%rsi", 2), Some((1 | 14 << 3) | (1 | 13 << 3) << 21));
        assert_eq!(pack("-4@-20(%rbp)", 1), Some(2 | 1 << 2 | 4 << 3 | (0x2000 - 20) << 8));
        assert_eq!(pack("8@(%rsp) 4@$7", 2), Some((2 | 19 << 3) | (1 << 2 | 7 << 8) << 21));
        assert_eq!(pack("4@%r9d", 1), pack("4@%r9", 1));
        assert_eq!(pack("4@%eax", 1), Some(1 | 1 << 2 | 10 << 3));
    }

    #[test]
    fn what_is_not_known_is_not_guessed() {
        for text in ["", "8@", "8@%xmm0", "8@(%rax,%rbx,8)", "8@x(%rip)", "2@%ax", "8@9999(%rax)"] {
            assert_eq!(pack(text, 1), None, "{text}");
        }
        assert_eq!(pack("8@%rdi", 3), None);
    }
}
