//! What came of a run, in numbers.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use crate::ask::Answer;

/// What a client must have felt for an answer to be a good one. Seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Slo {
    /// Most to the first text.
    pub ttft_s: f64,
    /// Most an output token after the first.
    pub tpot_s: f64,
}

impl Slo {
    /// Whether an answer is whole and kept both limits.
    pub fn is_kept_by(&self, answer: &Answer) -> bool {
        answer.failure.is_none()
            && answer.ttft_s.is_some_and(|t| t <= self.ttft_s)
            && answer.tpot_s().is_none_or(|t| t <= self.tpot_s)
    }
}

/// A distribution of seconds: the nearest observation at or above each rank.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Percentiles {
    /// How many were observed.
    pub count: usize,
    /// Arithmetic mean.
    pub mean: f64,
    /// Half are at most this.
    pub p50: f64,
    /// 90 %.
    pub p90: f64,
    /// 99 %.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

impl Percentiles {
    /// `None` of nothing.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_unstable_by(f64::total_cmp);
        let count = values.len();
        let max = *values.last()?;
        let at = |share: f64| values[(share * count as f64).ceil().max(1.0) as usize - 1];
        let mean = values.iter().sum::<f64>() / count as f64;
        Some(Self { count, mean, p50: at(0.5), p90: at(0.9), p99: at(0.99), max })
    }
}

/// A run, added up.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Requests sent.
    pub requests: usize,
    /// Whole answers.
    pub completed: usize,
    /// The others, by what was said, most frequent first.
    pub failures: Vec<(String, usize)>,
    /// From the first request to the last end.
    pub seconds: f64,
    /// Of whole answers, as the server counts them.
    pub prompt_tokens: u64,
    /// Of whole answers, as the server counts them.
    pub output_tokens: u64,
    /// Whole answers a second.
    pub requests_per_s: f64,
    /// Their output tokens a second.
    pub output_tokens_per_s: f64,
    /// Time to the first text.
    pub ttft_s: Option<Percentiles>,
    /// Time between two events with text.
    pub itl_s: Option<Percentiles>,
    /// Time an output token after the first.
    pub tpot_s: Option<Percentiles>,
    /// Time to the end.
    pub total_s: Option<Percentiles>,
    /// The limits.
    pub slo: Slo,
    /// Whole answers that kept them, a second.
    pub goodput_per_s: f64,
    /// Their share of all requests, 0–1.
    pub good_share: f64,
    /// Whole answers by the router's reason, where a router told one.
    pub routes: BTreeMap<String, usize>,
}

impl Report {
    /// Adds up the answers of a run.
    pub fn of(answers: &[Answer], slo: Slo) -> Self {
        let whole = || answers.iter().filter(|a| a.failure.is_none());
        let first = answers.iter().map(|a| a.due_s).fold(f64::INFINITY, f64::min);
        let last = answers.iter().map(|a| a.due_s + a.total_s).fold(0.0, f64::max);
        let seconds = if answers.is_empty() { 0.0 } else { last - first };
        let a_second = |count: f64| if seconds > 0.0 { count / seconds } else { 0.0 };
        let output_tokens = whole().map(|a| a.output_tokens).sum::<u64>();
        let completed = whole().count();
        let good = answers.iter().filter(|a| slo.is_kept_by(a)).count();
        let mut routes = BTreeMap::new();
        for route in whole().filter_map(|a| reason(a.route.as_deref()?)) {
            *routes.entry(route.to_owned()).or_insert(0) += 1;
        }
        Self {
            requests: answers.len(),
            completed,
            failures: failures(answers),
            seconds,
            prompt_tokens: whole().map(|a| a.prompt_tokens).sum(),
            output_tokens,
            requests_per_s: a_second(completed as f64),
            output_tokens_per_s: a_second(output_tokens as f64),
            ttft_s: Percentiles::of(whole().filter_map(|a| a.ttft_s)),
            itl_s: Percentiles::of(whole().flat_map(|a| a.itl_s.iter().copied())),
            tpot_s: Percentiles::of(whole().filter_map(Answer::tpot_s)),
            total_s: Percentiles::of(whole().map(|a| a.total_s)),
            slo,
            goodput_per_s: a_second(good as f64),
            good_share: if answers.is_empty() { 0.0 } else { good as f64 / answers.len() as f64 },
            routes,
        }
    }

