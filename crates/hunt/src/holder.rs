//! Which function holds memory: the innermost of a stack that is the program's own.
//!
//! A function that is reached on many ways holds what all its stacks hold. Each of them may be small
//! beside the one stack of another function, which holds less.

use std::collections::HashMap;

use plumb_trace::{Frame, FrameKind};

use crate::allocators;
use crate::report::{Culprit, Way};
use crate::show::PLUMBING;

/// How functions begin that only pass on what their caller wants: of languages' own libraries.
const PASSED_ON: [&str; 32] = [
    "std::",
    "core::",
    "alloc::",
    "<std::",
    "<core::",
    "<alloc::",
    "<str>::",
    "<[",
    "<&dyn core::",
    "<dyn core::",
    "hashbrown::",
    "__gnu_cxx::",
    "__rust",
    "__rdl",
    "runtime.",
    "strings.",
    "bytes.",
    "strconv.",
    "fmt.",
    "io.",
    "bufio.",
    "sync.",
    "slices.",
    "maps.",
    "reflect.",
    "encoding/",
    "compress/",
    "net/",
    "regexp.",
    "x_cgo_",
    "_cgo_",
    "_dl_",
];
/// What a template's name may begin with: the type that it returns.
const RETURNED: [&str; 2] = ["void ", "bool "];
/// Ways listed of one culprit.
const WAYS: usize = 20;

/// A process and a function of it: its name, or its address, and its module, or its file of Python.
pub type Holder = (u32, Option<String>, Option<u64>, Option<String>);

/// The innermost frame that is the program's own.
pub fn own_frame(culprit: &Culprit) -> Option<&Frame> {
    culprit.frames.iter().find(|f| is_own(f))
}

/// The function that holds a stack's memory. `None` where no frame is the program's own.
pub fn holder(culprit: &Culprit) -> Option<Holder> {
    let own = own_frame(culprit)?;
    let place = if own.kind == FrameKind::Python { &own.file } else { &own.module };
    Some((culprit.pid, own.function.clone(), own.address, place.clone()))
}

fn is_own(f: &Frame) -> bool {
    if f.kind == FrameKind::Python {
        return true;
    }
    let Some(module) = f.module_name() else { return false };
    !PLUMBING.iter().any(|p| module.starts_with(p))
        && !passes_on(f)
        && !allocators::allocates(std::slice::from_ref(f))
}

/// Whether a function only passes on what its caller wants.
pub fn passes_on(f: &Frame) -> bool {
    let function = f.function.as_deref().unwrap_or_default();
    let function = RETURNED.iter().find_map(|r| function.strip_prefix(r)).unwrap_or(function);
    let wraps_mmap = ["mmap", "mmap64", "mmap_syscall"].iter().any(|end| function.ends_with(end));
    // What a compiler put into its caller may have no more than its last name.
    let file = f.file.as_deref().unwrap_or_default();
    let is_library = file.contains("/include/c++/") || file.starts_with("/rustc/");
    wraps_mmap || is_library || PASSED_ON.iter().any(|p| function.starts_with(p))
}

/// Makes one of the stacks of a function where each is smaller than `least`, and of all stacks of the
/// function that holds most, unless the biggest stack is its own. Biggest first, as they come.
pub fn by_function(all: Vec<Culprit>, least: impl Fn(&Culprit) -> bool) -> Vec<Culprit> {
    let holders: Vec<Option<Holder>> = all.iter().map(holder).collect();
    let mut sums: HashMap<&Holder, u64> = HashMap::new();
    for (c, h) in all.iter().zip(&holders) {
        if let Some(h) = h {
            *sums.entry(h).or_default() += c.held();
        }
    }
    let first = holders.first().and_then(Option::as_ref);
    let beside = first.map_or_else(|| all.first().map_or(0, Culprit::held), |h| sums[h]);
    let most = sums.iter().max_by_key(|(h, sum)| (**sum, Some(**h) == first));
    let whole = most.filter(|(_, sum)| **sum > beside).map(|(h, _)| (*h).clone());
    let mut folded: HashMap<Holder, usize> = HashMap::new();
    let mut out: Vec<Culprit> = Vec::new();
    for (c, holder) in all.iter().zip(&holders) {
        let Some(h) = holder.as_ref().filter(|h| Some(*h) == whole.as_ref() || least(c)) else {
            out.push(c.clone());
            continue;
        };
        match folded.get(h) {
            Some(at) => fold(&mut out[*at], c),
            None => {
                folded.insert(h.clone(), out.len());
                out.push(c.clone());
            }
        }
    }
    out.sort_by_key(|c| std::cmp::Reverse(c.held()));
    out
}

