//! Any bytes as the memory of a Python process: code objects, line tables, arenas full of objects.
#![no_main]

use std::time::{Duration, Instant};

use plumb_target::memory::Pieces;
use plumb_target::python::Arena;
use plumb_trace::events::RawPythonFrame;
use plumb_trace::probe::PythonLayout;
use plumb_trace::python::code::Codes;
use plumb_trace::python::layout::{CodeLayout, Interpreter};
use plumb_trace::python::{census, lines};

const BASE: u64 = 0x10_0000;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let [minor, first, at, rest @ ..] = bytes else { return };
    let minor = 9 + u32::from(minor % 6);
    lines::line(minor, rest, i64::from(*first), u64::from(*at));

    let mut memory = Pieces::default();
    memory.put(BASE, rest.to_vec());
    let none = PythonLayout::NONE;
    let frames = PythonLayout {
        interpreters: BASE,
        interp_threads: 0,
        interp_next: 0,
        thread_next: 0,
        thread_id: 0,
        thread_frame: 0,
        cframe_frame: none,
        frame_back: 0,
        frame_code: 0,
        frame_instr: 0,
        frame_owner: none,
    };
    let code = CodeLayout { filename: 112, name: 128, first_line: 68, lines: 136, instructions: Some(192) };
    let interpreter = Interpreter { minor, runtime: BASE, frames, code };
    let raw = |code| RawPythonFrame { code, instr: code + u64::from(*at), owner: u64::from(*first) };
    let raw = [raw(BASE), raw(BASE + u64::from(*at) * 8)];
    assert!(Codes::new(interpreter).frames(&raw, &memory).len() <= raw.len());

    let until = Instant::now() + Duration::from_secs(5);
    let pool_size = 4096;
    let arena = Arena { range: BASE..BASE + (256 << 10), index: 0, fresh: u64::MAX, pool_size };
    let census = census::count(&memory, &[arena], until);
    let objects: u64 = census.types.values().map(|count| count.objects).sum();
    assert!(objects <= (256 << 10) / 16, "more objects than there is room for");
    assert!(Instant::now() < until, "it took too long");
});
