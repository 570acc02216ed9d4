//! What the processes of a watch hold together: a leak that is spread over many, none of which leaks
//! enough to be judged, or none of which lives long enough.
//!
//! Two questions, apart. What did those gain that lived *through* a window? Their number does not change,
//! so nobody's start looks like growth, and no page is counted that a fork shares. And do those that *come
//! and go* hold ever more? Workers that start one after another and stop at some number, and a restart that
//! replaces each by another, do so too, for a while: it is asked only where all of them were replaced twice.

use super::ending::ended_with_all;
use super::nature::{counter, nature};
use super::{Counter, History, LayerLine, Limit, Line, Summary};
use crate::series::{Point, Series};
use crate::verdict::{Kind, Nature, SHORTEST, Verdict, When, judge, patience};

/// The layers that are added up, of those that live on; of those that come and go the first alone.
const LAYERS: [&str; 2] = ["anonymous", "memfd_unmapped"];
/// The sum is taken at so many moments of a window, and no more often than once a second.
const MOMENTS: f64 = 120.0;
/// One that was found within this share of a window lived through it.
const LATER: f64 = 0.1;
/// A leak that is mostly one's is that one's.
const MOST: f64 = 0.6;
/// So much of the growth must be of those that grew through all thirds of the window.
const STEADY: f64 = 0.5;
/// Of what was seen to grow, allocators may keep this share.
const KEPT: f64 = 0.5;
/// And by so large a part of all growth it must be known.
const KNOWN: f64 = 0.1;
/// All that come and go must have been replaced so often, and be so many.
const REPLACED: f64 = 2.0;
const ENDED: usize = 8;
/// For so many seconds ever more of them must have come: a pool of workers or of connections fills likewise,
/// until it is full. So many at least.
const CAME: f64 = 150.0;
const ENOUGH_CAME: usize = 24;
/// So many children that lived as long, or half as long, say how such children end.
const ENOUGH_LIVES: usize = 3;
/// So many as a share of those before are fewer.
const FEWER: f64 = 0.9;
/// Those that ended longer ago, in seconds, or more of them, are forgotten.
const LONG_AGO: f64 = 600.0;
const MOST_ENDED: usize = 2048;

/// What is known of one process.
#[derive(Debug)]
pub(super) struct Member {
    /// When it was first and last looked at.
    pub from: f64,
    pub to: f64,
    pub ended: bool,
    /// Whether its own verdict leaves open that it has a part in a leak of many.
    open: bool,
    /// Of [`LAYERS`].
    held: [Series; 2],
    /// Of the first, what allocators keep, and what it had from its parent when it was first seen.
    kept: Series,
    inherited: f64,
    rss: u64,
}

impl Member {
    /// `None` of one that was found and was gone before it was looked at.
    pub fn new(history: &History, own: Option<&Summary>, ended: bool) -> Option<Self> {
        let from = history.rss.points().first()?.time_s;
        // Who just rises, of those that rise and fall, must not be chosen from them.
        let explained = |own: &Summary| match own.leak {
            Some(leaks) => leaks || matches!(own.kind, Kind::Growing | Kind::WarmingUp),
            None => false,
        };
        let kept = history.layers.iter().filter(|(name, _)| {
            counter(name) == Some(Counter::Anonymous)
                && matches!(nature(name, false), Nature::Harmless(_))
        });
        let anonymous = history.counters.get(&Counter::Anonymous).cloned().unwrap_or_default();
        let lowest = anonymous.points().iter().map(|p| p.bytes).fold(f64::MAX, f64::min);
        let inherited = history.inherited.unwrap_or(0.0);
        Some(Self {
            from,
            to: history.time(),
            ended,
            open: !history.collected && !own.is_some_and(explained),
            held: [anonymous, memfds(history)],
            kept: added_up(kept.map(|(_, series)| series)),
            // What has become another program has nothing of its parent's any more.
            inherited: if lowest < inherited / 2.0 { 0.0 } else { inherited },
            rss: history.rss.points().last().map_or(0, |p| p.bytes.max(0.0) as u64),
        })
    }

    /// For how long it was seen.
    pub fn life(&self) -> f64 {
        self.to - self.from
    }

