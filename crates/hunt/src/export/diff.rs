//! Two reports side by side: which stacks hold more, which less.

use std::collections::BTreeMap;

use serde_json::Value;

/// A stack in a report that was written as JSON: function names, innermost first.
type Key = Vec<String>;

/// What changed from report `a` to report `b`, both as `--json` wrote them, the biggest change
/// first. Rates are compared, not bytes, since the two may have watched for different times.
pub fn diff(a: &Value, b: &Value) -> String {
    let (before, after) = (rates(a), rates(b));
    let mut keys: Vec<&Key> = before.keys().chain(after.keys()).collect();
    keys.sort();
    keys.dedup();
    let mut rows: Vec<(f64, f64, &Key)> = keys
        .into_iter()
        .map(|k| (before.get(k).copied().unwrap_or(0.0), after.get(k).copied().unwrap_or(0.0), k))
        .collect();
    rows.sort_by(|x, y| (y.1 - y.0).abs().total_cmp(&(x.1 - x.0).abs()));
    let mut out = format!("{:>14} {:>14} {:>14}  stack\n", "before B/s", "after B/s", "change");
    for (x, y, key) in rows {
        let names: Vec<String> = key.iter().take(6).map(|n| plumb_target::printable(n)).collect();
        out.push_str(&format!("{x:>14.0} {y:>14.0} {:>+14.0}  {}\n", y - x, names.join(" < ")));
    }
    out
}

fn rates(report: &Value) -> BTreeMap<Key, f64> {
    let seconds = report["seconds"].as_f64().filter(|s| *s > 0.0).unwrap_or(1.0);
    let mut rates = BTreeMap::new();
    for c in report["culprits"].as_array().into_iter().flatten() {
        let frames = c["frames"].as_array().into_iter().flatten();
        let name =
            |f: &Value| f["function"].as_str().or(f["module"].as_str()).unwrap_or("?").to_owned();
        let bytes = |k: &str| c[k].as_f64().unwrap_or(0.0);
        let held = bytes("outstanding_bytes") + bytes("older_bytes");
        *rates.entry(frames.map(name).collect::<Key>()).or_insert(0.0) += held / seconds;
    }
    rates
}
