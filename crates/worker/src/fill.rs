//! The KV pool's memory is taken beside the first requests: nobody waits for half a second of page
//! faults.

use std::sync::mpsc::Sender;

use plumb_kv::Fill;

use crate::driver::Command;
use crate::error::Error;

/// A tenth of a core beside a busy engine: some seconds of growth, not a minute, which would look like a
/// leak to whoever watches.
const NICE: i32 = 10;

/// Takes the rest of a pool's memory on a thread of its own. An instance whose memory is short ends,
/// as it would have had it waited.
pub fn start(fill: Fill, commands: Sender<Command>) -> Result<(), Error> {
    let run = move || {
        // A thread's own priority, on Linux. Without it the fill competes with the first steps.
        if let Err(error) =
            rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE)
        {
            tracing::debug!(%error, "the KV pool is filled at full priority");
        }
        if let Err(error) = fill.run() {
            tracing::error!(
                %error,
                "memory is short for the KV pool, and the instance ends: ask for fewer blocks with --kv-blocks"
            );
            commands.send(Command::Shutdown).ok();
        }
    };
    let spawned = std::thread::Builder::new().name("kv-fill".into()).spawn(run);
    spawned
        .map(drop)
        .map_err(|source| Error::System { what: "the KV pool's thread".into(), source })
}
