//! A team of threads that runs one job together, in step.
//!
//! The caller of [`Team::run`] is one of the team. The others sleep between jobs: after a short
//! spin they wait on a futex, so that an idle engine costs nothing.

use crate::Error;
use rustix::thread::futex;
use std::cell::UnsafeCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::thread::{JoinHandle, ThreadId};

/// Rounds of spinning before a thread sleeps: some tens of microseconds, longer than most
/// operations' imbalance and far shorter than a step.
const SPINS: u32 = 1000;

type Job = dyn Fn(&Member<'_>) + Sync;

/// Threads that work together.
pub(crate) struct Team {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    cpus: Vec<usize>,
    pinned: Option<ThreadId>,
}

struct Shared {
    /// Goes up by one a job; sleepers wait for it to change.
    generation: Bell,
    job: UnsafeCell<Option<*const Job>>,
    stop: AtomicBool,
    meeting: Meeting,
}

// SAFETY: `job` is written only by `Team::run`, which has `&mut Team`, while every other thread
// waits for `generation`, whose change publishes it.
unsafe impl Sync for Shared {}
// SAFETY: as above; the pointer is never used beyond the `run` that set it.
unsafe impl Send for Shared {}

/// Where all members wait for the last one, and the counter from which they take parts.
struct Meeting {
    members: u32,
    arrived: AtomicU32,
    phase: Bell,
    next_part: AtomicUsize,
}

/// One thread's place in the team while a job runs.
pub(crate) struct Member<'a> {
    /// Number of this thread: 0 is the caller of `run`.
    pub(crate) index: usize,
    meeting: &'a Meeting,
}

impl Member<'_> {
    /// Runs every part of `0..parts` once, each on whichever member is free, and returns when all
    /// are done. Every member must call it with the same `parts`.
    pub(crate) fn share(&self, parts: usize, mut run: impl FnMut(usize)) {
        if self.meeting.members == 1 {
            (0..parts).for_each(run);
            return;
        }
        loop {
            let part = self.meeting.next_part.fetch_add(1, Ordering::Relaxed);
            if part >= parts {
                break;
            }
            run(part);
        }
        self.meeting.wait();
    }
}

impl Meeting {
    fn wait(&self) {
        let phase = self.phase.now();
        if self.arrived.fetch_add(1, Ordering::AcqRel) + 1 == self.members {
            self.arrived.store(0, Ordering::Relaxed);
            self.next_part.store(0, Ordering::Relaxed);
            self.phase.ring();
        } else {
            self.phase.wait_past(phase);
        }
    }
}

/// A number that goes up, and threads that wait for it.
#[derive(Default)]
struct Bell {
    number: AtomicU32,
    sleepers: AtomicU32,
}

impl Bell {
    fn now(&self) -> u32 {
        self.number.load(Ordering::Acquire)
    }

    fn ring(&self) {
        self.number.fetch_add(1, Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            // Waking can only fail for a bad address.
            let _ = futex::wake(&self.number, futex::Flags::PRIVATE, u32::MAX >> 1);
        }
    }