    /// The times, by the names that people know them by.
    pub(crate) fn times(&self) -> [(&'static str, Option<Percentiles>); 4] {
        [("TTFT", self.ttft_s), ("ITL", self.itl_s), ("TPOT", self.tpot_s), ("whole", self.total_s)]
    }

    /// The report as a person reads it.
    pub fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a string does not fail.
        let _ok = writeln!(
            out,
            "{} of {} requests answered in {:.1} s: {:.2} a second, {:.1} output tokens a second",
            self.completed,
            self.requests,
            self.seconds,
            self.requests_per_s,
            self.output_tokens_per_s
        );
        for (why, count) in &self.failures {
            let _ok = writeln!(out, "  {count} failed: {why}");
        }
        let _ok = writeln!(
            out,
            "goodput {:.2} a second: {:.0} % kept TTFT ≤ {} and TPOT ≤ {}",
            self.goodput_per_s,
            self.good_share * 100.0,
            milliseconds(self.slo.ttft_s),
            milliseconds(self.slo.tpot_s)
        );
        let _ok =
            writeln!(out, "{:>18}{:>12}{:>12}{:>12}{:>12}", "mean", "p50", "p90", "p99", "max");
        for (name, times) in self.times() {
            let Some(t) = times else { continue };
            let _ok = write!(out, "{name:6}");
            for value in [t.mean, t.p50, t.p90, t.p99, t.max] {
                let _ok = write!(out, "{:>12}", milliseconds(value));
            }
            out.push('\n');
        }
        for (reason, count) in &self.routes {
            let _ok = writeln!(out, "route {reason}: {count}");
        }
        out
    }
}

/// The reason in a router's `x-plumb-route`.
fn reason(route: &str) -> Option<&str> {
    route.split(';').find_map(|part| part.trim().strip_prefix("reason="))
}

fn failures(answers: &[Answer]) -> Vec<(String, usize)> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for failure in answers.iter().filter_map(|a| a.failure.as_ref()) {
        *counts.entry(failure.to_string()).or_insert(0) += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counts
}

/// `12.3 ms`, `4.56 s`.
pub(crate) fn milliseconds(seconds: f64) -> String {
    match seconds {
        s if s < 1.0 => format!("{:.1} ms", s * 1e3),
        s => format!("{s:.2} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ask::Failure;

    const SLO: Slo = Slo { ttft_s: 0.5, tpot_s: 0.1 };

    /// Due at `due`, first text after `ttft`, then a token every `itl`.
    fn answer(due: f64, ttft: f64, itl: f64, tokens: u64) -> Answer {
        let itl_s = vec![itl; tokens as usize - 1];
        Answer {
            due_s: due,
            ttft_s: Some(ttft),
            total_s: ttft + itl_s.iter().sum::<f64>(),
            itl_s,
            prompt_tokens: 10,
            output_tokens: tokens,
            ..Answer::default()
        }
    }

    #[test]
    fn percentiles_are_observations() {
        let p = Percentiles::of((1..=200).rev().map(f64::from)).unwrap();
        assert_eq!((p.count, p.p50, p.p90, p.p99, p.max), (200, 100.0, 180.0, 198.0, 200.0));
        assert_eq!(Percentiles::of([3.0]).map(|p| (p.p50, p.p99)), Some((3.0, 3.0)));
        assert_eq!(Percentiles::of([]), None);
    }

    #[test]
    fn goodput_counts_whole_answers_that_kept_both_limits() {
        let late = answer(1.0, 0.6, 0.05, 5);
        let slow = answer(2.0, 0.1, 0.2, 5);
        let broken =
            Answer { failure: Some(Failure::Cut("x".into())), ..answer(3.0, 0.1, 0.05, 5) };
        let good = answer(0.0, 0.5, 0.1, 11);
        // One token has no time after the first to be judged by.
        let short = answer(8.9, 0.1, 0.0, 1);
        let report = Report::of(&[good, late, slow, broken, short], SLO);
        assert_eq!((report.requests, report.completed), (5, 4));
        assert!((report.seconds - 9.0).abs() < 1e-9, "{}", report.seconds);
        assert!((report.goodput_per_s - 2.0 / 9.0).abs() < 1e-9);
        assert!((report.good_share - 0.4).abs() < 1e-9);
        assert_eq!((report.prompt_tokens, report.output_tokens), (40, 22));
        assert_eq!(report.failures, [("cut short: x".to_owned(), 1)]);
        assert_eq!(report.itl_s.unwrap().count, 18);
        assert!((report.tpot_s.unwrap().max - 0.2).abs() < 1e-9);
    }

    #[test]
    fn nothing_is_a_report_too() {
        let report = Report::of(&[], SLO);
        assert_eq!((report.seconds, report.goodput_per_s, report.good_share), (0.0, 0.0, 0.0));
        assert!(report.text().contains("0 of 0 requests"));
    }

    #[test]
    fn a_routers_reason_is_counted() {
        let route = Some("pd;prefill=http://a;decode=http://b;reason=disaggregated".to_owned());
        let answers = [Answer { route, ..answer(0.0, 0.1, 0.1, 3) }, answer(0.0, 0.1, 0.1, 3)];
        let report = Report::of(&answers, SLO);
        assert_eq!(report.routes.get("disaggregated"), Some(&1));
    }
}
