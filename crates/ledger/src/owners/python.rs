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
        let runs = arenas.chunk_by(|a, b| a.range.end == b.range.start).map(|arenas| {
            let range = arenas[0].range.start..arenas[arenas.len() - 1].range.end;
            let pages = scene.reading.pages();
            let usage = scene.depth.python.then(|| python::usage(memory, arenas, pages, until));
            (range, usage)
        });
        let runs: Vec<(Range, Option<python::Usage>)> = runs.collect();
        let certain = runs.iter().all(|(_, usage)| usage.is_some_and(|usage| usage.certain));
        if scene.depth.python && !certain {
            notes.push(format!("{name}: its pools changed too fast to be split"));
        }
        for (range, usage) in runs {
            let name = format!("{name} arenas");
            claims.add(match usage.filter(|_| certain) {
                Some(usage) => Claim::new(range, Layer::PythonFree, name)
                    .carving(Layer::PythonInUse, usage.in_use),
                None => Claim::new(range, Layer::Python, name),
            });
        }
    }
}
