//! What a target's own profiler says of its heap: two of its dumps, and the growth between them.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::SystemTime;

use plumb_target::Process;
use plumb_trace::Tracer;
use plumb_trace::dumps::{Dump, Dumps, Live};
use plumb_trace::tracer::Code;
use serde::Serialize;

use crate::allocators;
use crate::growth::Verdict;
use crate::report::Culprit;

/// Which of the target's own dumps the shares come from.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OwnProfile {
    /// The process.
    pub pid: u32,
    /// The earlier dump, as the process names it.
    pub first: PathBuf,
    /// The later one.
    pub last: PathBuf,
    /// Seconds between them.
    pub seconds: f64,
}

/// The dumps of each process whose heap grows.
#[derive(Debug, Default)]
pub struct Profiles(HashMap<u32, Option<Own>>);

/// One process's.
#[derive(Debug)]
struct Own {
    dumps: Dumps,
    code: Code,
    first: Option<(SystemTime, OsString, Dump)>,
    /// The newest after the first, as far as was seen.
    last: Option<(SystemTime, OsString, Dump)>,
}

impl Profiles {
    /// Looks for dumps of a process whose heap grows. The first is kept, since it may be removed.
    pub fn look(&mut self, tracer: &mut Tracer, process: &Process) {
        let own = self.0.entry(process.pid()).or_insert_with(|| {
            let (dumps, code) = (Dumps::of(process)?, tracer.code(process).ok()?);
            Some(Own { dumps, code, first: None, last: None })
        });
        if let Some(own) = own {
            own.look(tracer);
        }
    }

    /// Whether a process's own profiler tells what has become more.
    pub fn tells(&self, pid: u32) -> bool {
        self.0.get(&pid).is_some_and(|own| own.as_ref().is_some_and(|own| own.last.is_some()))
    }

    /// Shares by stack between two dumps; the total is the ledger's. `None` where there are no two, or
    /// nothing has become more between them.
    pub fn shares(
        &mut self,
        tracer: &mut Tracer,
        verdict: &Verdict,
    ) -> Option<(Vec<Culprit>, OwnProfile)> {
        let own = self.0.get_mut(&verdict.pid)?.as_mut()?;
        own.look(tracer);
        let ((then, first, before), (now, last, after)) = (own.first.as_ref()?, own.last.as_ref()?);
        let more = after.since(before);
        let all: f64 = more.iter().map(|(_, live)| live.bytes).sum();
        if all <= 0.0 {
            return None;
        }
        let culprits = more.iter().map(|(stack, live)| {
            let part = live.bytes / all;
            let outstanding_bytes = (verdict.grown_bytes as f64 * part) as u64;
            Culprit {
                pid: verdict.pid,
                outstanding_bytes,
                count: (outstanding_bytes as f64 * live.count / live.bytes) as u64,
                share: Some(part),
                share_error: Some(error(live, part)),
                frames: without_profiler(tracer.frames_of(own.code, stack)),
                ..Culprit::default()
            }
        });
        let culprits = culprits.collect();
        let told = OwnProfile {
            pid: verdict.pid,
            first: own.dumps.path(first),
            last: own.dumps.path(last),
            seconds: now.duration_since(*then).unwrap_or_default().as_secs_f64(),
        };
        Some((culprits, told))
    }
}

impl Own {
    fn look(&mut self, tracer: &mut Tracer) {
        let known = self.last.as_ref().or(self.first.as_ref()).map(|(time, ..)| *time);
        let Some((time, name)) = self.dumps.newest() else { return };
        if known.is_some_and(|known| time <= known) {
            return;
        }
        // One that is being written is read at the next look.
        let Some(dump) = self.dumps.read(&name).filter(|d| tracer.is_of(d, self.code)) else {
            return;
        };
        let slot = if self.first.is_none() { &mut self.first } else { &mut self.last };
        *slot = Some((time, name, dump));
    }
}

/// Half the width of the 95 % interval of a share. Where all was counted there is none.
fn error(live: &Live, part: f64) -> f64 {
    let one_stands_for = live.count / live.sampled.max(1) as f64;
    if one_stands_for <= 1.0 {
        return 0.0;
    }
    (1.96 * part * (1.0 - part) / (live.sampled.max(1) as f64).sqrt()).min(1.0)
}

/// The profiler's own way to the stack is no news.
fn without_profiler(mut frames: Vec<plumb_trace::Frame>) -> Vec<plumb_trace::Frame> {
    let own = |f: &plumb_trace::Frame| allocators::stands_in(std::slice::from_ref(f));
    let inner = frames.iter().take_while(|f| own(f)).count();
    frames.drain(..inner.saturating_sub(1));
    frames
}
