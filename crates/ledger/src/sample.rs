//! One sample: every resident byte of a process by layer, at one moment.

use std::time::{Duration, Instant};

use plumb_target::mounts::MemoryMounts;
use plumb_target::smaps::{self, Entry};
use plumb_target::{Error, Image, Map, Memory, Pagemap, Process, Range, Residency};
use serde::Serialize;

use crate::beyond::{self, Beyond};
use crate::claim::{Claims, divide};
use crate::classify::Kinds;
use crate::rows::Rows;
use crate::{Layer, owners};

/// How deep a sample looks. The classification is always made; each walk adds its own cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Depth {
    /// Walk allocators' heaps, to tell live bytes from kept ones. Else heaps are `heap`.
    pub heap: bool,
    /// Walk CPython's arenas likewise. Else they are `python`.
    pub python: bool,
    /// Look for zero pieces in huge pages.
    pub huge_pages: bool,
    /// Look at descriptors and sockets for what is beyond RSS.
    pub beyond: bool,
    /// How long each walk may take; one that does not end in time leaves its layer unsplit.
    pub budget: Duration,
}

impl Depth {
    /// Everything.
    pub const FULL: Self = Self {
        heap: true,
        python: true,
        huge_pages: true,
        beyond: true,
        budget: Duration::from_secs(10),
    };
    /// The classification alone: cheap enough to repeat.
    pub const CLASSIFY: Self =
        Self { heap: false, python: false, huge_pages: false, beyond: false, ..Self::FULL };
}

/// The resident bytes of one process by layer.
#[derive(Debug, Clone, Serialize)]
pub struct Sample {
    /// The process.
    pub pid: u32,
    /// The kernel's short name for it.
    pub name: String,
    /// Its command line.
    pub command: Vec<String>,
    /// `Rss` of the same pass over the maps: what the layers answer for.
    pub rss_bytes: u64,
    /// The kernel's own counter, approximate on some kernels.
    pub vm_rss_bytes: u64,
    /// Resident bytes with shared pages divided by their sharers.
    pub pss_bytes: u64,
    /// RSS less the sum of the layers.
    pub residual_bytes: i64,
    /// How many mappings it has.
    pub vmas: usize,
    /// All layers, in order.
    pub layers: Vec<LayerRow>,
    /// What RSS does not show.
    pub beyond_rss: Vec<Beyond>,
    /// What a reader must know of this sample: what could not be seen, whose heap is not read.
    pub notes: Vec<String>,
    /// What the sample cost us.
    pub cost: Cost,
}

/// One layer of a sample.
#[derive(Debug, Clone, Serialize)]
pub struct LayerRow {
    /// The layer.
    pub layer: Layer,
    /// Its resident bytes.
    pub resident_bytes: u64,
    /// In how many mappings it has a part.
    pub vmas: usize,
    /// Of `files`: the bytes that can be dropped at any time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clean_bytes: Option<u64>,
    /// Of `files`: the bytes that were changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dirty_bytes: Option<u64>,
    /// Its biggest parts.
    pub biggest: Vec<Mapping>,
}

/// A mapping, or a part of one, that stands out.
#[derive(Debug, Clone, Serialize)]
pub struct Mapping {
    /// A path, the kernel's name, or what we call it.
    pub name: String,
    /// Its first address.
    pub start: u64,
    /// Resident bytes; of all mappings of one file together.
    pub resident_bytes: u64,
}

/// Seconds that a sample took, by part.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Cost {
    /// Reading the maps and finding each mapping's owner.
    pub classification_s: f64,
    /// Walking heaps.
    pub heap_s: f64,
    /// Walking CPython's arenas.
    pub python_s: f64,
    /// Looking into huge pages.
    pub huge_pages_s: f64,
    /// Looking at what is beyond RSS.
    pub beyond_s: f64,
}

