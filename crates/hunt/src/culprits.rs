//! From what every stack holds to the few that explain the growth.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use plumb_ledger::verdict::Kind;
use plumb_trace::account::Backing;
use plumb_trace::burst::Of;
use plumb_trace::samples::Kept;
use plumb_trace::{Holding, Tracer};

use crate::growth::Verdict;
use crate::holder::by_function;
use crate::objects::Objects;
use crate::report::{Culprit, Step};

/// No more are named.
const MOST: usize = 20;
/// A stack that holds less than this share of the growth is left out, but for the first few where those
/// before them do not hold most of it.
const LEAST_SHARE: f64 = 0.01;
const LEAST_NAMED: usize = 3;
const MOST_OF_IT: f64 = 0.9;
/// Where all stacks hold less than this share of the growth, whoever made it was not seen.
const LEAST_IN_ALL: f64 = 0.05;

/// Above this part of its time waiting for a processor, a hunt sees too little of who allocates.
pub const STARVED: f64 = 0.2;
/// Of so many sampled allocations some would have stayed, were there few who allocate.
const MANY_SEEN: usize = 300;

/// Why nobody is named where bursts saw too little. Who made a heap grow is rarely who keeps it: that is
/// told only where allocations are rare, and so were seen rarely.
fn too_few(seen: usize, of: Of, hunted: &Hunted) -> Option<String> {
    let why = match hunted.waited >= STARVED {
        true => "the machine is busy, and this hunt had to wait for a processor",
        // Objects are small: there are many of those that made arenas grow.
        false if of == Of::Objects && seen < MANY_SEEN => "probes were on for too short a time",
        false if seen < MANY_SEEN => return None,
        // Who maps an arena is whoever comes when the last is full.
        false if of == Of::Objects => "those that stay are made where no probe sees it",
        false => "nearly all are freed soon",
    };
    let longer = hunted.longer_s();
    let floor = if of == Of::Objects { " --floor python" } else { "" };
    Some(format!(
        "of {seen} allocations that were seen too few stayed to tell whose they are ({why}): hunt longer, \
         with --for {longer}s{floor}"
    ))
}

/// How a hunt went that is to name somebody.
#[derive(Debug, Default)]
pub struct Hunted<'a> {
    /// Seconds watched.
    pub seconds: f64,
    /// For which part of them it waited for a processor.
    pub waited: f64,
    /// Why CPython's allocator could not be probed, where it could not.
    pub no_objects: Option<&'a str>,
}

impl Hunted<'_> {
    /// For how many seconds the next should last.
    fn longer_s(&self) -> u64 {
        (self.seconds as u64 * 3).clamp(60, 3600)
    }

    /// Why nobody is named where Python's arenas grew and no probe saw who fills them.
    fn no_probe_of_objects(&self) -> String {
        let who = "who maps Python's arenas is rarely who fills them, and no probe saw who does";
        match self.no_objects {
            Some(why) => format!("{who}: CPython's allocator could not be probed ({why})"),
            None => format!("{who}: hunt longer, with --for {}s --floor python", self.longer_s()),
        }
    }
}

