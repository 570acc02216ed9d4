//! Pulls: started by the engine's thread, done elsewhere, reported back by a command.

use std::sync::mpsc::Sender;

use tokio::runtime::Handle;

use super::job::AbortOnDrop;
use super::{Command, Driver};
use crate::generation::{Event, Failure};
use crate::scheduler::{PullOrder, SeqId};

/// What happens to a request whose pull failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LoadFailure {
    /// It is answered with an error (vLLM's default).
    Fail,
    /// Its prompt is computed here: slower, but the client sees no failure.
    #[default]
    Recompute,
}

/// How pulls are started.
#[derive(Debug)]
pub struct Pulls {
    /// Where their tasks run.
    pub runtime: Handle,
    /// Where they report.
    pub commands: Sender<Command>,
    /// What a failed one means.
    pub on_failure: LoadFailure,
}

impl Driver {
    pub(super) fn start_pull(&mut self, order: PullOrder) {
        let id = order.id;
        let Some(sequence) = self.scheduler.pulling_mut(id) else { return };
        let claim = sequence.payload.claim.take();
        let first = u32::try_from(order.first);
        let (Some(claim), Ok(first), false) = (claim, first, order.blocks.is_empty()) else {
            // Every block was found here, and the peer is told by the claim's end.
            self.scheduler.pulled(id, true);
            return;
        };
        let commands = self.pulls.commands.clone();
        let pulling = claim.pull(first, order.blocks);
        let task = self.pulls.runtime.spawn(async move {
            let outcome = pulling.await.map(drop).map_err(|error| error.to_string());
            commands.send(Command::Pulled(id, outcome)).ok();
        });
        sequence.payload.pull = Some(AbortOnDrop(task.abort_handle()));
    }

    pub(super) fn pulled(&mut self, id: SeqId, outcome: Result<(), String>) {
        let filled = outcome.is_ok();
        if let Err(error) = outcome {
            tracing::warn!(request = id.request, %error, "a pull failed");
            if self.pulls.on_failure == LoadFailure::Fail {
                for job in self.scheduler.abort(|other| other == id) {
                    job.tell(Event::Failed(Failure::Pull(error.clone())));
                }
                return;
            }
        }
        if let Some(sequence) = self.scheduler.pulling_mut(id) {
            sequence.payload.pull = None;
        }
        self.scheduler.pulled(id, filled);
    }
}
