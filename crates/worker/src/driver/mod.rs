//! The engine's thread: owns the engine and the scheduler, takes commands, computes step after step.
//!
//! Everything else talks to it by [`Command`] and hears from it by [`Event`]. It waits for nobody:
//! pulls, HTTP and leases live on other threads.

mod job;
mod keep;
mod pace;
mod pull;
mod sample;
mod step;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::Duration;

use plumb_engine::Engine;
use plumb_text::Tokenizer;

pub use job::{Job, Submission};
pub use keep::Keeper;
pub use pace::Pace;
pub use pull::{LoadFailure, Pulls};

use crate::explain::Explain;
use crate::generation::{Event, Failure, Finish};
use crate::metrics::Metrics;
use crate::scheduler::{Plan, Scheduler, SeqId};

/// While sequences wait for blocks that a lease or a peer's pull holds, they are looked for this
/// often: such blocks return without a word to this thread.
const BLOCKED_RETRY: Duration = Duration::from_millis(5);

/// What others ask of the thread.
#[derive(Debug)]
pub enum Command {
    /// A new request.
    Submit(Box<Submission>),
    /// Nobody wants the answers of this request any more.
    Abort(u64),
    /// This answer's text has ended.
    Stop(SeqId),
    /// A pull ended.
    Pulled(SeqId, Result<(), String>),
    /// No more work: end after this.
    Shutdown,
}

/// The engine's thread, before it is started.
#[derive(Debug)]
pub struct Driver {
    /// Computes.
    pub engine: Engine,
    /// Decides what.
    pub scheduler: Scheduler<Job>,
    /// What others ask.
    pub commands: Receiver<Command>,
    /// Starts pulls.
    pub pulls: Pulls,
    /// Grants leases.
    pub keeper: Keeper,
    /// Knows which tokens end an answer.
    pub tokenizer: Arc<Tokenizer>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Keeps steps short.
    pub pace: Pace,
    /// True while this thread lives.
    pub alive: Arc<AtomicBool>,
    /// Tells of the engine's work, if asked.
    pub explain: Explain,
}

/// Tells the others when the thread ends, however it ends.
struct Alive(Arc<AtomicBool>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Driver {
    /// Works until [`Command::Shutdown`], or until nobody can ask any more.
    pub fn run(mut self) {
        self.alive.store(true, Ordering::Release);
        let _alive = Alive(Arc::clone(&self.alive));
        let mut plan = Plan::default();
        let mut idle = true;
        while self.take_commands(idle) {
            let most = self.engine.options().max_batch_tokens;
            self.scheduler.set_max_prompt_tokens(self.pace.prompt_tokens(most));
            self.scheduler.plan(&mut plan);
            for order in plan.pulls.drain(..) {
                self.start_pull(order);
            }
            self.metrics.census(self.scheduler.census());
            // A pull that needed no blocks joins the running at once: there is work, if not yet planned.
            idle = plan.work.is_empty() && self.scheduler.census().running == 0;
            if !plan.work.is_empty()
                && let Err(error) = self.step(&plan)
            {
                tracing::error!(%error, "the engine refused a step; its requests are failed");
                self.fail_all(&Failure::Engine(error.to_string()));
            }
        }
        self.fail_all(&Failure::ShuttingDown);
        self.explain.profile(&self.engine);
    }

    /// Does what was asked since the last step; waits for something where there is nothing to
    /// compute. False at the end.
    fn take_commands(&mut self, idle: bool) -> bool {
        if idle && !self.wait() {
            return false;
        }
        loop {
            match self.commands.try_recv() {
                Ok(Command::Shutdown) | Err(TryRecvError::Disconnected) => return false,
                Ok(command) => self.obey(command),
                Err(TryRecvError::Empty) => return true,
            }
        }
    }

    fn wait(&mut self) -> bool {
        let blocked = self.scheduler.census().waiting > 0;
        let command = if blocked {
            self.commands.recv_timeout(BLOCKED_RETRY)
        } else {
            self.commands.recv().map_err(|_| RecvTimeoutError::Disconnected)
        };
        match command {
            Ok(Command::Shutdown) | Err(RecvTimeoutError::Disconnected) => return false,
            Ok(command) => self.obey(command),
            Err(RecvTimeoutError::Timeout) => {}
        }
        true
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Submit(submission) => self.submit(*submission),
            Command::Abort(request) => self.abort(|id| id.request == request),
            Command::Stop(ended) => self.ended_by_text(ended),
            Command::Pulled(id, outcome) => self.pulled(id, outcome),
            Command::Shutdown => {}
        }
    }

    fn abort(&mut self, gone: impl Fn(SeqId) -> bool) {
        let left = self.scheduler.abort(gone);
        if !left.is_empty() {
            self.metrics.aborted();
        }
    }

    /// A stop string was found: for the engine's thread a removal, for whoever counts an end.
    fn ended_by_text(&mut self, ended: SeqId) {
        for job in self.scheduler.abort(|id| id == ended) {
            self.metrics.finished(job.shared.arrived.elapsed(), Finish::End);
        }
    }

    fn fail_all(&mut self, failure: &Failure) {
        for job in self.scheduler.abort(|_| true) {
            job.tell(Event::Failed(failure.clone()));
        }
    }
}