/// The stacks to name, biggest first; none where nothing grows or growth does no harm. And why there are
/// none where too little was seen.
pub fn name(
    tracer: &mut Tracer,
    (verdict, python): (&Verdict, Option<&Objects>),
    now_ns: u64,
    hunted: &Hunted,
) -> (Vec<Culprit>, Option<String>) {
    if verdict.summary.copies {
        let (copied, bytes) = (tracer.copied(verdict.pid), verdict.grown_bytes);
        let mut culprits = Vec::new();
        charge_older(tracer, &mut culprits, verdict.pid, &copied, bytes, bytes);
        return (biggest(culprits, "anonymous"), None);
    }
    let Some(layer) = verdict.summary.layer.as_ref().filter(|_| are_named(verdict)) else {
        return (Vec::new(), None);
    };
    let told = told_by(layer, verdict.pid, tracer.burst_of());
    if told == Told::Nobody {
        return (Vec::new(), Some(hunted.no_probe_of_objects()));
    }
    if let Told::Probes(of) = told {
        if let Some(sampled) = sampled(tracer, verdict, of, python, now_ns) {
            return (biggest(sampled, layer), None);
        }
        let why = too_few(tracer.burst_samples().unwrap_or(0), of, hunted);
        if why.is_some() {
            return (Vec::new(), why);
        }
    }
    let held = holding(tracer, verdict.pid, layer);
    let older = tracer.older(verdict.pid);
    let held_bytes: u64 = held.iter().filter(|h| h.pid == verdict.pid).map(|h| h.resident).sum();
    let older_growth = older_growth(layer, verdict.grown_bytes, held_bytes, !older.is_empty());
    // What other processes hold of such memory is growth too.
    let elsewhere: u64 = held.iter().filter(|h| h.pid != verdict.pid).map(|h| h.resident).sum();
    let growth = verdict.grown_bytes.max(held_bytes + older_growth) + elsewhere;
    let mut culprits: Vec<Culprit> =
        held.iter().map(|h| of_holding(tracer, h, growth, now_ns)).collect();
    charge_older(tracer, &mut culprits, verdict.pid, &older, older_growth, growth);
    if culprits.iter().map(Culprit::held).sum::<u64>() < (growth as f64 * LEAST_IN_ALL) as u64 {
        return (Vec::new(), None);
    }
    if layer == "heap_in_use" {
        scale(&mut culprits, verdict, growth);
    }
    (biggest(culprits, layer), None)
}

/// Whether anybody is to be named: not where nothing grows, or growth does no harm.
pub fn are_named(verdict: &Verdict) -> bool {
    match verdict.summary.leak {
        _ if verdict.summary.layer.is_none() => false,
        Some(leak) => leak,
        None => grows(verdict),
    }
}

/// Whether what cannot be judged yet grew at all: nobody is blamed for what goes up and down.
fn grows(verdict: &Verdict) -> bool {
    verdict.summary.kind != Kind::Sawtooth && verdict.summary.bytes_per_s.is_none_or(|r| r > 0.0)
}

/// The few that matter. Those of one way through the program are one, with the biggest's lines; of
/// Python's own memory it is the way through Python, since every object has its own in the interpreter.
pub fn biggest(mut all: Vec<Culprit>, layer: &str) -> Vec<Culprit> {
    let size = |c: &Culprit| std::cmp::Reverse(c.held());
    all.sort_by_key(size);
    let python = layer.starts_with("python");
    let mut culprits: Vec<Culprit> = Vec::new();
    let mut known: HashMap<(u32, Vec<Step>), usize> = HashMap::new();
    for c in all {
        match known.entry((c.pid, c.way(python))) {
            Entry::Occupied(same) => culprits[*same.get()].add(&c),
            Entry::Vacant(new) => {
                new.insert(culprits.len());
                culprits.push(c);
            }
        }
    }
    culprits.sort_by_key(size);
    let is_small = |c: &Culprit| c.share.is_some_and(|s| s < LEAST_SHARE);
    let mut culprits = by_function(culprits, is_small);
    let (mut place, mut told) = (0, 0.0);
    culprits.retain(|c| {
        let is_kept = !is_small(c) || place < LEAST_NAMED && told < MOST_OF_IT;
        place += 1;
        told += c.share.unwrap_or(0.0);
        is_kept
    });
    culprits.retain(|c| c.held() > 0);
    culprits.truncate(MOST);
    culprits
}

/// What tells who made a layer grow.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Probes(Of),
    /// The stacks of the syscalls by which it grew.
    Mappings,
    Nobody,
}

/// What tells of this layer of a process, after bursts of such probes on one.
fn told_by(layer: &str, pid: u32, bursts: Option<(u32, Of)>) -> Told {
    let of = match layer {
        l if l.starts_with("heap") => Of::Heap,
        l if l.starts_with("python") => Of::Objects,
        _ => return Told::Mappings,
    };
    match bursts == Some((pid, of)) {
        true => Told::Probes(of),
        // Who maps an arena is whoever comes when the last is full.
        false if of == Of::Objects => Told::Nobody,
        false => Told::Mappings,
    }
}

