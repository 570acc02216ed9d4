//! A hunt where nothing may be traced: the verdict, the hooks and the Python objects, without stacks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use plumb_target::Process;

use crate::growth::Growth;
use crate::objects::First;
use crate::report::{Cost, Report};
use crate::run::{Options, Progress, scan};
use crate::{Error, cost};

/// How often the targets are looked at, and `stop` is.
const LOOK: Duration = Duration::from_secs(1);
const STOP: Duration = Duration::from_millis(100);

/// As [`crate::run`], of what needs no tracing; `why` says what tracing lacks.
pub(crate) fn run(
    options: &Options,
    why: String,
    stop: &AtomicBool,
    attached: impl FnOnce(),
    mut tell: impl FnMut(Progress),
) -> Result<Report, Error> {
    let (started, cpu) = (Instant::now(), cost::cpu_seconds());
    for root in &options.roots {
        root.read("maps")?;
    }
    let cores = || {
        (cost::cpu_seconds() - cpu) / started.elapsed().as_secs_f64().max(LOOK.as_secs_f64() / 1e3)
    };
    let at_attach = options.roots.first().and_then(|root| scan(root.pid()));
    let mut growth = Growth::new(options.roots.clone(), options.children);
    attached();
    growth.look();
    let objects: Vec<First> = options.roots.iter().filter_map(First::take).collect();
    let mut next_look = Instant::now() + LOOK;
    while started.elapsed() < options.time && !stop.load(Ordering::Relaxed) {
        std::thread::sleep(STOP.min(options.time.saturating_sub(started.elapsed())));
        if Instant::now() < next_look {
            continue;
        }
        next_look += LOOK;
        if !options.roots.iter().any(Process::is_alive) {
            break;
        }
        growth.look();
        tell(Progress {
            left_s: options.time.saturating_sub(started.elapsed()).as_secs_f64(),
            floor: "layers only, for tracing is not allowed".into(),
            events: 0,
            lost: 0,
            cores: cores(),
        });
    }
    let seconds = started.elapsed().as_secs_f64();
    let (cpu_s, cores) = (cost::cpu_seconds() - cpu, cores());
    let verdict = growth.finish().ok_or(Error::NothingSeen)?;
    let hooks = scan(verdict.pid).or(at_attach).unwrap_or_else(|| serde_json::json!({}));
    Ok(Report {
        advice: options.advice.apply(&verdict, &[], &hooks),
        python: objects.iter().find(|first| first.pid() == verdict.pid).and_then(First::compare),
        verdict,
        culprits: Vec::new(),
        hooks,
        lost_events: 0,
        cost: Cost {
            cpu_s,
            cores,
            rss_bytes: cost::own_rss(),
            not_traced: Some(why),
            ..Cost::default()
        },
        seconds,
        layers: growth.tracks(),
    })
}
