//! The KV pool's memory is taken beside the first requests: nobody waits for half a second of page
//! faults.

use std::sync::mpsc::Sender;

use crate::driver::Command;
use crate::error::Error;

/// A tenth of a core beside a busy engine: some seconds of growth, not a minute, which would look like a
/// leak to whoever watches.
const NICE: i32 = 10;

/// Takes the rest of a pool's memory on a thread of its own. An instance whose memory is short ends,
/// as it would have had it waited.
pub fn start(
    fill: impl FnOnce() -> Result<(), plumb_kv::Error> + Send + 'static,
    commands: Sender<Command>,
) -> Result<(), Error> {
    let run = move || {
        // A thread's own priority, on Linux. Without it the fill competes with the first steps.
        if let Err(error) =
            rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE)
        {
            tracing::debug!(%error, "the KV pool is filled at full priority");
        }
        if let Err(error) = fill() {
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

#[cfg(test)]
mod tests {
    use super::*;
    use plumb_kv::{BlockShape, LayerShape, Pool};
    use std::sync::mpsc::channel;

    /// What the engine's thread hears until nobody can say anything any more.
    fn heard(fill: impl FnOnce() -> Result<(), plumb_kv::Error> + Send + 'static) -> Vec<Command> {
        let (commands, inbox) = channel();
        start(fill, commands).unwrap();
        inbox.iter().collect()
    }

    #[test]
    fn an_instance_whose_memory_is_short_ends() {
        let short = || {
            let shape = BlockShape {
                layers: vec![LayerShape { bytes: 1 << 30, window: None }],
                tokens: 16,
            };
            Pool::new("worker-test-short", shape, usize::MAX >> 20).map(drop)
        };
        let heard = heard(short);
        assert!(matches!(heard[..], [Command::Shutdown]), "{heard:?}");
    }

    #[test]
    fn an_instance_whose_pool_is_filled_goes_on() {
        let heard = heard(|| Ok(()));
        assert!(heard.is_empty(), "{heard:?}");
    }
}
