//! Server-sent events, as the WHATWG HTML standard (section 9.2.6) frames them.
//!
//! [`event`] writes one; [`Decoder`] reads a stream cut anywhere; [`Framer`] cuts a stream at the
//! ends of its events without reading them, for a relay that must never pass on half an event.

use bytes::{Bytes, BytesMut};

/// The event that ends a stream in OpenAI's API.
pub const DONE: &str = "data: [DONE]\n\n";

/// One event's bytes: each line of `data` a `data:` line of its own.
pub fn event(data: &str) -> String {
    let mut out = String::with_capacity(data.len() + 8);
    for line in data.split('\n') {
        out.push_str("data: ");
        out.push_str(line.trim_end_matches('\r'));
        out.push('\n');
    }
    out.push('\n');
    out
}

/// One event as read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Event {
    /// The `event` field; empty where there is none.
    pub name: String,
    /// The `data` lines, joined by line feeds.
    pub data: String,
}

impl Event {
    /// Whether this is the event that ends a stream in OpenAI's API.
    pub fn is_done(&self) -> bool {
        self.data == "[DONE]"
    }
}

/// Why a stream cannot be read on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SseError {
    /// One event, or one line of it, is longer than the bound.
    #[error("an event is longer than {0} bytes: the sender is broken, or the bound too small")]
    TooLong(usize),
    /// The stream is not UTF-8.
    #[error("a line of the event stream is not UTF-8")]
    NotUtf8,
}

/// Reads a stream of events that arrives in pieces, cut anywhere.
#[derive(Debug)]
pub struct Decoder {
    line: Vec<u8>,
    event: Event,
    has_data: bool,
    after_cr: bool,
    at_start: bool,
    max_bytes: usize,
}

impl Decoder {
    /// `max_bytes` bounds one event.
    pub fn new(max_bytes: usize) -> Self {
        Self {
            line: Vec::new(),
            event: Event::default(),
            has_data: false,
            after_cr: false,
            at_start: true,
            max_bytes,
        }
    }

    /// Takes the next piece and gives the events that it completes.
    pub fn push(&mut self, mut piece: &[u8]) -> Result<Vec<Event>, SseError> {
        let mut events = Vec::new();
        if self.after_cr && !piece.is_empty() {
            self.after_cr = false;
            piece = piece.strip_prefix(b"\n").unwrap_or(piece);
        }
        while let Some(end) = piece.iter().position(|&b| b == b'\n' || b == b'\r') {
            self.extend_line(&piece[..end])?;
            let is_cr = piece[end] == b'\r';
            piece = &piece[end + 1..];
            if is_cr && piece.is_empty() {
                self.after_cr = true;
            } else if is_cr {
                piece = piece.strip_prefix(b"\n").unwrap_or(piece);
            }
            events.extend(self.end_line()?);
        }
        self.extend_line(piece)?;
        Ok(events)
    }

    /// Whether the stream stands between two events; if not, its end cuts one off.
    pub fn is_between_events(&self) -> bool {
        self.line.is_empty() && !self.has_data && self.event.name.is_empty()
    }

    fn extend_line(&mut self, bytes: &[u8]) -> Result<(), SseError> {
        if self.line.len() + self.event.data.len() + bytes.len() > self.max_bytes {
            return Err(SseError::TooLong(self.max_bytes));
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn end_line(&mut self) -> Result<Option<Event>, SseError> {
        let mut line = std::mem::take(&mut self.line);
        let text = std::str::from_utf8(&line).map_err(|_| SseError::NotUtf8)?;
        let text = if std::mem::take(&mut self.at_start) {
            text.strip_prefix('\u{feff}').unwrap_or(text)
        } else {
            text
        };
        let done = if text.is_empty() { self.dispatch() } else { self.field(text) };
        line.clear();
        self.line = line;
        Ok(done)
    }

    fn field(&mut self, line: &str) -> Option<Event> {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "data" => {
                if self.has_data {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
                self.has_data = true;
            }
            "event" => value.clone_into(&mut self.event.name),
            // Comments have an empty name; `id`, `retry` and unknown fields are nothing to us.
            _ => {}
        }
        None
    }

    fn dispatch(&mut self) -> Option<Event> {
        let event = std::mem::take(&mut self.event);
        std::mem::take(&mut self.has_data).then_some(event)
    }
}

/// Cuts a stream at the ends of its events, and notices the `[DONE]` that ends it.
///
/// What [`Framer::push`] gives back, put together, is what went in, bit for bit; only an event that
/// is not complete is held back. Lines end in LF or CRLF (no server of these APIs sends a lone CR).
#[derive(Debug)]
pub struct Framer {
    held: BytesMut,
    done: bool,
    max_bytes: usize,
}

impl Framer {
    /// `max_bytes` bounds the event that is held back.
    pub fn new(max_bytes: usize) -> Self {
        Self { held: BytesMut::new(), done: false, max_bytes }
    }

    /// Takes the next piece; gives the whole events so far, perhaps none.
    pub fn push(&mut self, mut piece: Bytes) -> Result<Bytes, SseError> {
        let ready = if self.held.is_empty() {
            let end = last_event_end(&piece, 0);
            let ready = piece.split_to(end);
            self.held.extend_from_slice(&piece);
            ready
        } else {
            // An end may straddle the pieces by at most three bytes.
            let from = self.held.len().saturating_sub(3);
            self.held.extend_from_slice(&piece);
            let end = last_event_end(&self.held, from);
            self.held.split_to(end).freeze()
        };
        if self.held.len() > self.max_bytes {
            return Err(SseError::TooLong(self.max_bytes));
        }
        self.done |= ends_in_done(&ready);
        Ok(ready)
    }

    /// Whether the last whole event was `[DONE]`.
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// What is held back of an event that is not complete.
    pub fn held(&self) -> &[u8] {
        &self.held
    }
}

/// The position after the last empty line that is not before `from`, or 0.
fn last_event_end(bytes: &[u8], from: usize) -> usize {
    let mut at = bytes.len();
    while let Some(lf) = bytes[from..at].iter().rposition(|&b| b == b'\n').map(|i| i + from) {
        let before = bytes[..lf].strip_suffix(b"\r").unwrap_or(&bytes[..lf]);
        if before.last() == Some(&b'\n') {
            return lf + 1;
        }
        at = lf;
    }
    0
}

fn ends_in_done(events: &[u8]) -> bool {
    let text = events.trim_ascii_end();
    text.strip_suffix(b"[DONE]").is_some_and(|rest| {
        let rest = rest.trim_ascii_end();
        rest == b"data:" || rest.ends_with(b"\ndata:")
    })
}