fn fold(into: &mut Culprit, other: &Culprit) {
    let way = |c: &Culprit| Way {
        outstanding_bytes: c.outstanding_bytes,
        older_bytes: c.older_bytes,
        frames: c.frames.clone(),
    };
    if into.ways.is_empty() {
        let own = way(into);
        into.ways.push(own);
    }
    if into.ways.len() < WAYS {
        into.ways.push(way(other));
    }
    into.add(other);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn culprit(bytes: u64, names: &str) -> Culprit {
        let frame = |name: &str| {
            let (function, module) = name.split_once('@').unwrap_or((name, "/bin/server"));
            Frame {
                function: Some(function.to_owned()),
                module: Some(module.to_owned()),
                ..Frame::unknown()
            }
        };
        let frames = names.split(' ').map(frame).collect();
        Culprit { outstanding_bytes: bytes, count: 1, frames, ..Culprit::default() }
    }

    fn named(all: Vec<Culprit>, least: u64) -> Vec<(String, u64, usize)> {
        let told = |c: &Culprit| {
            let function = holder(c).and_then(|h| h.1).unwrap_or_default();
            (function, c.outstanding_bytes, c.ways.len())
        };
        by_function(all, |c| c.held() < least).iter().map(told).collect()
    }

    const MMAP: &str = "mmap@/lib/libc.so.6";

    #[test]
    fn the_function_that_holds_most_over_all_its_stacks_is_first() {
        let stack = |bytes, rest: &str| culprit(bytes, &format!("{MMAP} {rest}"));
        let all = vec![
            stack(30, "other main"),
            stack(20, "hold a main"),
            stack(20, "hold b main"),
            stack(20, "hold c main"),
        ];
        assert_eq!(named(all, 0), [("hold".to_owned(), 60, 3), ("other".to_owned(), 30, 0)]);
    }

    #[test]
    fn stacks_of_the_function_that_is_first_anyway_stay_apart() {
        let stack = |bytes, rest: &str| culprit(bytes, &format!("malloc@/lib/libc.so.6 {rest}"));
        let all = vec![stack(30, "hold a main"), stack(20, "hold b main"), stack(25, "other main")];
        let told: Vec<u64> = named(all, 0).iter().map(|(_, bytes, _)| *bytes).collect();
        assert_eq!(told, [30, 25, 20]);
    }

    #[test]
    fn small_stacks_of_one_function_are_told_as_one() {
        let stack = |bytes, rest: &str| culprit(bytes, &format!("{MMAP} {rest}"));
        let all =
            vec![stack(50, "big main"), stack(3, "hold a"), stack(3, "hold b"), stack(2, "x")];
        let expected = [("big", 50, 0), ("hold", 6, 2), ("x", 2, 0)];
        let told = named(all, 10);
        let told: Vec<_> = told.iter().map(|(f, b, w)| (f.as_str(), *b, *w)).collect();
        assert_eq!(told, expected);
    }

    #[test]
    fn what_only_passes_on_holds_nothing() {
        let passed = "void std::vector<int>::_M_realloc_insert(int)";
        let frames = [MMAP, "operator_new(unsigned)@/lib/libstdc++.so.6", "keep", "main"];
        let mut c = culprit(1, &frames.join(" "));
        c.frames[1].function = Some(passed.to_owned());
        c.frames[1].module = Some("/bin/server".to_owned());
        assert_eq!(holder(&c).and_then(|h| h.1).as_deref(), Some("keep"));
        assert_eq!(holder(&culprit(1, MMAP)), None);
        let go =
            [MMAP, "runtime.mallocgc", "strings.(*Builder).grow", "strings.Repeat", "main.keep"];
        let rust = [MMAP, "alloc::alloc::alloc", "<str>::repeat", "app::keep", "app::main"];
        let mut inlined = culprit(1, &[MMAP, "emplace_back<Item>", "keep", "main"].join(" "));
        inlined.frames[1].file = Some("/usr/include/c++/12/bits/vector.tcc".to_owned());
        assert_eq!(holder(&inlined).and_then(|h| h.1).as_deref(), Some("keep"));
        let wrapped = [MMAP, "orig_mmap_syscall", "os_mmap", "pool_grow", "main"];
        for (frames, keeps) in [(go, "main.keep"), (rust, "app::keep"), (wrapped, "pool_grow")] {
            assert_eq!(
                holder(&culprit(1, &frames.join(" "))).and_then(|h| h.1).as_deref(),
                Some(keeps)
            );
        }
    }
}
