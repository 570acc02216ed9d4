//! The SSE codec: recorded streams, every way of cutting them, and bytes that are no stream.

use bytes::Bytes;
use plumb_protocol::sse::{self, Decoder, Event, Framer, SseError};
use proptest::prelude::*;

const RECORDED: [&[u8]; 4] = [
    include_bytes!(
        "../../../tests/fixtures/nixl-protocol/vllm-0.32/chat_stream.decode.response.sse"
    ),
    include_bytes!(
        "../../../tests/fixtures/nixl-protocol/vllm-0.32/completion_stream.decode.response.sse"
    ),
    include_bytes!(
        "../../../tests/fixtures/nixl-protocol/vllm-0.13/chat_stream.decode.response.sse"
    ),
    include_bytes!(
        "../../../tests/fixtures/nixl-protocol/vllm-0.32/err_prefill_stream.response.sse"
    ),
];

fn read(pieces: &[&[u8]]) -> Vec<Event> {
    let mut decoder = Decoder::new(1 << 20);
    pieces.iter().flat_map(|piece| decoder.push(piece).unwrap()).collect()
}

/// Cuts `bytes` at the given places, taken modulo its length.
fn cut<'a>(bytes: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<usize> = cuts.iter().map(|c| c % (bytes.len() + 1)).collect();
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|w| &bytes[w[0]..w[1]]).collect()
}

#[test]
fn reads_what_vllm_streamed() {
    for stream in RECORDED {
        let events = read(&[stream]);
        assert!(events.len() >= 2);
        let (done, chunks) = events.split_last().unwrap();
        assert!(done.is_done());
        for chunk in chunks {
            serde_json::from_str::<serde_json::Value>(&chunk.data).expect("each event is JSON");
        }
    }
}

#[test]
fn reads_every_line_ending_comment_and_multi_line_event() {
    let stream = "\u{feff}: hello\r\nevent: a\rdata:  x\ndata\r\ndata:y:z\n\nid: 7\nretry: 1\n\n\
                  data: [DONE]\r\r";
    let expected = vec![
        Event { name: "a".into(), data: " x\n\ny:z".into() },
        Event { name: String::new(), data: "[DONE]".into() },
    ];
    assert_eq!(read(&[stream.as_bytes()]), expected);
    let bytes: Vec<&[u8]> = stream.as_bytes().chunks(1).collect();
    assert_eq!(read(&bytes), expected, "byte by byte");
}

#[test]
fn an_event_cut_off_by_the_end_is_noticed() {
    let mut decoder = Decoder::new(100);
    assert!(decoder.push(b"data: a\n\n").unwrap().len() == 1 && decoder.is_between_events());
    assert!(decoder.push(b"data: b\n").unwrap().is_empty() && !decoder.is_between_events());
}

#[test]
fn bounds_hold() {
    let mut decoder = Decoder::new(100);
    assert_eq!(decoder.push(&[b'a'; 101]), Err(SseError::TooLong(100)));
    let mut decoder = Decoder::new(100);
    let many_lines = "data: 0123456789\n".repeat(20);
    assert_eq!(decoder.push(many_lines.as_bytes()), Err(SseError::TooLong(100)));
    assert_eq!(Decoder::new(100).push(b"data: \xff\n"), Err(SseError::NotUtf8));

    let mut framer = Framer::new(100);
    assert_eq!(framer.push(Bytes::from(vec![b'a'; 101])), Err(SseError::TooLong(100)));
}

#[test]
fn what_is_written_is_read() {
    for data in ["", "one", "two\nlines", "\n\n", "{\"a\":\"b\"}"] {
        assert_eq!(read(&[sse::event(data).as_bytes()])[0].data, data);
    }
    assert!(read(&[sse::DONE.as_bytes()])[0].is_done());
}

#[test]
fn done_is_told_from_text_about_it() {
    for (stream, done) in [
        ("data: [DONE]\n\n", true),
        ("data: a\n\ndata:[DONE]\r\n\r\n", true),
        ("data: a [DONE]\n\n", false),
        ("data: \"x\\ndata: [DONE]\n\n", false),
        ("mydata: [DONE]\n\n", false),
        ("data: [DONE]\n", false),
    ] {
        let mut framer = Framer::new(100);
        framer.push(Bytes::from(stream)).unwrap();
        assert_eq!(framer.is_done(), done, "{stream:?}");
    }
}

proptest! {
    #[test]
    fn the_cuts_make_no_difference(
        which in 0..RECORDED.len(), cuts in prop::collection::vec(any::<usize>(), 0..40),
    ) {
        let stream = RECORDED[which];
        prop_assert_eq!(read(&cut(stream, &cuts)), read(&[stream]));
    }

    #[test]
    fn the_cuts_make_no_difference_on_any_lines(
        lines in prop::collection::vec(
            prop::sample::select(vec!["data: x", "data:y", ":c", "event: e", "", "", "junk", "\u{e9}: z"]),
            0..30,
        ),
        ends in prop::collection::vec(prop::sample::select(vec!["\n", "\r\n", "\r"]), 30),
        cuts in prop::collection::vec(any::<usize>(), 0..40),
    ) {
        let stream: String = lines.iter().zip(&ends).flat_map(|(l, e)| [*l, *e]).collect();
        prop_assert_eq!(read(&cut(stream.as_bytes(), &cuts)), read(&[stream.as_bytes()]));
    }

    #[test]
    fn a_framer_gives_back_what_went_in_and_only_whole_events(
        which in 0..RECORDED.len(), cuts in prop::collection::vec(any::<usize>(), 0..40),
        crlf in any::<bool>(),
    ) {
        let mut stream = String::from_utf8(RECORDED[which].to_vec()).unwrap();
        if crlf {
            stream = stream.replace('\n', "\r\n");
        }
        let mut framer = Framer::new(1 << 20);
        let mut out = Vec::new();
        for piece in cut(stream.as_bytes(), &cuts) {
            let ready = framer.push(Bytes::copy_from_slice(piece)).unwrap();
            let mut decoder = Decoder::new(1 << 20);
            decoder.push(&ready).unwrap();
            prop_assert!(decoder.is_between_events(), "half an event was passed on");
            out.extend_from_slice(&ready);
        }
        prop_assert!(framer.is_done());
        out.extend_from_slice(framer.held());
        prop_assert_eq!(out, stream.as_bytes());
    }

    #[test]
    fn any_bytes_are_read_or_refused_and_a_framer_loses_none(
        pieces in prop::collection::vec(any::<Vec<u8>>(), 0..20),
    ) {
        let mut decoder = Decoder::new(64);
        let mut framer = Framer::new(64);
        let mut out = Vec::new();
        for piece in &pieces {
            drop(decoder.push(piece));
            match framer.push(Bytes::copy_from_slice(piece)) {
                Ok(ready) => out.extend_from_slice(&ready),
                Err(_) => return Ok(()),
            }
        }
        out.extend_from_slice(framer.held());
        prop_assert_eq!(out, pieces.concat());
    }
}
