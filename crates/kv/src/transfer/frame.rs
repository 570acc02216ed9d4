//! Frames: `"PK"`, version, kind, length (u32, little endian), payload.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::message::{Answer, Ask};

/// Bytes of a header.
pub(super) const HEADER: usize = 8;
/// Longest control payload.
pub(super) const MAX_CONTROL: usize = 256 << 10;
/// Longest data payload: the unit in which a pull can be cancelled and timed.
pub(super) const MAX_DATA: usize = 1 << 20;

const MAGIC: [u8; 3] = *b"PK\x01";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Control = 1,
    Data = 2,
}

impl Kind {
    fn bound(self) -> usize {
        match self {
            Self::Control => MAX_CONTROL,
            Self::Data => MAX_DATA,
        }
    }
}

/// Bytes that are not our protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    #[error("no frame starts with {0:02x?}")]
    Header([u8; HEADER]),
    #[error("a {kind:?} frame of {bytes} bytes: at most {bound}")]
    Long { kind: Kind, bytes: usize, bound: usize },
    #[error("{found:?} frame where {wanted:?} was due")]
    Kind { wanted: Kind, found: Kind },
    #[error("data frame of {found} bytes where {wanted} were due")]
    Data { wanted: usize, found: usize },
    #[error("message: {0}")]
    Message(String),
    #[error("{0}")]
    Unexpected(&'static str),
}

pub(super) fn header(kind: Kind, bytes: usize) -> [u8; HEADER] {
    debug_assert!(bytes <= kind.bound());
    let mut header = [0; HEADER];
    header[..3].copy_from_slice(&MAGIC);
    header[3] = kind as u8;
    header[4..].copy_from_slice(&(bytes as u32).to_le_bytes());
    header
}

pub(super) fn parse_header(header: [u8; HEADER]) -> Result<(Kind, usize), Malformed> {
    let kind = match (header[..3] == MAGIC, header[3]) {
        (true, 1) => Kind::Control,
        (true, 2) => Kind::Data,
        _ => return Err(Malformed::Header(header)),
    };
    let bytes = u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize;
    if bytes > kind.bound() {
        return Err(Malformed::Long { kind, bytes, bound: kind.bound() });
    }
    Ok((kind, bytes))
}

/// A whole control frame.
pub(super) fn control(message: &impl Serialize) -> Result<Vec<u8>, Malformed> {
    let mut frame = vec![0; HEADER];
    serde_json::to_writer(&mut frame, message).map_err(|e| Malformed::Message(e.to_string()))?;
    let bytes = frame.len() - HEADER;
    if bytes > MAX_CONTROL {
        return Err(Malformed::Long { kind: Kind::Control, bytes, bound: MAX_CONTROL });
    }
    frame[..HEADER].copy_from_slice(&header(Kind::Control, bytes));
    Ok(frame)
}

pub(super) fn parse_control<T: DeserializeOwned>(payload: &[u8]) -> Result<T, Malformed> {
    serde_json::from_slice(payload).map_err(|e| Malformed::Message(e.to_string()))
}

/// Reads `bytes` as a stream of frames, as both sides would, until they end or are malformed. What
/// was understood is written and read again, and must be the same. For the fuzzer.
#[doc(hidden)]
pub fn fuzz_frames(mut bytes: &[u8]) {
    while let Some((head, rest)) = bytes.split_first_chunk::<HEADER>() {
        let Ok((kind, length)) = parse_header(*head) else { return };
        assert_eq!(header(kind, length), *head);
        let Some((payload, rest)) = rest.split_at_checked(length) else { return };
        bytes = rest;
        if let Ok(ask) = parse_control::<Ask>(payload) {
            check_round_trip(&ask);
        }
        if let Ok(answer) = parse_control::<Answer>(payload) {
            check_round_trip(&answer);
        }
    }
}

fn check_round_trip<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(message: &T) {
    // Escapes can make a message longer than the text that it was read from.
    let Ok(frame) = control(message) else { return };
    let again: T = parse_control(&frame[HEADER..]).expect("what we write we can read");
    assert_eq!(*message, again);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_frame_is_refused_before_it_is_read() {
        assert!(matches!(parse_header(*b"GET / HT"), Err(Malformed::Header(_))));
        assert!(matches!(parse_header(*b"PK\x01\x03\0\0\0\0"), Err(Malformed::Header(_))));
        let long = parse_header(*b"PK\x01\x01\xff\xff\xff\xff");
        assert!(matches!(long, Err(Malformed::Long { bytes: 0xffff_ffff, .. })));
        assert_eq!(parse_header(header(Kind::Data, MAX_DATA)), Ok((Kind::Data, MAX_DATA)));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_answered(bytes: Vec<u8>, message in "\\PC{0,60}") {
            fuzz_frames(&bytes);
            let mut framed = header(Kind::Control, message.len()).to_vec();
            framed.extend(message.as_bytes());
            fuzz_frames(&framed);
        }
    }
}