    fn wait_past(&self, seen: u32) {
        for _ in 0..SPINS {
            if self.now() != seen {
                return;
            }
            std::hint::spin_loop();
        }
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        while self.number.load(Ordering::SeqCst) == seen {
            // An error means that the number has changed or a signal came: the loop looks again.
            let _ = futex::wait(&self.number, futex::Flags::PRIVATE, seen, None);
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Team {
    /// A team of `members` threads, the caller of `run` among them; member `i` is pinned to
    /// `cpus[i]` where `cpus` is not empty.
    pub(crate) fn new(members: usize, cpus: &[usize]) -> Result<Self, Error> {
        let shared = Arc::new(Shared {
            generation: Bell::default(),
            job: UnsafeCell::new(None),
            stop: AtomicBool::new(false),
            meeting: Meeting {
                members: members as u32,
                arrived: AtomicU32::new(0),
                phase: Bell::default(),
                next_part: AtomicUsize::new(0),
            },
        });
        let mut team = Self { shared, threads: Vec::new(), cpus: cpus.to_vec(), pinned: None };
        for index in 1..members {
            let shared = Arc::clone(&team.shared);
            let cpu = cpus.get(index).copied();
            let thread = std::thread::Builder::new()
                .name(format!("plumb-engine-{index}"))
                .stack_size(1 << 20)
                .spawn(move || follow(&shared, index, cpu))
                .map_err(|source| Error::system("cannot start an engine thread", source))?;
            team.threads.push(thread);
        }
        // What threads allocate as they start is not put off to the first step.
        team.together(&|_| ());
        Ok(team)
    }

    /// How many threads work together.
    pub(crate) fn members(&self) -> usize {
        self.threads.len() + 1
    }

    /// Runs `job` on every member at once and returns when all have finished.
    pub(crate) fn run(&mut self, job: &(dyn Fn(&Member<'_>) + Sync)) {
        self.pin_caller();
        self.together(job);
    }

    fn together(&mut self, job: &(dyn Fn(&Member<'_>) + Sync)) {
        let shared = &*self.shared;
        let me = Member { index: 0, meeting: &shared.meeting };
        if self.threads.is_empty() {
            job(&me);
            return;
        }
        let job_pointer: *const (dyn Fn(&Member<'_>) + Sync + '_) = job;
        // SAFETY: only the lifetime changes. Every member has left the job when `wait` returns
        // below, and nobody looks at the pointer after that before the next `run` replaces it.
        let forever = unsafe {
            std::mem::transmute::<*const (dyn Fn(&Member<'_>) + Sync + '_), *const Job>(job_pointer)
        };
        // SAFETY: the other members wait for `generation`; see `Shared`.
        unsafe { *shared.job.get() = Some(forever) };
        shared.generation.ring();
        job(&me);
        shared.meeting.wait();
    }

    fn pin_caller(&mut self) {
        let Some(&cpu) = self.cpus.first() else { return };
        let me = std::thread::current().id();
        if self.pinned != Some(me) {
            pin(cpu);
            self.pinned = Some(me);
        }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.generation.ring();
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}

impl std::fmt::Debug for Team {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Team").field("members", &self.members()).field("cpus", &self.cpus).finish()
    }
}

/// The life of every member but the caller.
fn follow(shared: &Shared, index: usize, cpu: Option<usize>) {
    if let Some(cpu) = cpu {
        pin(cpu);
    }
    // The others would wait for ever for a member that panicked.
    let _abort = AbortOnPanic;
    let me = Member { index, meeting: &shared.meeting };
    let mut seen = 0;
    loop {
        shared.generation.wait_past(seen);
        seen = seen.wrapping_add(1);
        if shared.stop.load(Ordering::Acquire) {
            return;
        }
        // SAFETY: set before `generation` changed, and alive until all members have met.
        if let Some(job) = unsafe { *shared.job.get() } {
            // SAFETY: as above.
            unsafe { (*job)(&me) };
        }
        shared.meeting.wait();
    }
}

struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}

/// Pins the calling thread. A CPU that does not exist or is not allowed is no reason to fail.
fn pin(cpu: usize) {
    let mut set = rustix::thread::CpuSet::new();
    if cpu >= rustix::thread::CpuSet::MAX_CPU {
        tracing::warn!(cpu, "no such CPU: the engine thread is not pinned");
        return;
    }
    set.set(cpu);
    if let Err(error) = rustix::thread::sched_setaffinity(None, &set) {
        tracing::warn!(cpu, %error, "the engine thread is not pinned");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_runs_once_and_phases_do_not_overlap() {
        for members in [1, 2, 3] {
            let mut team = Team::new(members, &[]).unwrap();
            let first: Vec<AtomicU32> = (0..100).map(|_| AtomicU32::new(0)).collect();
            let second: Vec<AtomicU32> = (0..100).map(|_| AtomicU32::new(0)).collect();
            for _ in 0..50 {
                team.run(&|me| {
                    me.share(100, |part| {
                        first[part].fetch_add(1, Ordering::Relaxed);
                    });
                    me.share(100, |part| {
                        // The mirror part belongs to the phase before: it must be complete.
                        let done = first[99 - part].load(Ordering::Relaxed);
                        second[part].store(done, Ordering::Relaxed);
                    });
                });
            }
            assert!(second.iter().all(|n| n.load(Ordering::Relaxed) == 50), "{members} members");
        }
    }

    #[test]
    fn an_idle_team_uses_no_cpu() {
        let mut team = Team::new(2, &[]).unwrap();
        team.run(&|me| me.share(2, |_| {}));
        // The member sleeps as soon as it has counted itself among the sleepers.
        while team.shared.generation.sleepers.load(Ordering::SeqCst) == 0 {
            std::thread::yield_now();
        }
        team.run(&|me| me.share(2, |_| {}));
    }
}
