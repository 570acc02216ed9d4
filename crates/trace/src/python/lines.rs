//! From a place in a code object to a line: the three tables that CPython has had.
//!
//! `Objects/lnotab_notes.txt` describes the table of 3.9, PEP 626 that of 3.10, and
//! `Objects/locations.md` that of 3.11 and later. The bytes are the target's.

/// The line at byte `at` of a code object's instructions.
pub fn line(minor: u32, table: &[u8], first: i64, at: u64) -> Option<u32> {
    let line = match minor {
        ..10 => by_lnotab(table, first, at),
        10 => by_ranges(table, first, at)?,
        _ => by_locations(table, first, at)?,
    };
    u32::try_from(line).ok()
}

/// Pairs of (address, line) steps, unsigned and signed.
fn by_lnotab(table: &[u8], first: i64, at: u64) -> i64 {
    let (mut address, mut line) = (0u64, first);
    for pair in table.as_chunks::<2>().0 {
        address += u64::from(pair[0]);
        if address > at {
            break;
        }
        line += i64::from(pair[1].cast_signed());
    }
    line
}

/// Pairs of (length, line step); -128 means that the range has no line.
fn by_ranges(table: &[u8], first: i64, at: u64) -> Option<i64> {
    let (mut end, mut line) = (0u64, first);
    for pair in table.as_chunks::<2>().0 {
        let step = pair[1].cast_signed();
        end += u64::from(pair[0]);
        if step != -128 {
            line += i64::from(step);
        }
        if at < end {
            return (step != -128).then_some(line);
        }
    }
    None
}

/// Entries of a code, a length in code units, and by code a line step as a variable-length number.
fn by_locations(table: &[u8], first: i64, at: u64) -> Option<i64> {
    let (mut end, mut line) = (0u64, first);
    let mut rest = table;
    while let Some((&head, tail)) = rest.split_first() {
        let code = head >> 3 & 15;
        rest = tail;
        let step = match code {
            // No location, long form, no column: the last two carry a signed number.
            15 => 0,
            13 | 14 => signed(&mut rest)?,
            10..=12 => i64::from(code) - 10,
            _ => 0,
        };
        line = line.checked_add(step)?;
        let more = rest.iter().position(|b| b & 0x80 != 0).unwrap_or(rest.len());
        rest = &rest[more..];
        end += (u64::from(head & 7) + 1) * 2;
        if at < end {
            return (code != 15).then_some(line);
        }
    }
    None
}

/// Six bits a byte, lowest first, bit 6 says that more follow; the lowest bit of all is the sign.
fn signed(rest: &mut &[u8]) -> Option<i64> {
    let mut value = 0u64;
    let mut shift = 0;
    loop {
        let (&b, tail) = rest.split_first()?;
        *rest = tail;
        value |= u64::from(b & 63).checked_shl(shift)?;
        shift += 6;
        if b & 64 == 0 {
            break;
        }
    }
    let magnitude = (value >> 1).cast_signed();
    Some(if value & 1 == 1 { -magnitude } else { magnitude })
}
