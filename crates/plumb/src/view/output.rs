//! Lines for somebody who may not take them: looking goes on whoever reads.

use std::io::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// So many bytes wait for a reader; what comes beyond is dropped, and counted.
const MOST_WAITING: usize = 8 << 20;
/// How long the last lines are waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// A destination of lines, written to by a thread of its own.
#[derive(Debug)]
pub struct Output {
    name: String,
    lines: Option<Sender<Vec<u8>>>,
    waiting: Arc<AtomicUsize>,
    error: Arc<Mutex<Option<io::Error>>>,
    done: Receiver<()>,
    dropped: usize,
}

/// Why not everything was written.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The system refused.
    #[error("cannot write to {name}: {error}")]
    Refused {
        /// Where to.
        name: String,
        /// What it said.
        error: io::Error,
    },
    /// Nobody took it.
    #[error(
        "{name} is not taken in time: {dropped} lines were left out{}",
        if *last { "" } else { ", the last among them" }
    )]
    NotTaken {
        /// Where to.
        name: String,
        /// How many lines were left out.
        dropped: usize,
        /// Whether the last lines were taken.
        last: bool,
    },
}

impl Output {
    /// A destination, under the name that its faults tell.
    pub fn new(name: impl Into<String>, mut to: impl Write + Send + 'static) -> Self {
        let (lines, receiver) = channel::<Vec<u8>>();
        let (waiting, error) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(None)));
        let (ended, done) = channel();
        let (taken, fault) = (waiting.clone(), error.clone());
        std::thread::spawn(move || {
            for text in receiver {
                if let Err(error) = to.write_all(&text).and_then(|()| to.flush()) {
                    *fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    break;
                }
                taken.fetch_sub(text.len(), Ordering::Relaxed);
            }
            // Whoever asked may be gone.
            let _nobody = ended.send(());
        });
        Self { name: name.into(), lines: Some(lines), waiting, error, done, dropped: 0 }
    }

    /// Hands over whole lines; they are dropped where too many wait.
    ///
    /// # Errors
    /// What the system answered to an earlier line.
    pub fn send(&mut self, text: &[u8]) -> Result<(), Fault> {
        if self.waiting.load(Ordering::Relaxed) > MOST_WAITING {
            self.dropped += text.iter().filter(|&&b| b == b'\n').count();
            return self.refused();
        }
        self.hand_over(text);
        self.refused()
    }

    /// Hands over the last lines and waits a while for all to be written.
    ///
    /// # Errors
    /// What the system answered, or that lines were left out.
    pub fn finish(mut self, text: &[u8]) -> Result<(), Fault> {
        self.hand_over(text);
        self.lines = None;
        let last = self.done.recv_timeout(PATIENCE).is_ok();
        self.refused()?;
        match (last, self.dropped) {
            (true, 0) => Ok(()),
            (last, dropped) => Err(Fault::NotTaken { name: self.name, dropped, last }),
        }
    }

    fn hand_over(&self, text: &[u8]) {
        self.waiting.fetch_add(text.len(), Ordering::Relaxed);
        // A thread that has ended said why.
        let _ended = self.lines.as_ref().map(|lines| lines.send(text.to_vec()));
    }

    fn refused(&self) -> Result<(), Fault> {
        match self.error.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(error) => Err(Fault::Refused { name: self.name.clone(), error }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_takes_is_dropped_and_counted() {
        let (reader, writer) = io::pipe().expect("a pipe");
        let mut output = Output::new("it", writer);
        let line = vec![b'\n'; 1 << 20];
        for _ in 0..20 {
            output.send(&line).expect("dropped, not refused");
        }
        let dropped = output.dropped;
        assert!((8..12).contains(&(dropped >> 20)), "{dropped}");
        drop(reader);
        let fault = output.finish(b"\n").expect_err("nobody reads");
        assert!(matches!(fault, Fault::Refused { .. }), "{fault}");
    }

    #[test]
    fn all_is_written_in_order() {
        let (reader, writer) = io::pipe().expect("a pipe");
        let reading = std::thread::spawn(move || io::read_to_string(reader).expect("text"));
        let mut output = Output::new("it", writer);
        output.send(b"a\n").expect("sent");
        output.finish(b"b\n").expect("written");
        assert_eq!(reading.join().expect("read"), "a\nb\n");
    }

    #[test]
    fn a_full_disk_is_said() {
        let full = std::fs::File::options().write(true).open("/dev/full").expect("/dev/full");
        let output = Output::new("the record", full);
        let fault = output.finish(b"a\n").expect_err("no space");
        assert_eq!(
            fault.to_string(),
            "cannot write to the record: No space left on device (os error 28)"
        );
    }
}
