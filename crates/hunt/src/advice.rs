//! What to do: a table of known culprits, each with the evidence that must be present.

use plumb_trace::Frame;
use serde::{Deserialize, Serialize};

use crate::growth::Verdict;
use crate::objects::Objects;
use crate::report::Culprit;

/// The table that comes with Plumb.
const BUILT_IN: &str = include_str!("../advice.toml");

/// One line of advice that applies, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Advice {
    /// Its name in the table.
    pub id: String,
    /// What to do.
    pub text: String,
    /// What was seen.
    pub evidence: String,
}

/// One entry of the table: what it says, and what must be present first.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    id: String,
    text: String,
    layer: Option<Vec<String>>,
    leak: Option<bool>,
    frames: Option<Vec<String>>,
    modules: Option<Vec<String>>,
    patched: Option<Vec<String>>,
    types: Option<Vec<String>>,
    collector_off: Option<bool>,
}

/// Entries, the user's before the built-in ones.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    #[serde(default)]
    advice: Vec<Entry>,
}

impl Table {
    /// The table that comes with Plumb, after entries in the same form, if any.
    ///
    /// # Errors
    /// A text that is not of the form, with the line.
    pub fn with(user: Option<&str>) -> Result<Self, toml::de::Error> {
        let mut table: Self = user.map_or(Ok(Self::default()), toml::from_str)?;
        let built_in: Self = toml::from_str(BUILT_IN)?;
        table.advice.extend(built_in.advice);
        Ok(table)
    }

    /// What applies; nothing where nothing grows.
    pub fn apply(
        &self,
        verdict: &Verdict,
        culprits: &[Culprit],
        hooks: &serde_json::Value,
        python: Option<&Objects>,
    ) -> Vec<Advice> {
        let Some(layer) = verdict.summary.layer.as_deref() else { return Vec::new() };
        self.advice
            .iter()
            .filter_map(|e| {
                let mut evidence = e.evidence(layer, verdict.summary.leak, culprits, hooks)?;
                evidence += &e.of_objects(python)?;
                Some(Advice { id: e.id.clone(), text: e.text.clone(), evidence })
            })
            .collect()
    }
}

impl Entry {
    /// What was seen, or `None` where a condition does not hold.
    fn evidence(
        &self,
        layer: &str,
        leak: Option<bool>,
        culprits: &[Culprit],
        hooks: &serde_json::Value,
    ) -> Option<String> {
        let mut seen = vec![format!("growth in {layer}")];
        if self.layer.as_ref().is_some_and(|l| !l.iter().any(|x| x == layer)) {
            return None;
        }
        if self.leak.is_some_and(|wanted| leak != Some(wanted)) {
            return None;
        }
        if let Some(wanted) = &self.frames {
            let c = culprits
                .iter()
                .find(|c| wanted.iter().all(|w| c.frames.iter().any(|f| names(f, w))))?;
            seen.push(format!(
                "{} in a stack that holds {} bytes",
                wanted.join(", "),
                c.outstanding_bytes
            ));
        }
        if let Some(wanted) = &self.modules {
            seen.push(format!("{} in the process", module(wanted, culprits, hooks)?));
        }
        if let Some(wanted) = &self.patched {
            seen.push(format!("{} does not lead to its own code", hooked(wanted, hooks)?));
        }
        Some(seen.join("; "))
    }

    /// The same of Python's objects, to be added.
    fn of_objects(&self, python: Option<&Objects>) -> Option<String> {
        let mut seen = String::new();
        if let Some(types) = &self.types {
            let grown = python?.grown(types)?;
            seen = format!("; {} more {}", grown.count_growth, grown.name);
        }
        if self.collector_off == Some(true) {
            let waiting = python?.pile_up_uncollected()?.waiting;
            seen += &format!("; the cycle collector is off, and {waiting} objects wait for it");
        }
        Some(seen)
    }
}

fn names(frame: &Frame, part: &str) -> bool {
    [&frame.function, &frame.module].into_iter().flatten().any(|text| text.contains(part))
}

fn rows(hooks: &serde_json::Value) -> impl Iterator<Item = &serde_json::Value> {
    ["patched", "interposed"].into_iter().filter_map(|k| hooks.get(k)?.as_array()).flatten()
}

fn module(wanted: &[String], culprits: &[Culprit], hooks: &serde_json::Value) -> Option<String> {
    let of_stacks = culprits.iter().flat_map(|c| &c.frames).filter_map(|f| f.module.as_deref());
    let of_hooks = rows(hooks).filter_map(|row| row.get("owner")?.as_str());
    let mut all = of_stacks.chain(of_hooks);
    all.find(|m| wanted.iter().any(|w| m.contains(w.as_str()))).map(str::to_owned)
}

