//! The functions that give and take CPython's objects, found without symbols.
//!
//! Extensions call `PyObject_Malloc`, but the interpreter has most of its own calls inlined: all of them
//! end in the functions that stand in `PyMemAllocatorEx` tables (context, malloc, calloc, realloc, free;
//! `Include/cpython/pymem.h`). There is one for raw memory, one for memory and one for objects, one after the
//! other, and a second set for debugging (`Objects/obmalloc.c`); of memory and of objects the functions are
//! the same. Types have rows of functions that are alike too, but far apart.

use plumb_target::python::interpreter;
use plumb_target::{Image, Memory, Process, ReadMemory, images, maps};

use super::constructors::Within;
use super::search::search;
use super::{constructors, takings};
use crate::Error;
use crate::allocators::{Allocators, Ask, Copies, Free, Give, Point, checked, refusal};

/// A larger segment is not the interpreter's.
const DATA_MAX: u64 = 64 << 20;
/// How far apart two tables begin at most, in words: each has five, and may be aligned, or behind a mark.
const APART: usize = 8;
/// The four functions of a table, in order.
type Table = [u64; 4];

/// Finds CPython's allocator of objects in a process.
///
/// # Errors
/// No CPython, none whose tables are found, or text that differs from its file.
pub fn find(process: &Process) -> Result<Allocators, Error> {
    let maps = maps::read(process)?;
    let memory = Memory::open(process)?;
    let is_python = |i: &&Image| interpreter(i).is_some_and(|found| !found.free_threaded);
    for image in images(process, &maps).iter().filter(is_python) {
        let Some([malloc, calloc, realloc, free]) = table(image, &memory) else { continue };
        let path = image.path_here();
        let offset = |function: &str, address: u64| {
            checked(process, image, function, address.wrapping_sub(image.bias))
        };
        let point = |function: &str, address: u64, ask: Ask| {
            let offset = offset(function, address)?;
            Ok::<_, Error>(Point {
                entry: Some(ask),
                leave: Give::Asked,
                path: path.clone(),
                offset,
            })
        };
        let mut points = vec![
            point("Python's realloc", realloc, Ask::ContextRealloc)?,
            point("Python's calloc", calloc, Ask::ContextCalloc)?,
            point("Python's malloc", malloc, Ask::Aligned)?,
        ];
        let text = vec![image.range.clone()];
        // What is kept for the next of its type is given by other functions, and these are put on first.
        let symbols = &image.symbols()?;
        let within = &Within { process, image, symbols };
        let keepers = constructors::keepers(within)?;
        if constructors::are_inlined(within, malloc)? {
            // What is given back is mostly given back by a copy, too.
            let takings = takings::find(process, image)?;
            let beside = [keepers, points.clone()].concat();
            let copies = (!takings.is_empty()).then_some(Copies { takings, points: beside });
            points.splice(0..0, constructors::all(within)?);
            return Ok(Allocators { points, text, copies, ..Allocators::default() });
        }
        points.splice(0..0, keepers);
        let free = offset("Python's free", free)?;
        let frees = vec![Free { path: path.clone(), offset: free, has_context: true }];
        return Ok(Allocators { points, frees, text, ..Allocators::default() });
    }
    Err(refusal("Python's malloc", "no CPython that can be read runs there"))
}

fn table(image: &Image, memory: &impl ReadMemory) -> Option<Table> {
    let text: Vec<_> = image.segments().filter(|s| s.execute).map(|s| s.range).collect();
    let is_code = &|at: u64| text.iter().any(|range| range.contains(&at));
    let mut data = image.segments().filter(|s| s.write && s.range.end - s.range.start <= DATA_MAX);
    data.find_map(|segment| search(memory, segment.range, |words, _| pair(words, is_code)))
}

/// The functions of which two tables stand next to each other.
fn pair(words: &[u64], is_code: impl Fn(u64) -> bool) -> Option<Table> {
    let mut last: Option<(usize, Table)> = None;
    for (i, table) in tables(words, is_code) {
        if last.is_some_and(|(before, same)| same == table && i - before <= APART) {
            return Some(table);
        }
        last = Some((i, table));
    }
    None
}

/// Where no context and four different functions stand in a row, and nothing of code around them.
fn tables(words: &[u64], is_code: impl Fn(u64) -> bool) -> impl Iterator<Item = (usize, Table)> {
    words.windows(5).enumerate().filter_map(move |(i, w)| {
        let table: Table = *w[1..].first_chunk()?;
        let differ = (1..4).all(|n| !table[..n].contains(&table[n]));
        (w[0] == 0 && differ && table.iter().all(|at| is_code(*at))).then_some((i, table))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_a_null_context_and_four_functions() {
        let is_code = |at: u64| (0x1000..0x2000).contains(&at);
        let words = [7, 0, 0x1010, 0x1020, 0x1030, 0x1040, 0, 0x1010, 0x1010, 0x1020, 0x1030, 0, 5];
        let found: Vec<_> = tables(&words, is_code).collect();
        assert_eq!(found, [(1, [0x1010, 0x1020, 0x1030, 0x1040])]);
    }

    #[test]
    fn two_tables_that_are_alike_and_next_to_each_other_are_the_allocators() {
        let is_code = |at: u64| (0x1000..0x2000).contains(&at);
        let row = |first: u64| [0, first, 0x1020, 0x1030, 0x1040];
        let types = [row(0x1100).as_slice(), &[9; 40], &row(0x1100)].concat();
        assert_eq!(pair(&types, is_code), None);
        let tables = [types.as_slice(), &row(0x1200), &row(0x1300), &[0; 3], &row(0x1300)].concat();
        assert_eq!(pair(&tables, is_code), Some([0x1300, 0x1020, 0x1030, 0x1040]));
    }
}
