//! Names, files and lines of code objects, read out of the target once each.

use std::collections::HashMap;

use plumb_target::ReadMemory;

use super::PythonFrame;
use super::layout::Interpreter;
use super::lines;
use crate::events::RawPythonFrame;

/// A code object as far as a stack needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Code {
    function: String,
    file: String,
    first_line: i64,
    table: Vec<u8>,
}

/// The code objects of one interpreter that were seen.
#[derive(Debug)]
pub struct Codes {
    interpreter: Interpreter,
    known: HashMap<u64, Option<Code>>,
}

/// Longer names and tables are not believed.
const NAME_MAX: u64 = 4096;
const TABLE_MAX: u64 = 1 << 20;
/// Code objects remembered; beyond that all are read anew.
const CODES_MAX: usize = 65_536;

impl Codes {
    /// Has read nothing yet.
    pub fn new(interpreter: Interpreter) -> Self {
        Self { interpreter, known: HashMap::new() }
    }

    /// Names raw frames. Those that are no Python function (the interpreter's own marks between
    /// runs) are left out, but the run before them is marked as ended.
    pub fn frames(&mut self, raw: &[RawPythonFrame], memory: &impl ReadMemory) -> Vec<PythonFrame> {
        let minor = self.interpreter.minor;
        let mut frames: Vec<PythonFrame> = Vec::new();
        for r in raw {
            if minor >= 12 && r.owner >= 3 {
                if let Some(last) = frames.last_mut() {
                    last.entry = true;
                }
                continue;
            }
            let address = r.code & !7;
            if self.known.len() > CODES_MAX {
                self.known.clear();
            }
            let interpreter = self.interpreter;
            let code =
                self.known.entry(address).or_insert_with(|| read(&interpreter, address, memory));
            let Some(code) = code else { continue };
            let line = offset(&interpreter, r, address)
                .and_then(|at| lines::line(minor, &code.table, code.first_line, at));
            frames.push(PythonFrame {
                function: code.function.clone(),
                file: code.file.clone(),
                line,
                entry: minor < 11 || (minor == 11 && r.owner != 0),
            });
        }
        frames
    }
}

/// How many bytes into the instructions the frame is.
fn offset(interpreter: &Interpreter, raw: &RawPythonFrame, code: u64) -> Option<u64> {
    match (interpreter.minor, interpreter.code.instructions) {
        (..10, _) => Some(u64::from(raw.instr as u32)),
        (10, _) => Some(u64::from(raw.instr as u32) * 2),
        (_, Some(start)) => raw.instr.checked_sub(code.checked_add(start)?),
        _ => None,
    }
}

fn read(interpreter: &Interpreter, address: u64, memory: &impl ReadMemory) -> Option<Code> {
    let layout = interpreter.code;
    let field = |offset: u64| memory.u64_at(address.checked_add(offset)?);
    let first_line = memory.u32_at(address.checked_add(layout.first_line)?)?;
    Some(Code {
        function: text(interpreter.minor, field(layout.name)?, memory)?,
        file: text(interpreter.minor, field(layout.filename)?, memory)?,
        first_line: i64::from(first_line.cast_signed()),
        table: bytes(field(layout.lines)?, memory).unwrap_or_default(),
    })
}

/// A `str` in compact form: one, two or four bytes a character, after a head whose size depends on
/// whether all of it is ASCII.
fn text(minor: u32, address: u64, memory: &impl ReadMemory) -> Option<String> {
    let length = memory.u64_at(address.checked_add(16)?)?;
    let state = memory.u32_at(address.checked_add(32)?)?;
    // `interned` has two bits, or 16 in some builds of 3.14; where it has the other size, no kind is left.
    let form = |state: u32| (u64::from(state & 7), state >> 3 & 1, state >> 4 & 1);
    let sound = |(kind, compact, _): &(u64, u32, u32)| *compact == 1 && matches!(kind, 1 | 2 | 4);
    let (kind, _, ascii) = [form(state >> 2), form(state >> 16)].into_iter().find(sound)?;
    if length > NAME_MAX {
        return None;
    }
    let head = match (minor < 12, ascii == 1) {
        (true, true) => 48,
        (true, false) => 72,
        (false, true) => 40,
        (false, false) => 56,
    };
    let mut data = vec![0; (length * kind) as usize];
    memory.read_exact(address.checked_add(head)?, &mut data)?;
    let character = |unit: &[u8]| {
        let code = unit.iter().rev().fold(0u32, |n, b| n << 8 | u32::from(*b));
        char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
    };
    Some(data.chunks_exact(kind as usize).map(character).collect())
}

/// The content of a `bytes`.
fn bytes(address: u64, memory: &impl ReadMemory) -> Option<Vec<u8>> {
    let length = memory.u64_at(address.checked_add(16)?)?;
    if length > TABLE_MAX {
        return None;
    }
    let mut data = vec![0; length as usize];
    memory.read_exact(address.checked_add(32)?, &mut data)?;
    Some(data)
}

#[cfg(test)]
mod tests {
    use plumb_target::memory::Pieces;

    use super::*;

    #[test]
    fn a_name_is_read_in_every_form() {
        let read = |minor, state: u32, head: usize, data: &[u8]| {
            let mut object = vec![0; head];
            object[16] = 3;
            object[32..36].copy_from_slice(&state.to_le_bytes());
            object.extend_from_slice(data);
            let mut memory = Pieces::default();
            memory.put(0x1000, object);
            text(minor, 0x1000, &memory)
        };
        let interned = 3;
        let ascii = 1 | 1 << 3 | 1 << 4;
        let two_bytes = 2 | 1 << 3;
        for (minor, head) in [(9, 48), (12, 40), (14, 40)] {
            assert_eq!(read(minor, interned | ascii << 2, head, b"run").as_deref(), Some("run"));
        }
        assert_eq!(read(14, interned | ascii << 16, 40, b"run").as_deref(), Some("run"));
        let wide = read(14, interned | two_bytes << 2, 56, &[0x17, 1, 0x18, 1, 0x19, 1]);
        assert_eq!(wide.as_deref(), Some("\u{117}\u{118}\u{119}"));
        assert_eq!(read(12, interned, 40, b"run"), None);
    }
}
