//! The text of a process, to be compared before and after.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;

/// The executable mappings of a process, byte for byte.
pub fn of(pid: u32) -> BTreeMap<String, Vec<u8>> {
    let memory = fs::File::open(format!("/proc/{pid}/mem")).expect("root");
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("it runs");
    let code = maps.lines().filter(|l| l.contains(" r-xp ") && !l.contains("[v"));
    code.map(|line| {
        let (range, _) = line.split_once(' ').expect("a range");
        let (start, end) = range.split_once('-').expect("a range");
        let number = |s| u64::from_str_radix(s, 16).expect("hex");
        let mut bytes = vec![0; (number(end) - number(start)) as usize];
        memory.read_exact_at(&mut bytes, number(start)).expect("readable");
        (range.to_owned(), bytes)
    })
    .collect()
}
