//! Where functions begin in a file without symbols: the unwinder's index of them.
//!
//! `.eh_frame_hdr` (Linux Standard Base, core, 10.6.2) is a sorted table of function starts, each
//! with the place of its frame description, which says how long the function is. Linkers write one
//! form of it; another is not read.

use super::{Elf, FileView};
use crate::{Range, ReadMemory};

/// `DW_EH_PE_pcrel | sdata4`, `udata4`, `datarel | sdata4`.
const FORM: [u8; 4] = [1, 0x1b, 0x03, 0x3b];
const MAX_FUNCTIONS: u64 = 1 << 24;

/// The addresses (the file's) of the function that holds `address`.
pub(super) fn holding(view: &FileView, elf: &Elf, address: u64) -> Option<Range> {
    let table = elf.eh_frame_hdr.start;
    let head = view.u64_at(table)?.to_le_bytes();
    if head[..4] != FORM {
        return None;
    }
    let count = u64::from(view.u32_at(table + 8)?).min(MAX_FUNCTIONS);
    let relative = |at: u64, base: u64| -> Option<u64> {
        Some(base.wrapping_add_signed(i64::from(view.u32_at(at)?.cast_signed())))
    };
    let entry = |index: u64| table + 12 + index * 8;
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low.midpoint(high);
        if relative(entry(middle), table)? <= address {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    let found = entry(low.checked_sub(1)?);
    let start = relative(found, table)?;
    // A frame description: its length, its common part, where the function begins, how long it is.
    let frame = relative(found + 4, table)?;
    let length = u64::from(view.u32_at(frame.checked_add(12)?)?);
    (relative(frame + 8, frame + 8)? == start && address - start < length)
        .then(|| start..start + length)
}

#[cfg(test)]
mod tests {
    use crate::{Process, image};

    #[inline(never)]
    fn of_ours() -> u64 {
        std::hint::black_box(of_ours as *const () as u64)
    }

    #[test]
    fn functions_begin_where_the_unwinder_says() {
        let own = Process::own();
        let maps = crate::maps::read(&own).unwrap();
        let images = image::images(&own, &maps);
        let address = of_ours();
        let image = image::find(&images, address).unwrap();
        let function = image.function(address + 1).unwrap();
        assert_eq!(function.start, address);
        assert!(image.function(function.end - 1) == Some(function));
        assert_eq!(image.function(image.range.start), None);
    }
}
