//! Any bytes, in any pieces: read or refused, the same however they are cut, and none lost.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use plumb_protocol::sse::{Decoder, Framer};

fuzz_target!(|pieces: Vec<Vec<u8>>| {
    let whole = pieces.concat();
    let (mut once, mut cut) = (Decoder::new(1 << 16), Decoder::new(1 << 16));
    let expected = once.push(&whole);
    let got: Result<Vec<_>, _> = pieces.iter().map(|piece| cut.push(piece)).collect();
    if let (Ok(expected), Ok(got)) = (expected, got) {
        assert_eq!(expected, got.concat());
    }
    let mut framer = Framer::new(1 << 16);
    let framed: Result<Vec<Bytes>, _> =
        pieces.iter().map(|piece| framer.push(Bytes::copy_from_slice(piece))).collect();
    if let Ok(framed) = framed {
        assert_eq!([&framed.concat()[..], framer.held()].concat(), whole);
    }
});
