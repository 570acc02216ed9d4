//! Keeps the parts running: restarts what dies, with a backoff, and ends all of them in order.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Child;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::Error;
use crate::part::{Prefix, spawn};
use crate::plan::{Plan, Spec};

/// A part that lived this long starts its next backoff from the beginning.
const STABLE: Duration = Duration::from_secs(30);
const FIRST_BACKOFF: Duration = Duration::from_millis(500);
const LONGEST_BACKOFF: Duration = Duration::from_secs(10);
/// A part drains by itself for 30 s at most; after this it is killed.
const DRAIN: Duration = Duration::from_secs(35);
/// How often a part may die before the stack was ever ready.
const TRIES: u32 = 3;

/// Ctrl-C or SIGTERM.
#[derive(Debug)]
pub(crate) struct Interrupt {
    int: tokio::signal::unix::Signal,
    term: tokio::signal::unix::Signal,
}

impl Interrupt {
    pub fn new() -> Result<Self, Error> {
        let listen =
            |kind| signal(kind).map_err(|source| Error::Os { what: "listen for signals", source });
        Ok(Self { int: listen(SignalKind::interrupt())?, term: listen(SignalKind::terminate())? })
    }

    pub async fn wait(&mut self) {
        tokio::select! {
            _ = self.int.recv() => {}
            _ = self.term.recv() => {}
        }
    }
}

/// What the supervisor and its tasks share about one part.
#[derive(Debug, Default)]
struct State {
    /// 0 while it is not running.
    pid: AtomicU32,
}

#[derive(Debug)]
struct Supervised {
    name: String,
    state: Arc<State>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// The running stack. The router is last.
#[derive(Debug)]
pub(crate) struct Stack {
    parts: Vec<Supervised>,
    ready: Arc<AtomicBool>,
    failures: tokio::sync::Mutex<mpsc::Receiver<Error>>,
}

impl Stack {
    pub fn start(plan: &Plan, colour: bool) -> Result<Self, Error> {
        let width = plan.parts().map(|p| p.name.len()).max().unwrap_or(0);
        let (failed, failures) = mpsc::channel(1);
        let ready = Arc::new(AtomicBool::new(false));
        let mut parts = Vec::new();
        for (index, spec) in plan.parts().enumerate() {
            let prefix = Prefix::new(&spec.name, index, width, colour);
            let state = Arc::new(State::default());
            let child = spawn(&plan.program, spec, &prefix)
                .map_err(|source| Error::Spawn { name: spec.name.clone(), source })?;
            state.pid.store(child.id().unwrap_or(0), Ordering::Relaxed);
            prefix.say(&format!("{} (pid {})", spec.url, child.id().unwrap_or(0)));
            let (stop, stopped) = watch::channel(false);
            let keeper = Keeper {
                program: plan.program.clone(),
                spec: spec.clone(),
                prefix,
                state: Arc::clone(&state),
                ready: Arc::clone(&ready),
                failed: failed.clone(),
                stopped,
            };
            let task = tokio::spawn(keeper.keep(child));
            parts.push(Supervised { name: spec.name.clone(), state, stop, task });
        }
        Ok(Self { parts, ready, failures: failures.into() })
    }

    /// From now on a part that dies is restarted for ever.
    pub fn ready(&self) {
        self.ready.store(true, Ordering::Relaxed);
    }

    /// Names and process ids of the parts that run.
    pub fn pids(&self) -> Vec<(String, u32)> {
        self.parts
            .iter()
            .map(|p| (p.name.clone(), p.state.pid.load(Ordering::Relaxed)))
            .filter(|&(_, pid)| pid != 0)
            .collect()
    }

    /// Resolves when a part cannot be brought up.
    pub async fn failed(&self) -> Error {
        match self.failures.lock().await.recv().await {
            Some(error) => error,
            None => std::future::pending().await,
        }
    }

    /// Ends the router, then the instances that it was using. A second interrupt kills them.
    pub async fn stop(self) {
        let orderly = async {
            let mut parts = self.parts;
            if let Some(router) = parts.pop() {
                router.stop.send_replace(true);
                let _ended = router.task.await;
            }
            for part in &parts {
                part.stop.send_replace(true);
            }
            for part in parts {
                let _ended = part.task.await;
            }
        };
        // Dropping the tasks' children kills them.
        match Interrupt::new() {
            Ok(mut again) => tokio::select! { () = orderly => {}, () = again.wait() => {} },
            Err(_) => orderly.await,
        }
    }
}

/// Keeps one part alive.
struct Keeper {
    program: PathBuf,
    spec: Spec,
    prefix: Prefix,
    state: Arc<State>,
    ready: Arc<AtomicBool>,
    failed: mpsc::Sender<Error>,
    stopped: watch::Receiver<bool>,
}

impl Keeper {
    async fn keep(mut self, mut child: Child) {
        let mut backoff = FIRST_BACKOFF;
        let mut deaths = 0;
        loop {
            let started = Instant::now();
            let ended = tokio::select! {
                status = child.wait() => Some(status),
                _ = self.stopped.wait_for(|&stop| stop) => None,
            };
            let Some(status) = ended else { return self.end(child).await };
            self.state.pid.store(0, Ordering::Relaxed);
            let status = status.map_or_else(|e| e.to_string(), |s| s.to_string());
            deaths += 1;
            if !self.ready.load(Ordering::Relaxed) && deaths >= TRIES {
                let name = self.spec.name.clone();
                let _taken =
                    self.failed.try_send(Error::NeverReady { name, status, times: deaths });
                return;
            }
            if started.elapsed() > STABLE {
                backoff = FIRST_BACKOFF;
            }
            child = loop {
                self.prefix.say(&format!(
                    "ended ({status}); starting it again in {:.1} s",
                    backoff.as_secs_f64()
                ));
                tokio::select! {
                    () = sleep(backoff) => {}
                    _ = self.stopped.wait_for(|&stop| stop) => return,
                }
                backoff = (backoff * 2).min(LONGEST_BACKOFF);
                match spawn(&self.program, &self.spec, &self.prefix) {
                    Ok(child) => break child,
                    Err(error) => self.prefix.say(&format!("cannot start: {error}")),
                }
            };
            self.state.pid.store(child.id().unwrap_or(0), Ordering::Relaxed);
        }
    }

    async fn end(&self, mut child: Child) {
        if let Some(pid) = child.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
            // Gone already is as good as ended.
            let _gone = kill_process(pid, Signal::TERM);
        }
        if timeout(DRAIN, child.wait()).await.is_err() {
            self.prefix.say("did not drain in time: killed");
            let _gone = child.kill().await;
        }
        self.state.pid.store(0, Ordering::Relaxed);
    }
}