impl Sample {
    /// The bytes of one layer.
    pub fn bytes(&self, layer: Layer) -> u64 {
        self.layers.iter().filter(|row| row.layer == layer).map(|row| row.resident_bytes).sum()
    }
}

/// What is read once and shared by all who look for owners.
pub(crate) struct Scene {
    pub process: Process,
    pub entries: Vec<Entry>,
    pub maps: Vec<Map>,
    pub images: Vec<Image>,
    pub memory: Option<Memory>,
    pub pagemap: Option<Pagemap>,
    pub depth: Depth,
}

impl Scene {
    fn read(process: &Process, depth: Depth) -> Result<Self, Error> {
        let entries = smaps::read(process)?;
        let maps: Vec<Map> = entries.iter().map(|entry| entry.map.clone()).collect();
        Ok(Self {
            process: *process,
            images: plumb_target::images(process, &maps),
            maps,
            entries,
            memory: Memory::open(process).ok(),
            pagemap: Pagemap::open(process).ok(),
            depth,
        })
    }

    /// What is resident of ranges that are page aligned, sorted and apart.
    pub fn residency(&self, ranges: &[Range]) -> Residency {
        self.pagemap.as_ref().map_or_else(Residency::default, |p| Residency::read(p, ranges))
    }
}

/// Takes a sample of a process.
///
/// # Errors
/// Vanished (also meanwhile), denied, zombie, kernel thread. A sample is whole or is not made.
pub fn take(process: &Process, depth: Depth) -> Result<Sample, Error> {
    let mut cost = Cost::default();
    let mut notes = Vec::new();
    let begun = Instant::now();
    let scene = Scene::read(process, depth)?;
    if scene.memory.is_none() || scene.pagemap.is_none() {
        notes.push("its memory cannot be read: heaps, stacks and Python are not told apart".into());
    }
    let mut kinds = Kinds::new(&scene.maps, &scene.images, MemoryMounts::read(process));
    let mut claims = Claims::default();
    owners::claim_all(&scene, &mut kinds, &mut claims, &mut cost, &mut notes);

    let mut rows = Rows::new(&scene.entries);
    let mut residency = |range: &Range| scene.residency(std::slice::from_ref(range));
    for (index, entry) in scene.entries.iter().enumerate() {
        let pieces = divide(entry, &claims, &mut residency);
        rows.add(index, kinds.layer(&entry.map), &pieces, &claims);
    }
    let walks = cost.heap_s + cost.python_s;
    cost.classification_s = begun.elapsed().as_secs_f64() - walks;

    owners::huge_page_slack(&scene, &claims, &kinds, &mut rows, &mut cost);
    let layers = rows.finish(&claims);
    let begun = Instant::now();
    let beyond_rss = beyond::look(&scene)?;
    cost.beyond_s = begun.elapsed().as_secs_f64();
    if !process.is_alive() {
        return Err(Error::Vanished { pid: process.pid() });
    }
    summarize(&scene, layers, beyond_rss, notes, cost)
}

fn summarize(
    scene: &Scene,
    layers: Vec<LayerRow>,
    beyond_rss: Vec<Beyond>,
    notes: Vec<String>,
    cost: Cost,
) -> Result<Sample, Error> {
    let process = &scene.process;
    let rss_bytes = scene.entries.iter().map(|entry| entry.usage.rss).sum::<u64>();
    let sum: u64 = layers.iter().map(|row| row.resident_bytes).sum();
    Ok(Sample {
        pid: process.pid(),
        name: process.name()?,
        command: process.command().unwrap_or_default(),
        rss_bytes,
        vm_rss_bytes: process.status()?.vm_rss,
        pss_bytes: scene.entries.iter().map(|entry| entry.usage.pss).sum(),
        residual_bytes: rss_bytes.cast_signed() - sum.cast_signed(),
        vmas: scene.entries.len(),
        layers,
        beyond_rss,
        notes,
        cost,
    })
}