    fn lives_at(&self, time: f64) -> bool {
        self.from <= time && (!self.ended || time <= self.to)
    }

    /// What it has that it did not get from its parent.
    fn own(&self, layer: usize, time: f64) -> f64 {
        let inherited = if layer == 0 { self.inherited } else { 0.0 };
        (at(&self.held[layer], time) - inherited).max(0.0)
    }

    fn gain(&self, layer: usize, since: f64, now: f64) -> f64 {
        at(&self.held[layer], now) - at(&self.held[layer], since)
    }

    /// What allocators kept of what it gained, and that: between its first and last full look.
    fn kept_of(&self, since: f64, now: f64) -> Option<[f64; 2]> {
        let looks = self.kept.last(now - since);
        let [first, .., last] = looks else { return None };
        let gained = self.gain(0, first.time_s, last.time_s);
        Some([last.bytes - first.bytes, gained].map(|bytes| bytes.max(0.0)))
    }
}

/// What it holds of memfds and nobody before it does.
fn memfds(history: &History) -> Series {
    let Some(held) = history.layers.get(LAYERS[1]) else { return Series::default() };
    let own = |p: &Point| (p.time_s, (p.bytes - at(&history.of_others, p.time_s)).max(0.0));
    held.points().iter().map(own).collect()
}

/// What was looked at together, added up.
fn added_up<'a>(series: impl Iterator<Item = &'a Series>) -> Series {
    let series: Vec<&Series> = series.collect();
    let times = series.iter().map(|s| s.points()).max_by_key(|p| p.len()).unwrap_or_default();
    times.iter().map(|p| (p.time_s, series.iter().map(|s| at(s, p.time_s)).sum())).collect()
}

/// As it was seen last by then.
fn at(series: &Series, time: f64) -> f64 {
    let points = series.points();
    let after = points.partition_point(|p| p.time_s <= time);
    points.get(after.saturating_sub(1)).map_or(0.0, |p| p.bytes)
}

/// For how long those lived that ended before all did.
pub(super) fn lives(ended: &[Member], latest: f64) -> Vec<f64> {
    ended.iter().filter(|m| !ended_with_all(m.to, latest)).map(Member::life).collect()
}

/// Forgets those that matter no more, by the last look.
pub(super) fn forget(ended: &mut Vec<Member>, now: f64) {
    ended.retain(|member| member.to >= now - LONG_AGO);
    ended.sort_by(|a, b| a.to.total_cmp(&b.to));
    let most = ended.len().saturating_sub(MOST_ENDED);
    ended.drain(..most);
}

/// The line of all of them; `None` of fewer than two.
pub(super) fn line(
    members: &[&Member],
    limit: impl FnOnce() -> Option<Limit>,
    when: When,
) -> Option<Line> {
    let now = members.iter().map(|member| member.to).fold(0.0, f64::max);
    let alive = || members.iter().filter(|member| !member.ended);
    let seen = members.iter().filter(|member| !member.held[0].points().is_empty());
    if seen.count() < 2 {
        return None;
    }
    let (layer, verdict) = spread(members, now)
        .or_else(|| coming_and_going(members, now, when))
        .or_else(|| ever_more(members, now, when))
        .unwrap_or_else(|| (0, no_leak(members, now, when)));
    let mut line = History::new(0).line(|| None, when == When::Ending);
    line.time_s = now;
    line.processes = Some(alive().count());
    line.rss_bytes = alive().map(|member| member.rss).sum();
    // Where it is no leak, the processes have the last word.
    line.brief = verdict.leak != Some(true);
    line.layers = vec![LayerLine {
        layer: LAYERS[layer].to_owned(),
        resident_bytes: alive().map(|m| m.own(layer, now)).sum::<f64>() as u64,
        bytes_per_s: verdict.bytes_per_s.map(f64::round),
        kind: verdict.kind,
        leak: verdict.leak,
    }];
    line.verdict = Summary::of(Some(LAYERS[layer].to_owned()), verdict, limit);
    Some(line)
}

fn begun(members: &[&Member]) -> f64 {
    members.iter().map(|member| member.from).fold(f64::MAX, f64::min)
}