fn hooked(wanted: &[String], hooks: &serde_json::Value) -> Option<String> {
    let mut symbols = rows(hooks).filter_map(|row| row.get("symbol")?.as_str());
    symbols.find(|s| wanted.iter().any(|w| w == s)).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use plumb_ledger::watch::Summary;
    use plumb_trace::FrameKind;

    use super::*;
    use crate::objects::{TypeGrowth, Waiting};

    fn grown(layer: &str, leak: Option<bool>) -> Verdict {
        let layer = Some(layer).filter(|layer| !layer.is_empty());
        let summary: Summary = serde_json::from_value(serde_json::json!({
            "kind": "growing", "leak": leak, "layer": layer, "bytes_per_s": 1e6,
            "interval": null, "oom_in_s": null, "why": "",
        }))
        .expect("a summary");
        Verdict { pid: 1, summary, grown_bytes: 1 << 30 }
    }

    fn held_by(functions: &[&str], module: &str) -> Vec<Culprit> {
        let frame = |name: &&str| Frame {
            kind: FrameKind::Native,
            function: Some((*name).to_owned()),
            module: Some(module.to_owned()),
            ..Frame::unknown()
        };
        let frames = functions.iter().map(frame).collect();
        vec![Culprit { outstanding_bytes: 1 << 30, frames, ..Culprit::default() }]
    }

    fn said(layer: &str, leak: Option<bool>, culprits: &[Culprit], hooks: &str) -> Vec<String> {
        let table = Table::with(None).expect("the table that comes with Plumb");
        let hooks = serde_json::from_str(hooks).expect("JSON");
        let all = table.apply(&grown(layer, leak), culprits, &hooks, None);
        all.into_iter().map(|advice| advice.id).collect()
    }

    const UCM: &str = r#"{"patched":[{"symbol":"munmap","owner":"/opt/ucx/libucm.so.0"}]}"#;

    #[test]
    fn nothing_is_said_without_its_evidence() {
        let ucx = held_by(&["mmap", "ucs_rcache_mp_chunk_alloc"], "/opt/ucx/libucs.so.0");
        assert_eq!(said("anonymous", Some(true), &ucx, UCM)[0], "ucx-memory-hooks");
        // UCX is hooked in, but another stack holds the growth.
        let other = held_by(&["mmap", "grow"], "/opt/app");
        assert_eq!(said("anonymous", Some(true), &other, UCM), ["hooked-munmap"]);
        assert!(said("anonymous", Some(true), &other, "{}").is_empty());
        let arena = held_by(&["mmap", "new_heap", "arena_get2"], "/lib/libc.so.6");
        assert_eq!(said("heap", Some(true), &arena, "{}"), ["glibc-arenas"]);
        assert_eq!(said("files", Some(false), &[], "{}"), ["page-cache"]);
        assert!(said("files", Some(true), &[], "{}").is_empty());
        let tensors = held_by(&["posix_memalign", "c10::alloc_cpu"], "/torch/lib/libc10.so");
        assert_eq!(said("heap_in_use", Some(true), &tensors, "{}"), ["torch-cpu-tensors"]);
        let table = Table::with(None).expect("the table");
        assert!(table.apply(&grown("", None), &ucx, &serde_json::json!({}), None).is_empty());
    }

    #[test]
    fn the_collector_is_blamed_only_where_it_is_off_and_objects_wait_for_it() {
        let said = |is_on, waiting_growth, name: &str| {
            let more = |name: &str| TypeGrowth {
                name: name.to_owned(),
                count: 9000,
                bytes: 9 << 20,
                count_growth: 8000,
                bytes_growth: 8 << 20,
            };
            let waiting = waiting_growth as u64;
            let objects = Objects {
                pid: 1,
                seconds: 10.0,
                one_in: 1,
                types: vec![more("dict"), more(name)],
                collector: Some(Waiting { is_on, waiting, waiting_growth }),
            };
            let table = Table::with(None).expect("the table that comes with Plumb");
            let grown = grown("python_in_use", Some(true));
            let all = table.apply(&grown, &[], &serde_json::json!({}), Some(&objects));
            all.into_iter().map(|advice| advice.id).collect::<Vec<_>>()
        };
        assert_eq!(said(false, 8000, "int"), ["cpython-gc-off"]);
        assert!(said(true, 600, "int").is_empty() && said(false, 100, "int").is_empty());
        assert_eq!(said(true, 600, "_asyncio.Task"), ["python-tasks"]);
    }

    #[test]
    fn every_entry_needs_evidence_and_is_documented() {
        let table = Table::with(None).expect("the table that comes with Plumb");
        let documented = include_str!("../../../docs/advice.md");
        let mut ids = BTreeSet::new();
        for entry in &table.advice {
            let id = &entry.id;
            assert!(ids.insert(id.clone()), "{id} is there twice");
            let evidence =
                [&entry.layer, &entry.frames, &entry.modules, &entry.patched, &entry.types];
            assert!(evidence.into_iter().any(Option::is_some), "{id} is said of anything");
            assert!(documented.contains(&format!("`{id}`")), "docs/advice.md lacks {id}");
        }
    }

    #[test]
    fn entries_of_a_user_come_first() {
        let own = "[[advice]]\nid = \"ours\"\nlayer = [\"anonymous\"]\ntext = \"t\"";
        let table = Table::with(Some(own)).expect("a table");
        let all = table.apply(&grown("anonymous", None), &[], &serde_json::json!({}), None);
        assert_eq!((all[0].id.as_str(), all[0].evidence.as_str()), ("ours", "growth in anonymous"));
        assert!(Table::with(Some("[[advice]]\nid = 1")).is_err());
    }
}