/// Of the first, how many may hold most: those whose shares' errors meet the first's. Where the first's
/// error is as large as its share, it may be any, or one that was not seen.
pub fn may_be_first(culprits: &[Culprit]) -> usize {
    let Some((first, others)) = culprits.split_first() else { return 0 };
    let both = |c: &Culprit| c.share.zip(c.share_error);
    let Some((share, error)) = both(first) else { return 1 };
    if error >= share {
        return culprits.len().max(2);
    }
    let reaches = |c: &&Culprit| both(c).is_some_and(|(s, e)| s + e >= share - error);
    1 + others.iter().take_while(reaches).count()
}

/// Fewer sampled allocations that stayed say too little about shares.
const ENOUGH_KEPT: u64 = 30;
/// Where very many were seen, so many say more than who made the heap grow.
const LEAST_KEPT: u64 = 10;
/// A stack of which so many allocations stayed counts half.
const FEW: u64 = 2;
/// An allocation must have stayed this long to be called kept, in nanoseconds.
const YOUNG_NS: u64 = 3_000_000_000;

/// The holdings that can be what a layer is made of: of the process that is meant, and of the others that
/// did not end before.
fn holding(tracer: &Tracer, pid: u32, layer: &str) -> Vec<Holding> {
    let all = tracer.holdings().into_iter();
    let is_held = |h: &Holding| h.pid == pid || !tracer.is_past(h.pid);
    all.filter(|h| h.resident > 0 && may_hold(layer, h.backing) && is_held(h)).collect()
}

/// Keeps what is known of sampled allocations, should their process end before the report.
pub fn keep_fates(tracer: &mut Tracer, now_ns: u64) {
    tracer.keep_fates(now_ns.saturating_sub(YOUNG_NS), ENOUGH_KEPT);
}

/// Shares by what bursts of probes saw allocated and the heap itself says is still in use; the total
/// is the ledger's. Requests that got a mapping each are known to the byte. `None` where too little
/// was seen.
fn sampled(
    tracer: &mut Tracer,
    verdict: &Verdict,
    of: Of,
    python: Option<&Objects>,
    now_ns: u64,
) -> Option<Vec<Culprit>> {
    let grows = |name: &str| python.is_none_or(|objects| objects.grows(name));
    let kept = tracer.kept(now_ns.saturating_sub(YOUNG_NS), ENOUGH_KEPT, &grows)?;
    let own = |h: &Holding| of == Of::Heap && h.pid == verdict.pid && h.backing == Backing::Chunk;
    let chunks: Vec<Holding> = tracer.holdings().into_iter().filter(own).collect();
    let growth = verdict.grown_bytes.max(1);
    let in_chunks: u64 = chunks.iter().map(|h| h.resident).sum();
    let rest = growth.saturating_sub(in_chunks);
    let count: u64 = kept.iter().map(|(_, k)| k.count).sum();
    // One or two, however large, may be all that there were.
    let often = |k: &Kept| k.count as f64 / (k.count + FEW) as f64;
    let weight = |k: &Kept| k.bytes as f64 * k.survival * often(k);
    let weights: f64 = kept.iter().map(|(_, k)| weight(k)).sum();
    let seen = tracer.burst_samples().unwrap_or(0);
    let enough = if seen >= MANY_SEEN || of == Of::Objects { LEAST_KEPT } else { ENOUGH_KEPT };
    let few = count < enough || weights == 0.0;
    // What the chunks explain is certain, however little else was seen.
    if few && in_chunks < rest {
        return None;
    }
    let kept = if few { Vec::new() } else { kept };
    let mut culprits: Vec<Culprit> =
        chunks.iter().map(|h| of_holding(tracer, h, growth.max(in_chunks), now_ns)).collect();
    let variance = |k: &Kept| {
        let unsure = k.bytes as f64 * k.survival_error * often(k);
        k.survival.powi(2) * k.squares + unsure.powi(2)
    };
    let variances: f64 = kept.iter().map(|(_, k)| variance(k)).sum();
    for (stack, k) in kept.iter().filter(|(_, k)| k.bytes > 0) {
        let part = weight(k) / weights;
        let outstanding = (rest as f64 * part) as u64;
        let (own, others) = (variance(k), variances - variance(k));
        let deviation = ((1.0 - part).powi(2) * own + part.powi(2) * others).sqrt() / weights;
        culprits.push(Culprit {
            pid: verdict.pid,
            outstanding_bytes: outstanding,
            older_bytes: 0,
            count: (outstanding as f64 * k.pieces / k.bytes as f64) as u64,
            share: share(outstanding, growth),
            share_error: Some((1.96 * deviation).min(1.0)),
            age_s: Some(now_ns.saturating_sub(k.first_ns) as f64 / 1e9),
            frames: tracer.frames(*stack),
            ways: Vec::new(),
        });
    }
    Some(culprits)
}

