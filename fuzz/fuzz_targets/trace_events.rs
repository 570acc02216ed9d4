//! Any bytes as records of the BPF programs, whose stacks are the target's own bytes: they are accounted,
//! unwound by code that is the target's too, and nothing is believed that the record does not hold.
#![no_main]

use plumb_target::memory::Pieces;
use plumb_trace::account::{Account, Sizes};
use plumb_trace::events::{self, EVENT_BYTES, RECORD_MAX};
use plumb_trace::guess;
use plumb_trace::modules::Modules;
use plumb_trace::unwind::Space;

struct Fixed;

impl Sizes for Fixed {
    fn segment(&self, shmid: u64) -> Option<u64> {
        Some(shmid)
    }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut account = Account::new();
    account.watch(1, Some(0x1000));
    for record in bytes.chunks(EVENT_BYTES) {
        let mut record = record.to_vec();
        if let Some(pid) = record.get_mut(8..12) {
            pid.copy_from_slice(&[1 + pid[0] % 2, 0, 0, 0]);
        }
        if let Some((event, _)) = events::parse(&record) {
            account.apply(&event, 1, &Fixed);
        }
    }
    for (_, process) in account.processes() {
        let ranges: Vec<_> = process.ranges.iter().map(|(range, _)| range).collect();
        assert!(ranges.iter().all(|r| r.start < r.end), "an empty range");
        assert!(ranges.windows(2).all(|pair| pair[0].end <= pair[1].start), "ranges overlap");
    }

    let mut long = bytes.to_vec();
    long.resize(RECORD_MAX, 0);
    if let Some((_, Some(stack))) = events::parse(&long) {
        assert!(stack.bytes.len() <= RECORD_MAX);
        let (mut code, modules) = (Pieces::default(), Modules::default());
        code.put(0x1_0000, bytes.to_vec());
        let unwound = Space::new().unwind(&stack, &modules, &code);
        assert!(!unwound.pcs.is_empty());
        let here = |at| (0x1_0000..0x1_0000 + bytes.len() as u64).contains(&at);
        guess::return_slot(&stack, stack.ip, stack.sp, here, here, &code);
        guess::interrupted(&stack, stack.sp);
    }
});
