//! A hunt where nothing may be traced: the verdict, the hooks and the Python objects, without stacks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::cost::Meter;
use crate::growth::Growth;
use crate::objects::Censuses;
use crate::report::{Cost, Report};
use crate::run::{LOOK, Options, Progress, scan};
use crate::{Error, cost};

/// How often `stop` is looked at.
const STOP: Duration = Duration::from_millis(100);

/// As [`crate::run`], of what needs no tracing; `why` says what tracing lacks.
pub(crate) fn run(
    options: &Options,
    why: String,
    meter: Meter,
    stop: &AtomicBool,
    attached: impl FnOnce(),
    mut tell: impl FnMut(Progress),
) -> Result<Report, Error> {
    for root in &options.roots {
        root.read("maps")?;
    }
    let at_attach = options.roots.first().and_then(|root| scan(root.pid()));
    let (mut growth, mut objects) =
        (Growth::new(options.roots.clone(), options.children), Censuses::default());
    attached();
    growth.look();
    let mut next_look = Instant::now() + LOOK;
    let deadline = Instant::now() + options.time;
    while Instant::now() < deadline && !stop.load(Ordering::Relaxed) {
        std::thread::sleep(STOP.min(deadline.saturating_duration_since(Instant::now())));
        if Instant::now() < next_look {
            continue;
        }
        next_look += LOOK;
        if growth.alive().next().is_none() {
            break;
        }
        growth.look();
        objects.look(options.floor, &growth, growth.alive());
        tell(Progress {
            left_s: deadline.saturating_duration_since(Instant::now()).as_secs_f64(),
            floor: "layers only, for tracing is not allowed".into(),
            events: 0,
            lost: 0,
            cores: meter.cores(),
        });
    }
    let seconds = meter.elapsed().as_secs_f64();
    let (cpu_s, cores) = (meter.cpu_s(), meter.cores());
    let verdict = growth.finish(|_| None).ok_or(Error::NothingSeen)?;
    let hooks = scan(verdict.pid).or(at_attach).unwrap_or_else(|| serde_json::json!({}));
    let python = objects.compare(verdict.pid);
    Ok(Report {
        advice: options.advice.apply(&verdict, &[], &hooks, python.as_ref()),
        python,
        verdict,
        culprits: Vec::new(),
        may_be_first: 0,
        own_profile: None,
        hooks,
        lost_events: 0,
        cost: Cost {
            cpu_s,
            cores,
            rss_bytes: cost::own_rss(),
            waited: meter.waited(),
            not_traced: Some(why),
            ..Cost::default()
        },
        seconds,
        layers: growth.tracks(),
    })
}
