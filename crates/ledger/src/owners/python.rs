//! CPython's object arenas.

use std::time::Instant;

use plumb_target::{Memory, Range, python};

use super::stacks::writable;
use crate::Layer;
use crate::claim::{Claim, Claims};
use crate::sample::Scene;

/// Claims the arenas of every interpreter in the process.
pub(super) fn claim(scene: &Scene, memory: &Memory, claims: &mut Claims, notes: &mut Vec<String>) {
    let until = Instant::now() + scene.depth.budget;
    for image in &scene.images {
        let Some(interpreter) = python::interpreter(image) else { continue };
        let name = format!("CPython 3.{}", interpreter.minor);
        if interpreter.free_threaded {
            notes.push(format!("{name} is free-threaded: its objects are in mimalloc's heaps"));
            continue;
        }
        // The small `python3.x` beside a shared library holds no interpreter.
        let Some(mut arenas) =
            python::find(memory, &writable(image), &scene.maps, interpreter.minor)
        else {
            continue;
        };
        if !interpreter.tested {
            notes.push(format!("{name}: the layout of its arenas is untested"));
        }
        arenas.sort_unstable_by_key(|arena| arena.range.start);
        let usage = scene.depth.python.then(|| {
            let ranges: Vec<Range> = arenas.iter().map(|arena| arena.range.clone()).collect();
            python::usage(memory, &arenas, &scene.residency(&ranges), until)
        });
        let certain = usage.filter(|usage| usage.certain);
        if usage.is_some() && certain.is_none() {
            notes.push(format!("{name}: its pools changed too fast to be split"));
        }
        let layer = if certain.is_some() { Layer::PythonFree } else { Layer::Python };
        let mut live = certain.map_or(0, |usage| usage.in_use);
        for run in runs(&arenas) {
            // All arenas are one: what lives in them is carved from the first ones that hold it.
            let claim = Claim::new(run.clone(), layer, format!("{name} arenas"));
            let here = live.min(run.end - run.start);
            live -= here;
            claims.add(claim.carving(Layer::PythonInUse, here));
        }
    }
}

/// Arenas that touch are one claim.
fn runs(arenas: &[python::Arena]) -> Vec<Range> {
    let mut runs: Vec<Range> = Vec::new();
    for arena in arenas {
        match runs.last_mut() {
            Some(last) if last.end == arena.range.start => last.end = arena.range.end,
            _ => runs.push(arena.range.clone()),
        }
    }
    runs
}