/// Windows of doubling length, and that of all that was watched.
fn spans(shortest: f64, all: f64) -> impl Iterator<Item = f64> {
    let doubling = std::iter::successors(Some(shortest), |span| Some(2.0 * span));
    let whole = (all >= shortest).then_some(all);
    doubling.take_while(move |span| *span < all).chain(whole)
}

/// Puts it to the final lines: a leak last, else first.
pub(super) fn beside(lines: &mut Vec<Line>, together: Option<Line>) {
    let Some(line) = together else { return };
    let at = if line.verdict.leak == Some(true) { lines.len() } else { 0 };
    lines.insert(at, line);
}

/// What those gained that lived through a window, where that is a leak.
fn spread(members: &[&Member], now: f64) -> Option<(usize, Verdict)> {
    // Of many there is always one that rises just now: the end of a watch is no reason to ask less.
    let patience = patience(Nature::Held, When::Watching);
    let lives: Vec<f64> = members.iter().filter(|m| m.ended).map(|m| m.life()).collect();
    let passes = |m: &Member| replaced(&lives, m.life());
    let spans: Vec<f64> = spans(patience, now - begun(members)).collect();
    (0..LAYERS.len()).find_map(|layer| {
        spans.iter().rev().find_map(|span| {
            let since = now - span;
            // One that was seen a little later stood where it was first seen.
            let seen = |m: &Member| m.held[layer].points().first().map_or(f64::MAX, |p| p.time_s);
            let through =
                |m: &&Member| m.open && !m.ended && !passes(m) && seen(m) <= since + LATER * span;
            let through: Vec<&Member> = members.iter().copied().filter(through).collect();
            let sum =
                sum(since, now, |time| through.iter().map(|m| at(&m.held[layer], time)).sum());
            let verdict = judge(&sum, Nature::Held, When::Watching);
            let leaks = verdict.leak == Some(true)
                && is_spread(&through, layer, now - verdict.window_s, now);
            leaks.then(|| (layer, tell(verdict, &format!("{} processes", through.len()))))
        })
    })
}

/// Whether several have a part in it, and it is not what allocators keep.
fn is_spread(members: &[&Member], layer: usize, since: f64, now: f64) -> bool {
    let gains = members.iter().map(|member| member.gain(layer, since, now).max(0.0));
    let (all, most) = gains.fold((0.0, 0.0), |(all, most): (f64, f64), g| (all + g, most.max(g)));
    // One after another, who fills up looks like a line.
    let third = (now - since) / 3.0;
    let least = |member: &&Member| {
        let part = |n: f64| member.gain(layer, since + n * third, since + (n + 1.0) * third);
        3.0 * part(0.0).min(part(1.0)).min(part(2.0)).max(0.0)
    };
    let steady: f64 = members.iter().map(least).sum();
    if most > MOST * all || steady < STEADY * all {
        return false;
    }
    if layer > 0 {
        return true;
    }
    let seen = members.iter().filter_map(|member| member.kept_of(since, now));
    let [kept, gained] = seen.fold([0.0; 2], |[k, g], [kept, gained]| [k + kept, g + gained]);
    gained >= KNOWN * all && kept <= KEPT * gained
}

/// What those hold that come and go, where that is a leak.
fn coming_and_going(members: &[&Member], now: f64, when: When) -> Option<(usize, Verdict)> {
    let patience = patience(Nature::Collected, when);
    spans(patience, now - begun(members)).filter(|span| *span <= LONG_AGO).find_map(|span| {
        let since = now - span;
        let comes_or_goes = |m: &&Member| m.to >= since && (m.ended || m.from > since);
        let those: Vec<&Member> = members.iter().copied().filter(comes_or_goes).collect();
        let ended = those.iter().filter(|member| member.ended).count();
        let number = sum(since, now, |time| {
            those.iter().filter(|member| member.lives_at(time)).count() as f64
        });
        let most = number.points().iter().map(|p| p.bytes).fold(0.0, f64::max);
        if ended < ENDED || (ended as f64) < REPLACED * most {
            return None;
        }
        let all = sum(since, now, |time| {
            let lives = those.iter().filter(|member| member.lives_at(time));
            lives.map(|m| m.own(0, time)).sum()
        });
        if falls(&number) {
            return None;
        }
        // How many there are at once is chance, or the load; what each has need not be.
        let usual = mean(number.points());
        let each = all.points().iter().zip(number.points());
        let each = each.map(|(p, n)| (p.time_s, usual * p.bytes / n.bytes.max(1.0)));
        let verdict = judge(&each.collect(), Nature::Collected, when);
        let whose = format!("processes that come and go ({ended} ended)");
        (verdict.leak == Some(true)).then(|| (0, tell(verdict, &whose)))
    })
}

