//! Bytes of a target that means ill: nothing of it may panic, hang or run away.

use plumb_target::ReadMemory;
use plumb_trace::dumps::Dump;
use plumb_trace::events::{self, EVENT_BYTES, RECORD_MAX, RawPythonFrame};
use plumb_trace::probe::PythonLayout;
use plumb_trace::python::code::Codes;
use plumb_trace::python::layout::{CodeLayout, Interpreter};
use plumb_trace::python::lines;
use plumb_trace::symbols::PerfMap;
use proptest::prelude::*;

/// Memory whose every word is drawn from few values, so that pointers lead somewhere.
struct Garbage(Vec<u8>);

impl ReadMemory for Garbage {
    fn read_at(&self, address: u64, out: &mut [u8]) -> usize {
        if address % 97 == 13 {
            return 0;
        }
        for (i, byte) in out.iter_mut().enumerate() {
            *byte = self.0[(address as usize).wrapping_add(i) % self.0.len()];
        }
        out.len()
    }
}

fn interpreter(minor: u32) -> Interpreter {
    let none = PythonLayout::NONE;
    Interpreter {
        minor,
        runtime: 0,
        frames: PythonLayout {
            interpreters: 0,
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
        },
        code: CodeLayout {
            filename: 112,
            name: 128,
            first_line: 68,
            lines: 136,
            instructions: Some(192),
        },
    }
}

proptest! {
    #[test]
    fn any_heap_profile_is_read_or_refused(
        lines in prop::collection::vec("(heap_v2/[0-9]{0,3}|heap profile: @ heapprofile|@( 0x[0-9a-f]{0,20}){0,4}| ?(t\\*:)? ?[0-9]{1,20}: [0-9]{1,20} \\[0: 0\\]( @ 0x1)?|MAPPED_LIBRARIES:|[0-9a-f]{1,17}-[0-9a-f]{1,17} r-xp 0 fe:00 1 /x|.{0,9})", 0..12),
    ) {
        for head in ["heap_v2/512\n", "heap profile: @ heapprofile\n", ""] {
            let text = head.to_owned() + &lines.join("\n");
            if let Some(dump) = Dump::parse(text.as_bytes()) {
                prop_assert!(dump.live.len() <= lines.len());
                let more = dump.since(&Dump::default());
                prop_assert!(more.iter().all(|(_, live)| live.bytes > 0.0 && !live.count.is_nan()));
            }
        }
    }

    #[test]
    fn any_record_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..RECORD_MAX / 8)) {
        if let Some((_, Some(stack))) = events::parse(&bytes) {
            prop_assert!(stack.bytes.len() <= bytes.len());
            let _inside = stack.word(stack.sp);
            let _outside = stack.word(u64::MAX);
        }
    }

    #[test]
    fn lengths_in_a_record_are_not_believed(frames: u32, copied: u32) {
        let mut record = vec![0; EVENT_BYTES + 40 + 64];
        record[0] = 1;
        record[92] = 7;
        record[EVENT_BYTES + 32..EVENT_BYTES + 36].copy_from_slice(&frames.to_le_bytes());
        record[EVENT_BYTES + 36..EVENT_BYTES + 40].copy_from_slice(&copied.to_le_bytes());
        prop_assert!(events::parse(&record).is_none(), "the record ends before its stack");
    }

    #[test]
    fn any_line_table_ends(table in prop::collection::vec(any::<u8>(), 0..400), at: u64, first: i32) {
        for minor in 9..=14 {
            let _line = lines::line(minor, &table, i64::from(first), at);
        }
    }

    #[test]
    fn any_code_object_is_read_or_left_out(
        bytes in prop::collection::vec(any::<u8>(), 64..512),
        raw in prop::collection::vec(any::<[u64; 3]>(), 0..20),
    ) {
        let memory = Garbage(bytes);
        let raw: Vec<RawPythonFrame> =
            raw.iter().map(|r| RawPythonFrame { code: r[0], instr: r[1], owner: r[2] & 7 }).collect();
        for minor in 9..=14 {
            let named = Codes::new(interpreter(minor)).frames(&raw, &memory);
            prop_assert!(named.len() <= raw.len());
        }
    }

    #[test]
    fn any_perf_map_is_read(text in prop::collection::vec(any::<u8>(), 0..300), at: u64) {
        let _name = PerfMap::parse(&text).find(at);
    }
}

#[test]
fn perf_maps_name_what_they_cover() {
    let map = PerfMap::parse(b"7f0000001000 40 py::serve:app.py\nnonsense\n0x10 8 a b\n");
    assert_eq!(map.find(0x7f00_0000_103f), Some("py::serve:app.py"));
    assert_eq!(map.find(0x7f00_0000_1040), None);
    assert_eq!(map.find(0x12), Some("a b"));
}

/// A function of three lines as each version compiles it, from the interpreters themselves.
#[test]
fn lines_are_those_of_the_interpreters() {
    // def f():        line 1
    //     a = 1       line 2
    //     return a    line 3
    assert_eq!(lines::line(9, &[0, 1, 4, 1], 1, 0), Some(2));
    assert_eq!(lines::line(9, &[0, 1, 4, 1], 1, 4), Some(3));
    assert_eq!(lines::line(10, &[4, 1, 4, 1], 1, 2), Some(2));
    assert_eq!(lines::line(10, &[4, 1, 4, 1], 1, 4), Some(3));
    let table = [0x80, 0x00, 0xd8, 0x08, 0x09, 0x80, 0x41, 0xd8, 0x0b, 0x0c, 0x80, 0x48];
    assert_eq!(lines::line(12, &table, 1, 0), Some(1));
    assert_eq!(lines::line(12, &table, 1, 2), Some(2));
    assert_eq!(lines::line(12, &table, 1, 8), Some(3));
}
