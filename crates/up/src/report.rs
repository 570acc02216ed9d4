//! What the example took: the answer, the legs, the bytes, the memory.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::Error;
use crate::example::Outcome;
use crate::plan::Plan;

#[derive(Debug)]
struct Process {
    name: String,
    pid: u32,
    rss_bytes: u64,
    /// RSS with shared pages divided among those that share them.
    pss_bytes: u64,
}

/// The outcome of the example, with the memory of every part at that moment.
#[derive(Debug)]
pub(crate) struct Report {
    outcome: Outcome,
    processes: Vec<Process>,
}

impl Report {
    pub fn new(outcome: Outcome, pids: &[(String, u32)]) -> Self {
        let processes = pids
            .iter()
            .filter_map(|(name, pid)| {
                let (rss_bytes, pss_bytes) = memory(*pid)?;
                Some(Process { name: name.clone(), pid: *pid, rss_bytes, pss_bytes })
            })
            .collect();
        Self { outcome, processes }
    }

    /// An error unless the answer came through both legs and its KV blocks were pulled.
    pub fn check(&self) -> Result<(), Error> {
        let pulled: u64 = self.outcome.pulled.iter().map(|(_, bytes)| bytes).sum();
        if self.outcome.answer.is_empty() || !self.outcome.route.starts_with("pd") || pulled == 0 {
            return Err(Error::NotDisaggregated(self.outcome.route.clone()));
        }
        Ok(())
    }

    pub fn print(&self, as_json: bool) {
        if as_json {
            println!("{}", self.json());
        } else {
            println!();
            eprint!("{}", self.table());
        }
    }

    fn json(&self) -> Value {
        let o = &self.outcome;
        let pulled: serde_json::Map<String, Value> =
            o.pulled.iter().map(|(t, b)| (t.clone(), json!(b))).collect();
        let processes: Vec<Value> = self
            .processes
            .iter()
            .map(|p| {
                json!({"name": p.name, "pid": p.pid, "rss_bytes": p.rss_bytes,
                       "pss_bytes": p.pss_bytes})
            })
            .collect();
        json!({
            "question": o.question, "answer": o.answer, "route": o.route,
            "ttft_s": o.ttft_s, "total_s": o.total_s, "pulled_bytes": pulled,
            "processes": processes,
        })
    }

    fn table(&self) -> String {
        let o = &self.outcome;
        let mut out = format!(
            "\nroute    {}\nfirst text after {:.0} ms, all after {:.0} ms\n",
            o.route,
            o.ttft_s * 1e3,
            o.total_s * 1e3
        );
        for (transport, bytes) in o.pulled.iter().filter(|(_, bytes)| *bytes > 0) {
            let _infallible = writeln!(out, "pulled   {} over {transport}", size(*bytes));
        }
        out.push_str("memory\n");
        for p in &self.processes {
            let _infallible = writeln!(
                out,
                "  {:<12} pid {:<8} {:>11} resident, {:>11} its share",
                p.name,
                p.pid,
                size(p.rss_bytes),
                size(p.pss_bytes)
            );
        }
        out
    }
}

/// Says where the running stack can be looked at.
pub(crate) fn where_to_look(plan: &Plan) {
    let url = &plan.router.url;
    eprintln!(
        "\nready    {url}/v1  (Ctrl-C ends everything)\n\
         try      curl {url}/v1/chat/completions -H 'content-type: application/json' \\\n\
         \x20          -d '{{\"messages\":[{{\"role\":\"user\",\"content\":\"Hello!\"}}]}}'\n\
         metrics  {url}/metrics"
    );
    for instance in &plan.instances {
        eprintln!("         {}/metrics  {}", instance.url, instance.name);
    }
}

fn size(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

fn memory(pid: u32) -> Option<(u64, u64)> {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let field = |name: &str| {
        let line = rollup.lines().find_map(|l| l.strip_prefix(name))?;
        line.trim().trim_end_matches("kB").trim().parse::<u64>().ok().map(|kib| kib << 10)
    };
    Some((field("Rss:")?, field("Pss:")?))
}

#[cfg(test)]
mod tests {
    use super::{Outcome, Report, memory};

    fn report(route: &str, pulled: u64) -> Report {
        let outcome = Outcome {
            question: "?",
            answer: "Paris".into(),
            route: route.into(),
            ttft_s: 0.1,
            total_s: 0.2,
            pulled: vec![("shm".into(), pulled)],
        };
        Report::new(outcome, &[("self".into(), std::process::id())])
    }

    #[test]
    fn an_answer_counts_only_through_both_legs() {
        assert!(report("pd;prefill=a;decode=b", 4096).check().is_ok());
        assert!(report("pd;prefill=a;decode=b", 0).check().is_err());
        assert!(report("local;decode=b", 4096).check().is_err());
    }

    #[test]
    fn memory_of_a_living_process_is_read() {
        let (rss, pss) = memory(std::process::id()).expect("our own memory");
        assert!(rss >= pss && pss > 0);
    }
}
