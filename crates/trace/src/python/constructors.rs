//! An interpreter that was built with its allocator inlined: who makes objects instead.
//!
//! Profile-guided builds, Debian's among them, compare the function in the `PyMemAllocatorEx` table with
//! the one that they know and go on in a copy of that (`cmp $_PyObject_Malloc,%rax; jne`). The table's
//! `malloc` then sees few calls, and not of all kinds alike. But objects are made by functions that
//! extensions can call, and these are called from within the interpreter too: what they give is an object,
//! whose pool knows how large its block is.
//!
//! In every interpreter, floats, tuples, dictionaries and lists that were freed are kept for the next of
//! their type: no allocator sees who gets these.

use plumb_target::symbols::SymbolTable;
use plumb_target::{Image, Memory, Process};

use crate::Error;
use crate::allocators::{Ask, Give, Point, checked};

/// Each of these, of [`COLLECTIONS`] and of [`BUSY`] makes an object, or gives what one is made of; those that
/// call another of them come later in the same block, and count.
///
/// None makes floats: what the interpreter computes with takes freed ones where no function is called, and
/// would be charged to who made them before.
const OTHERS: [&str; 21] = [
    "PyMem_Calloc",
    "PyObject_Calloc",
    "PySlice_New",
    "PyWeakref_NewRef",
    "PyComplex_FromCComplex",
    "PyByteArray_FromStringAndSize",
    "PyFrozenSet_New",
    "PySet_New",
    "PyMethod_New",
    "PyCell_New",
    "PyFunction_New",
    "PyFunction_NewWithQualName",
    "PyLong_FromUnsignedLongLong",
    "PyLong_FromLongLong",
    "PyLong_FromUnsignedLong",
    "PyLong_FromSsize_t",
    "PyLong_FromLong",
    "_PyLong_Multiply",
    "_PyLong_Subtract",
    "_PyLong_Add",
    "_PyLong_New",
];
/// Tuples, lists and dictionaries: each gives what was freed and kept for the next of its type, too.
const COLLECTIONS: [&str; 10] = [
    "PyTuple_Pack",
    "_PyTuple_FromArraySteal",
    "_PyTuple_FromArray",
    "PyTuple_New",
    "_PyList_FromArraySteal",
    "PyList_New",
    "_PyDict_FromItems",
    "_PyDict_NewPresized",
    "PyDict_Copy",
    "PyDict_New",
];
/// Those that are called most.
const BUSY: [&str; 18] = [
    "_PyObject_NewVar",
    "_PyObject_New",
    "_PyObject_GC_NewVar",
    "_PyObject_GC_New",
    "PyMem_Malloc",
    "PyObject_Malloc",
    "_PyUnicode_FromASCII",
    "PyUnicode_FromStringAndSize",
    "PyUnicode_DecodeLatin1",
    "PyUnicode_DecodeUTF8Stateful",
    "_PyUnicode_JoinArray",
    "PyUnicode_Format",
    "_PyUnicodeWriter_Finish",
    "_PyBytes_FormatEx",
    "_PyBytesWriter_Finish",
    "PyBytes_FromStringAndSize",
    "PyType_GenericAlloc",
    "PyUnicode_New",
];
/// Of every build, long enough to have a copy of the allocator in it, and always in need of memory.
const TOLD_BY: [&str; 2] = ["PyUnicode_New", "PyBytes_FromStringAndSize"];
/// A larger function is not one of those.
const CODE_MAX: usize = 1 << 14;

/// By these extensions ask for memory of which no object is made.
const ASKED: [&str; 4] =
    ["PyMem_Calloc", "PyMem_Malloc", "_PyObject_GC_NewVar", "_PyObject_GC_New"];
const FLOATS: [&str; 1] = ["PyFloat_FromDouble"];
/// What [`COLLECTIONS`] and [`FLOATS`] give: of such a type is what an allocator gave only once, and may be
/// another's by now.
pub const KEPT_TYPES: [&str; 4] = ["float", "tuple", "dict", "list"];

/// An interpreter, and its symbols: reading these takes long.
#[derive(Debug, Clone, Copy)]
pub struct Within<'a> {
    /// Whose it is.
    pub process: &'a Process,
    /// Its file.
    pub image: &'a Image,
    /// Those of the file.
    pub symbols: &'a SymbolTable,
}

