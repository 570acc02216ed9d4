//! pprof's `profile.proto` (github.com/google/pprof, proto/profile.proto), gzipped.

use std::collections::HashMap;
use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use plumb_trace::Frame;

use super::{label, weight};
use crate::report::Report;

/// The report as a gzipped profile of bytes and counts.
///
/// # Errors
/// None that a vector can give.
pub fn pprof(report: &Report) -> io::Result<Vec<u8>> {
    let mut gz = GzEncoder::new(Vec::new(), Compression::default());
    gz.write_all(&profile(report))?;
    gz.finish()
}

#[derive(Default)]
struct Tables {
    strings: Vec<String>,
    string_ids: HashMap<String, u64>,
    functions: Vec<u8>,
    function_ids: HashMap<(u64, u64), u64>,
    locations: Vec<u8>,
    location_ids: HashMap<(u64, u64), u64>,
}

fn profile(report: &Report) -> Vec<u8> {
    let mut tables = Tables::default();
    tables.string("");
    let mut out = Vec::new();
    for (what, unit) in [("outstanding", "bytes"), ("objects", "count")] {
        let mut value_type = Vec::new();
        number(&mut value_type, 1, tables.string(what));
        number(&mut value_type, 2, tables.string(unit));
        bytes(&mut out, 1, &value_type);
    }
    for c in &report.culprits {
        let mut sample = Vec::new();
        let ids: Vec<u64> = c.frames.iter().map(|f| tables.location(f)).collect();
        packed(&mut sample, 1, &ids);
        packed(&mut sample, 2, &[weight(c), c.count]);
        bytes(&mut out, 2, &sample);
    }
    out.extend_from_slice(&tables.locations);
    out.extend_from_slice(&tables.functions);
    for s in &tables.strings {
        bytes(&mut out, 6, s.as_bytes());
    }
    out
}

impl Tables {
    fn string(&mut self, s: &str) -> u64 {
        if let Some(id) = self.string_ids.get(s) {
            return *id;
        }
        let id = self.strings.len() as u64;
        self.strings.push(s.to_owned());
        self.string_ids.insert(s.to_owned(), id);
        id
    }

    fn function(&mut self, frame: &Frame) -> u64 {
        let name = self.string(&label(frame));
        let file = self.string(frame.file.as_deref().unwrap_or(""));
        let next = self.function_ids.len() as u64 + 1;
        let id = *self.function_ids.entry((name, file)).or_insert(next);
        if id == next {
            let mut f = Vec::new();
            for (field, value) in [(1, id), (2, name), (3, name), (4, file)] {
                number(&mut f, field, value);
            }
            bytes(&mut self.functions, 5, &f);
        }
        id
    }

    fn location(&mut self, frame: &Frame) -> u64 {
        let function = self.function(frame);
        let at = u64::from(frame.line.unwrap_or(0));
        let next = self.location_ids.len() as u64 + 1;
        let id = *self.location_ids.entry((function, at)).or_insert(next);
        if id == next {
            let mut line = Vec::new();
            number(&mut line, 1, function);
            number(&mut line, 2, at);
            let mut location = Vec::new();
            number(&mut location, 1, id);
            bytes(&mut location, 4, &line);
            bytes(&mut self.locations, 4, &location);
        }
        id
    }
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn number(out: &mut Vec<u8>, field: u64, value: u64) {
    varint(out, field << 3);
    varint(out, value);
}

fn bytes(out: &mut Vec<u8>, field: u64, value: &[u8]) {
    varint(out, field << 3 | 2);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

fn packed(out: &mut Vec<u8>, field: u64, values: &[u64]) {
    let mut all = Vec::new();
    for v in values {
        varint(&mut all, *v);
    }
    bytes(out, field, &all);
}
