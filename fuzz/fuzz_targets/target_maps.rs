//! Any bytes as `maps`, `smaps`, `stat`, `status`, `mountinfo` and a JVM's performance data.
#![no_main]

use plumb_target::{jvm, maps, mounts::MemoryMounts, smaps, status};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(maps) = maps::parse(bytes) {
        assert!(maps.windows(2).all(|pair| pair[0].end <= pair[1].start));
        assert!(maps.iter().all(|map| map.start < map.end));
    }
    let whole = smaps::parse(bytes);
    // Whatever the pieces, the reading is the same.
    let mut parser = smaps::Parser::default();
    let pieces = bytes.chunks(7).try_for_each(|piece| parser.feed(piece));
    let in_pieces = pieces.and_then(|()| parser.finish());
    assert_eq!(whole.ok(), in_pieces.ok());
    let _ = status::Stat::parse(bytes);
    let _ = status::Status::parse(bytes);
    let _ = MemoryMounts::parse(bytes);
    let _ = jvm::parse(bytes);
});
