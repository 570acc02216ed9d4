//! What to do: a table of known culprits, each with the evidence that must be present.

use plumb_trace::Frame;
use serde::{Deserialize, Serialize};

use crate::growth::Verdict;
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
    ) -> Vec<Advice> {
        let Some(layer) = verdict.summary.layer.as_deref() else { return Vec::new() };
        self.advice
            .iter()
            .filter_map(|e| {
                let evidence = e.evidence(layer, verdict.summary.leak, culprits, hooks)?;
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