/// Of a heap, the stacks of the syscalls by which it grows say who, by shares; how much is live
/// only the ledger's walk of the heap knows.
fn scale(culprits: &mut [Culprit], verdict: &Verdict, growth: u64) {
    let all: u64 = culprits.iter().filter(|c| c.pid == verdict.pid).map(Culprit::held).sum();
    if all == 0 || all <= verdict.grown_bytes {
        return;
    }
    let part =
        |bytes: u64| (u128::from(bytes) * u128::from(verdict.grown_bytes) / u128::from(all)) as u64;
    for c in culprits.iter_mut().filter(|c| c.pid == verdict.pid) {
        c.outstanding_bytes = part(c.outstanding_bytes);
        c.older_bytes = part(c.older_bytes);
        c.share = share(c.held(), growth);
    }
}

/// Whether memory of this kind can be what a layer is made of.
fn may_hold(layer: &str, backing: Backing) -> bool {
    match layer {
        "files" => backing == Backing::File,
        "shared" => matches!(backing, Backing::Shared | Backing::File),
        "memfd_unmapped" => matches!(backing, Backing::Memfd | Backing::Written),
        "tmpfs_unmapped" => backing == Backing::Written,
        "device" => matches!(backing, Backing::File | Backing::Shared),
        "sockets" => false,
        "anonymous" if backing == Backing::Copy => true,
        _ => matches!(backing, Backing::Anonymous | Backing::Brk | Backing::Chunk),
    }
}

/// Growth that no new mapping explains happened by touching older ones. A small rest is noise.
fn older_growth(layer: &str, grown: u64, held: u64, touched: bool) -> u64 {
    let rest = grown.saturating_sub(held);
    let counts = touched && !layer.ends_with("unmapped") && rest > (grown / 20).max(256 << 10);
    if counts { rest } else { 0 }
}

fn of_holding(tracer: &mut Tracer, h: &Holding, growth: u64, now_ns: u64) -> Culprit {
    Culprit {
        pid: h.pid,
        outstanding_bytes: h.resident,
        older_bytes: 0,
        count: h.count,
        share: share(h.resident, growth),
        share_error: None,
        age_s: Some(now_ns.saturating_sub(h.first_ns) as f64 / 1e9),
        frames: tracer.frames(h.stack),
        ways: Vec::new(),
    }
}

fn share(bytes: u64, growth: u64) -> Option<f64> {
    (growth > 0).then(|| (bytes as f64 / growth as f64).min(1.0))
}

