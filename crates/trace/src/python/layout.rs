//! Where an interpreter keeps its threads, frames and code objects.
//!
//! From 3.13 on the interpreter says so itself (`_Py_DebugOffsets` at the start of `_PyRuntime`);
//! before that the offsets were read off the headers of a build of each version. They are the same
//! for every release of one minor version on x86-64.

use plumb_target::{Image, Memory, Process, ReadMemory, images, maps};

use crate::probe::PythonLayout;

/// What is known of one interpreter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interpreter {
    /// Minor version of Python 3.
    pub minor: u32,
    /// Address of `_PyRuntime`.
    pub runtime: u64,
    /// Threads and frames, for the BPF side.
    pub frames: PythonLayout,
    /// Code objects.
    pub code: CodeLayout,
}

/// Offsets in a code object, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodeLayout {
    /// `co_filename`
    pub filename: u64,
    /// `co_qualname`, or `co_name` before 3.11
    pub name: u64,
    /// `co_firstlineno`
    pub first_line: u64,
    /// `co_linetable`, or `co_lnotab` in 3.9
    pub lines: u64,
    /// Where the instructions begin, from 3.11 on
    pub instructions: Option<u64>,
}

const NONE: u32 = PythonLayout::NONE;
/// The oldest and the newest minor version whose layout is known.
pub const VERSIONS: std::ops::RangeInclusive<u32> = 9..=14;

/// Finds the interpreter of a process, in whichever module holds it. `None` where there is none,
/// where its version is not known, or where it has no runtime yet.
pub fn find(process: &Process) -> Option<Interpreter> {
    let maps = maps::read(process).ok()?;
    let memory = Memory::open(process).ok()?;
    let candidates = images(process, &maps);
    let candidates = candidates.iter().filter(|image| image.name().contains("python"));
    candidates.filter_map(|image| of_image(image, &memory)).next()
}

fn of_image(image: &Image, memory: &impl ReadMemory) -> Option<Interpreter> {
    let symbols = image.symbols().ok()?;
    let runtime = symbols.named("_PyRuntime")?.address.wrapping_add(image.bias);
    let said = symbols
        .named("Py_Version")
        .and_then(|s| memory.u32_at(s.address.wrapping_add(image.bias)))
        .filter(|v| v >> 24 == 3)
        .map(|v| v >> 16 & 0xff);
    let minor = said.or_else(|| minor_of_name(&image.name()))?;
    known(minor, runtime, memory)
}

/// `libpython3.9.so.1.0` or `python3.10`: versions before 3.11 do not export their number.
fn minor_of_name(name: &str) -> Option<u32> {
    let rest = name.split("python3.").nth(1)?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

fn known(minor: u32, runtime: u64, memory: &impl ReadMemory) -> Option<Interpreter> {
    let (frames, code) = match minor {
        9 | 10 => before_cframes(minor),
        11 | 12 => with_cframes(minor),
        13 | 14 => self_described(minor, runtime, memory)?,
        _ => return None,
    };
    let frames = PythonLayout { interpreters: runtime.checked_add(frames.interpreters)?, ..frames };
    Some(Interpreter { minor, runtime, frames, code })
}

fn before_cframes(minor: u32) -> (PythonLayout, CodeLayout) {
    let frames = PythonLayout {
        interpreters: 32,
        interp_threads: 8,
        interp_next: 0,
        thread_next: 8,
        thread_id: 176,
        thread_frame: 24,
        cframe_frame: NONE,
        frame_back: 24,
        frame_code: 32,
        frame_instr: if minor == 9 { 104 } else { 96 },
        frame_owner: NONE,
    };
    let code =
        CodeLayout { filename: 104, name: 112, first_line: 40, lines: 120, instructions: None };
    (frames, code)
}

fn with_cframes(minor: u32) -> (PythonLayout, CodeLayout) {
    let eleven = minor == 11;
    let pick = |a, b| if eleven { a } else { b };
    let frames = PythonLayout {
        interpreters: 40,
        interp_threads: pick(16, 72),
        interp_next: 0,
        thread_next: 8,
        thread_id: pick(152, 136),
        thread_frame: 56,
        cframe_frame: pick(8, 0),
        frame_back: pick(48, 8),
        frame_code: pick(32, 0),
        frame_instr: 56,
        // 3.11: `is_entry`; 3.12: `owner`.
        frame_owner: pick(68, 70),
    };
    let code = CodeLayout {
        filename: 112,
        name: 128,
        first_line: u64::from(pick(72, 68)),
        lines: 136,
        instructions: Some(u64::from(pick(184, 192))),
    };
    (frames, code)
}

/// `_Py_DebugOffsets`: words, of which 3.14 has a few more in each part.
fn self_described(
    minor: u32,
    runtime: u64,
    memory: &impl ReadMemory,
) -> Option<(PythonLayout, CodeLayout)> {
    let words = memory.words_at(runtime, 50)?;
    let free_threaded = words[2] != 0;
    let version = words[1];
    if words[0] != u64::from_le_bytes(*b"xdebugpy") || version >> 24 != 3 || free_threaded {
        return None;
    }
    if version >> 16 & 0xff != u64::from(minor) {
        return None;
    }
    let (thread, frame, code) = if minor == 13 { (19, 28, 34) } else { (22, 31, 39) };
    // Every offset lies within its structure, whose size comes first.
    let field = |part: usize, i: usize| {
        let offset = words[part + i];
        (offset < words[part] && words[part] < 1 << 24).then_some(offset)
    };
    let small = |part: usize, i: usize| u32::try_from(field(part, i)?).ok();
    let layout = PythonLayout {
        interpreters: field(3, 2)?,
        interp_threads: small(6, 3)?,
        interp_next: small(6, 2)?,
        thread_next: small(thread, 2)?,
        thread_id: small(thread, 5)?,
        thread_frame: small(thread, 4)?,
        cframe_frame: NONE,
        frame_back: small(frame, 1)?,
        frame_code: small(frame, 2)?,
        frame_instr: small(frame, 3)?,
        frame_owner: small(frame, 5)?,
    };
    let code = CodeLayout {
        filename: field(code, 1)?,
        name: field(code, 3)?,
        first_line: field(code, 5)?,
        lines: field(code, 4)?,
        instructions: Some(field(code, 9)?),
    };
    Some((layout, code))
}
