//! Blocks of finished prompts, kept for the instance that will decode.

use std::sync::Arc;
use std::time::Instant;

use plumb_kv::{Leases, remote_request_id};
use plumb_protocol::kv_transfer::RemotePrefill;

use super::job::Job;
use crate::generation::{Event, Kept};
use crate::scheduler::Left;

/// Grants leases in this instance's name.
#[derive(Debug)]
pub struct Keeper {
    /// The instance's leases.
    pub leases: Arc<Leases>,
    /// Changes with every start.
    pub engine_id: String,
    /// Where peers reach the side channel.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Tokens of a block.
    pub block_tokens: usize,
}

impl Keeper {
    /// Keeps a finished prompt's blocks and tells its request where they are. Where that cannot be,
    /// the request is told nothing, and whoever decodes computes the prompt itself.
    pub(super) fn keep(&self, left: Left<Job>, cached_tokens: usize) -> Job {
        let Left { payload: job, mut blocks, computed, .. } = left;
        blocks.truncate(computed.div_ceil(self.block_tokens));
        let ids = blocks.iter().map(|block| block.id().0).collect();
        let request_id = remote_request_id(&job.shared.name);
        if let Err(error) = self.leases.grant(&request_id, blocks, Instant::now()) {
            tracing::warn!(request = job.shared.name, %error, "no lease");
            return job;
        }
        let remote = RemotePrefill {
            block_ids: vec![ids],
            engine_id: self.engine_id.clone(),
            request_id,
            host: self.host.clone(),
            port: self.port,
            tp_size: 1,
            num_tokens: u32::try_from(computed).ok(),
            expiry_time: None,
            cached_tokens: u32::try_from(cached_tokens).ok(),
            ..RemotePrefill::default()
        };
        // If the client is gone, the event is dropped, and the lease with it.
        job.tell(Event::Kept(Kept::new(remote, Arc::clone(&self.leases))));
        job
    }
}