/// Divides the growth of older ranges among those who touched them.
fn charge_older(
    tracer: &mut Tracer,
    culprits: &mut Vec<Culprit>,
    pid: u32,
    touchers: &[(u32, u64)],
    bytes: u64,
    growth: u64,
) {
    let touches: u64 = touchers.iter().map(|(_, n)| n).sum();
    if bytes == 0 || touches == 0 {
        return;
    }
    for (stack, n) in touchers {
        let older = (u128::from(bytes) * u128::from(*n) / u128::from(touches)) as u64;
        let frames = tracer.frames(*stack);
        match culprits.iter_mut().find(|c| c.pid == pid && c.frames == frames) {
            Some(c) => {
                c.older_bytes += older;
                c.share = share(c.outstanding_bytes + c.older_bytes, growth);
            }
            None => culprits.push(Culprit {
                pid,
                outstanding_bytes: 0,
                older_bytes: older,
                count: *n,
                share: share(older, growth),
                share_error: None,
                age_s: None,
                frames,
                ways: Vec::new(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_makes_a_heap_grow_is_not_blamed_where_too_little_was_seen() {
        let (busy, idle) = (Hunted { waited: 0.6, ..Hunted::default() }, Hunted::default());
        let why = too_few(12, Of::Heap, &busy).expect("a busy machine");
        assert!(why.contains("12 allocations") && why.contains("--for"), "{why}");
        assert!(too_few(12, Of::Objects, &busy).is_some());
        assert!(too_few(12, Of::Objects, &idle).is_some(), "who maps arenas is not who fills them");
        assert!(too_few(5000, Of::Objects, &idle).is_some_and(|why| why.contains("no probe")));
        assert!(too_few(5000, Of::Heap, &idle).is_some(), "they were seen, and nearly all freed");
        assert!(
            too_few(12, Of::Heap, &idle).is_none(),
            "who allocates rarely is who makes it grow"
        );
    }

    #[test]
    fn who_maps_an_arena_of_python_is_never_named() {
        for layer in ["python", "python_in_use", "python_free"] {
            assert_eq!(told_by(layer, 7, Some((7, Of::Objects))), Told::Probes(Of::Objects));
            for bursts in [None, Some((7, Of::Heap)), Some((8, Of::Objects))] {
                assert_eq!(told_by(layer, 7, bursts), Told::Nobody, "{layer} by {bursts:?}");
            }
        }
        assert_eq!(told_by("heap_in_use", 7, Some((7, Of::Heap))), Told::Probes(Of::Heap));
        assert_eq!(told_by("heap_in_use", 7, Some((7, Of::Objects))), Told::Mappings);
        assert_eq!(told_by("anonymous", 7, Some((7, Of::Heap))), Told::Mappings);
        let mut hunted = Hunted { seconds: 30.0, ..Hunted::default() };
        assert!(hunted.no_probe_of_objects().ends_with("--for 90s --floor python"));
        hunted.no_objects = Some("stripped");
        let why = hunted.no_probe_of_objects();
        assert!(why.contains("(stripped)") && !why.contains("--floor"), "{why}");
    }

    #[test]
    fn small_stacks_are_told_only_where_nobody_else_is() {
        let of = |(held, share, name): (u64, f64, &str)| {
            let function = Some(name.to_owned());
            let frames = vec![plumb_trace::Frame { function, ..plumb_trace::Frame::unknown() }];
            let share = Some(share);
            Culprit { outstanding_bytes: held, share, frames, ..Culprit::default() }
        };
        let told = |all: &[(u64, f64, &str)]| {
            let all = all.iter().map(|c| of(*c)).collect();
            biggest(all, "anonymous").iter().map(|c| c.outstanding_bytes).collect::<Vec<_>>()
        };
        assert_eq!(told(&[(9990, 0.999, "a"), (6, 0.0006, "b"), (4, 0.0004, "c")]), [9990]);
        let many = [(80, 0.008, "a"), (70, 0.007, "b"), (60, 0.006, "c"), (50, 0.005, "d")];
        assert_eq!(told(&many), [80, 70, 60]);
    }

    #[test]
    fn who_is_first_is_certain_only_beyond_the_errors() {
        let of = |share: f64, error: f64| Culprit {
            share: Some(share),
            share_error: Some(error),
            ..Culprit::default()
        };
        assert_eq!(may_be_first(&[of(0.6, 0.05), of(0.4, 0.05)]), 1);
        assert_eq!(may_be_first(&[of(0.5, 0.1), of(0.4, 0.05), of(0.1, 0.05)]), 2);
        assert_eq!(may_be_first(&[of(0.9, 0.6), of(0.01, 0.6)]), 2);
        assert_eq!(may_be_first(&[of(0.6, 0.6)]), 2, "one that was not seen");
        let exact = Culprit { share: Some(0.5), ..Culprit::default() };
        assert_eq!((may_be_first(&[exact.clone(), exact]), may_be_first(&[])), (1, 0));
    }
}