/// What those hold that came and did not end, where they are ever more and that is a leak: of processes.
fn ever_more(members: &[&Member], now: f64, when: When) -> Option<(usize, Verdict)> {
    spans(CAME, now - begun(members)).find_map(|span| {
        let since = now - span;
        let came = |m: &&Member| !m.ended && m.from > since + LATER * span;
        let came: Vec<&Member> = members.iter().copied().filter(came).collect();
        if came.len() < ENOUGH_CAME {
            return None;
        }
        let held = |time: f64| came.iter().filter(move |member| member.lives_at(time));
        let all = sum(since, now, |time| held(time).map(|m| m.own(0, time)).sum());
        let verdict = judge(&all, Nature::Held, when);
        // As many more must there be late as early, in all that was watched: who were there first grow for
        // themselves, those that are replaced are no more, and connections that come ever more slowly no leak.
        let usual = all.points().last()?.bytes / came.len() as f64;
        let number = sum(begun(members), now, |time| {
            usual * members.iter().filter(|member| member.lives_at(time)).count() as f64
        });
        let more = judge(&number, Nature::Held, When::Watching);
        let whose =
            format!("ever more processes ({} came in {span:.0} s and did not end)", came.len());
        let leaks = verdict.leak == Some(true)
            && more.leak == Some(true)
            && more.window_s >= (1.0 - LATER) * span;
        leaks.then(|| (0, tell(verdict, &whose)))
    })
}

/// Whether so many lived as long as this one, or half as long, and ended.
pub(super) fn replaced(lives: &[f64], life: f64) -> bool {
    lives.iter().filter(|other| **other >= life / 2.0).count() >= ENOUGH_LIVES
}

/// Whether there are fewer late than early.
fn falls(number: &Series) -> bool {
    let (early, late) = number.points().split_at(number.points().len() / 2);
    mean(late) < FEWER * mean(early)
}

fn mean(points: &[Point]) -> f64 {
    points.iter().map(|p| p.bytes).sum::<f64>() / points.len().max(1) as f64
}

/// The shape of the whole where nothing of it is a leak of many.
fn no_leak(members: &[&Member], now: f64, when: When) -> Verdict {
    let sum = sum(begun(members).max(now - LONG_AGO), now, |time| {
        let lives = members.iter().filter(|member| member.lives_at(time));
        lives.map(|m| m.own(0, time)).sum()
    });
    let verdict = judge(&sum, Nature::Held, when);
    let (leak, why) = match verdict.leak {
        Some(true) => {
            let more = (CAME - sum.span()).max(LATER * CAME);
            let why = format!(
                "it grows by single processes: see each; or by ever more of them, as a pool does until it \
                 is full: watch {more:.0} s longer to know"
            );
            (None, why)
        }
        None if sum.span() >= SHORTEST => (None, verdict.why),
        leak => (leak, verdict.why),
    };
    Verdict { leak, why, ..verdict }
}

fn sum(since: f64, now: f64, bytes: impl Fn(f64) -> f64) -> Series {
    let step = ((now - since) / MOMENTS).max(1.0);
    let moments = ((now - since) / step) as u32;
    let time = |moment: u32| now - f64::from(moments - moment) * step;
    (0..=moments).map(|moment| (time(moment), bytes(time(moment)))).collect()
}

fn tell(verdict: Verdict, whose: &str) -> Verdict {
    Verdict { why: format!("held by {whose} together: {}", verdict.why), ..verdict }
}