/// Whether the table's `malloc` is inlined where objects are made.
///
/// # Errors
/// A process whose memory cannot be read.
pub fn are_inlined(within: &Within, malloc: u64) -> Result<bool, Error> {
    let Within { process, image, symbols } = within;
    let memory = Memory::open(process)?;
    Ok(TOLD_BY.iter().filter_map(|name| symbols.named(name)).any(|function| {
        let mut code = vec![0; usize::try_from(function.size).unwrap_or(0).min(CODE_MAX)];
        let at = function.address.wrapping_add(image.bias);
        memory.read(at, &mut code).is_ok() && has_copy(&code, at, malloc)
    }))
}

/// All that make objects.
///
/// # Errors
/// Text that differs from its file.
pub fn all(within: &Within) -> Result<Vec<Point>, Error> {
    points(within, &[&OTHERS[..], &COLLECTIONS, &BUSY].concat())
}

/// Those that give what was freed and kept for the next of its type: the allocator knows nothing of it, and
/// takes it for who made the first.
///
/// # Errors
/// Text that differs from its file.
pub fn keepers(within: &Within) -> Result<Vec<Point>, Error> {
    points(within, &[&ASKED[..], &COLLECTIONS, &FLOATS].concat())
}

fn points(within: &Within, names: &[&str]) -> Result<Vec<Point>, Error> {
    let Within { process, image, symbols } = within;
    let mut points: Vec<Point> = Vec::new();
    for name in names {
        let symbol = symbols.named(name).filter(|s| s.is_function && !s.is_indirect);
        let Some(symbol) = symbol else { continue };
        let offset = checked(process, image, name, symbol.address)?;
        if !points.iter().any(|p| p.offset == offset) {
            let path = image.path_here();
            let (entry, leave) = match *name {
                "PyMem_Calloc" | "PyObject_Calloc" => (Some(Ask::Calloc), Give::Asked),
                "PyMem_Malloc" | "PyObject_Malloc" => (Some(Ask::Malloc), Give::Asked),
                _ => (None, Give::Object),
            };
            points.push(Point { entry, leave, path, offset });
        }
    }
    Ok(points)
}

/// Whether code at an address compares with a function and never calls it.
fn has_copy(code: &[u8], at: u64, function: u64) -> bool {
    const CALL: u8 = 0xe8;
    const JUMP: u8 = 0xe9;
    let (mut compares, mut calls) = (false, false);
    for (i, word) in code.windows(4).enumerate() {
        let Some(word) = word.first_chunk().map(|word| i32::from_le_bytes(*word)) else { continue };
        let next = at.wrapping_add(i as u64 + 4);
        let is_relative = next.wrapping_add_signed(i64::from(word)) == function;
        let is_direct = i.checked_sub(1).is_some_and(|i| matches!(code[i], CALL | JUMP));
        calls |= is_relative && is_direct;
        compares |= is_relative && !is_direct || u64::from(word.cast_unsigned()) == function;
    }
    compares && !calls
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_told_by_its_comparison() {
        const AT: u64 = 0x40_0000;
        const MALLOC: u64 = 0x40_2000;
        let of = |parts: &[&[u8]]| parts.concat();
        let relative = |before: u32| ((MALLOC - AT) as u32 - before - 4).to_le_bytes();
        // cmp $malloc,%rax; jne
        let fixed = of(&[&[0x48, 0x3d], &(MALLOC as u32).to_le_bytes(), &[0x75, 0x10]]);
        assert!(has_copy(&fixed, AT, MALLOC));
        // lea malloc(%rip),%rdx; cmp %rdx,%rax
        let placed = of(&[&[0x48, 0x8d, 0x15], &relative(3), &[0x48, 0x39, 0xd0]]);
        assert!(has_copy(&placed, AT, MALLOC));
        let called = of(&[&placed, &[0xe8], &relative(11)]);
        assert!(!has_copy(&called, AT, MALLOC));
        // call *table(%rip)
        assert!(!has_copy(&[0xff, 0x15, 1, 2, 3, 4, 0xc3], AT, MALLOC));
    }
}
