//! From a copied stack to its return addresses, and to the rules that let the kernel walk the next
//! one like it.
//!
//! framehop does the unwinding, by the modules' own unwind tables. Each step is also watched: how
//! far the stack pointer moved, and where the caller's frame pointer was read from. That is a rule
//! which the BPF side can apply without any table, see `bpf/stack.h`.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use framehop::x86_64::{CacheX86_64, UnwindRegsX86_64, UnwinderX86_64};
use framehop::{ExplicitModuleSectionInfo, FrameAddress, Unwinder};
use plumb_target::{Process, ReadMemory};

use crate::events::RawStack;
use crate::guess;
use crate::modules::{self, Modules, Place, Placed};

/// How to step from a program counter's frame to its caller's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// The outermost frame.
    End,
    /// The frame ends `cfa` bytes above the stack pointer; the caller's frame pointer is saved `bp`
    /// bytes from there, 0 where it is not saved.
    Sp {
        /// Bytes.
        cfa: i32,
        /// Bytes, negative.
        bp: i32,
    },
    /// The same above the frame pointer.
    Bp {
        /// Bytes.
        cfa: i32,
        /// Bytes, negative.
        bp: i32,
    },
    /// Differs from time to time: the kernel cannot walk it.
    None,
}

/// The frames of the BPF side's own walk, `WALK_MAX`.
const WALK_MAX: usize = 128;
/// Frames of a stack beyond this are cut off: runaway recursion.
const FRAMES_MAX: usize = 1024;

/// A stack that ends without its tables saying so is believed to after this many times.
const ENDS_OFTEN: u32 = 4;
/// Bounds what is remembered of such ends.
const ENDS_MAX: usize = 10_000;

/// Code that is mapped no more is remembered of so many mappings.
const GONE_MAX: usize = 256;

/// Adds to the mappings of now those of before where no code lies any more.
fn keep_gone(now: &mut Vec<Placed>, before: &[Placed], others: &[Range<u64>]) {
    let apart = |a: &Range<u64>, b: &Range<u64>| a.end <= b.start || b.end <= a.start;
    let is_free = |range: &Range<u64>| {
        now.iter().all(|p| apart(&p.range, range)) && others.iter().all(|o| apart(o, range))
    };
    let gone = before.iter().filter(|old| is_free(&old.range)).take(GONE_MAX);
    let gone: Vec<Placed> = gone.cloned().collect();
    now.extend(gone);
    now.sort_by_key(|p| p.range.start);
}

/// What a copied stack gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unwound {
    /// Program counters, innermost first; all but the first are return addresses.
    pub pcs: Vec<u64>,
    /// Which of them are the kernel's way back from a signal's handler.
    pub signals: Vec<usize>,
    /// Whether the outermost frame was reached.
    pub complete: bool,
    /// Rules that are new or changed.
    pub rules: Vec<(u64, Rule)>,
}

/// One address space's code.
pub struct Space {
    unwinder: UnwinderX86_64<Arc<[u8]>>,
    cache: CacheX86_64,
    placed: Vec<Placed>,
    rules: HashMap<u64, Rule>,
    /// How often a program counter had no way on that was known.
    ends: HashMap<u64, u32>,
    /// Whether tables cover the code before a program counter.
    covered: HashMap<u64, bool>,
}

impl std::fmt::Debug for Space {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Space").field("placed", &self.placed.len()).finish_non_exhaustive()
    }
}

impl Default for Space {
    fn default() -> Self {
        Self::new()
    }
}

impl Space {
    /// Knows no code yet.
    pub fn new() -> Self {
        Self {
            unwinder: UnwinderX86_64::new(),
            cache: CacheX86_64::new(),
            placed: Vec::new(),
            rules: HashMap::new(),
            ends: HashMap::new(),
            covered: HashMap::new(),
        }
    }

    /// Reads again what is mapped. Code that was mapped before keeps its place while nothing else has it: a
    /// plugin that is gone is still who allocated.
    ///
    /// # Errors
    /// As for reading the maps.
    pub fn refresh(
        &mut self,
        process: &Process,
        modules: &mut Modules,
    ) -> Result<(), crate::Error> {
        let (mut now, others) = modules::placed(process, modules)?;
        keep_gone(&mut now, &self.placed, &others);
        for old in self.placed.iter().filter(|p| !now.contains(p)) {
            self.unwinder.remove_module(old.range.start);
        }
        self.covered.clear();
        let before = std::mem::replace(&mut self.placed, now.clone());
        for new in now.iter().filter(|p| !before.contains(p)) {
            self.add(new, modules);
        }
        Ok(())
    }

    fn add(&mut self, placed: &Placed, modules: &Modules) {
        let Some(module) = modules.get(placed.module) else { return };
        let elf = &module.elf;
        let base = elf.base();
        let (hdr, eh) = (elf.eh_frame_hdr.as_ref(), elf.eh_frame.as_ref());
        let info = ExplicitModuleSectionInfo {
            base_svma: base,
            text_svma: elf.text.clone(),
            got_svma: elf.got.clone(),
            eh_frame_svma: eh.map(|s| s.range.clone()),
            eh_frame: eh.map(|s| s.data.clone()),
            eh_frame_hdr_svma: hdr.map(|s| s.range.clone()),
            eh_frame_hdr: hdr.map(|s| s.data.clone()),
            debug_frame: elf.debug_frame.as_ref().map(|s| s.data.clone()),
            ..ExplicitModuleSectionInfo::default()
        };
        self.unwinder.add_module(framehop::Module::new(
            String::new(),
            placed.range.clone(),
            base.wrapping_add(placed.bias),
            info,
        ));
    }

    /// Whether some of the code was made by Go.
    pub fn runs_go(&self, modules: &Modules) -> bool {
        self.placed.iter().any(|p| modules.get(p.module).is_some_and(|m| m.elf.is_go))
    }

    /// Whether some of the code is mapped from one of these addresses on.
    pub fn begins(&self, at: impl Fn(u64) -> bool) -> bool {
        self.placed.iter().any(|p| at(p.range.start))
    }

    /// Whether an address is in known code.
    pub fn knows(&self, pc: u64) -> bool {
        self.find(pc).is_some()
    }

    /// Where a program counter is; a return address is looked up one byte before, in its call.
    pub fn place(&self, pc: u64, is_return: bool) -> Option<Place> {
        let pc = pc.checked_sub(u64::from(is_return))?;
        let p = self.find(pc)?;
        Some(Place { module: p.module, address: pc.wrapping_sub(p.bias) })
    }

    fn find(&self, pc: u64) -> Option<&Placed> {
        let at = self.placed.partition_point(|p| p.range.end <= pc);
        self.placed.get(at).filter(|p| p.range.contains(&pc))
    }

    /// Whether a table says how to step from a program counter; code of no file needs none.
    fn is_covered(&mut self, pc: u64, is_return: bool, modules: &Modules) -> bool {
        let Some(place) = self.place(pc, is_return) else { return true };
        if self.covered.len() > ENDS_MAX {
            self.covered.clear();
        }
        let look = || modules.get(place.module).is_none_or(|m| m.elf.has_table(place.address));
        *self.covered.entry(pc).or_insert_with(look)
    }

    /// The step that no table tells: out of a signal's frame, or by a search for the return address.
    fn guess(
        &self,
        stack: &RawStack<'_>,
        (pc, sp, bp): (u64, u64, u64),
        code: &impl ReadMemory,
    ) -> Option<guess::Registers> {
        let module = self.find(pc).map(|p| p.module);
        let same = |at: u64| self.find(at).is_some_and(|p| Some(p.module) == module);
        let at = guess::return_slot(stack, pc, sp, |at| self.knows(at), same, code)?;
        Some(guess::Registers { ip: stack.word(at)?, sp: at + 8, bp })
    }

    /// Unwinds a copied stack; `code` is the process's memory, which is read only where tables do not
    /// lead on.
    pub fn unwind(
        &mut self,
        stack: &RawStack<'_>,
        modules: &Modules,
        code: &impl ReadMemory,
    ) -> Unwound {
        let mut out =
            Unwound { pcs: Vec::new(), signals: Vec::new(), complete: false, rules: Vec::new() };
        let mut regs = UnwindRegsX86_64::new(stack.ip, stack.sp, stack.bp);
        let mut address = FrameAddress::from_instruction_pointer(stack.ip);
        while out.pcs.len() < FRAMES_MAX {
            let pc = address.address();
            out.pcs.push(pc);
            let (sp, bp) = (regs.sp(), regs.bp());
            let is_return = out.pcs.len() > 1;
            if is_return
                && let Some(was) = guess::interrupted(stack, sp).filter(|r| self.knows(r.ip))
            {
                // Where the interrupted frame is differs from signal to signal.
                self.learn(pc, Rule::None, None, &mut out.rules);
                out.signals.push(out.pcs.len() - 1);
                regs = UnwindRegsX86_64::new(was.ip, was.sp, was.bp);
                address = FrameAddress::from_instruction_pointer(was.ip);
                continue;
            }
            if !self.is_covered(pc, is_return, modules)
                && let Some(caller) = self.guess(stack, (pc, sp, bp), code)
                && let Some(next) = FrameAddress::from_return_address(caller.ip)
            {
                let (by_sp, _) = step_rules((sp, bp), (caller.sp, bp), &[]);
                self.learn(pc, by_sp, None, &mut out.rules);
                regs = UnwindRegsX86_64::new(caller.ip, caller.sp, bp);
                address = next;
                continue;
            }
            let mut reads: Vec<(u64, u64)> = Vec::new();
            let mut unread = false;
            let mut read = |at: u64| {
                let Some(value) = stack.word(at) else {
                    unread = true;
                    return Err(());
                };
                reads.push((at, value));
                Ok(value)
            };
            let next = self.unwinder.unwind_frame(address, &mut regs, &mut self.cache, &mut read);
            let ended = matches!(next, Ok(None));
            let next = next.ok().flatten().and_then(FrameAddress::from_return_address);
            let Some(next) = next.filter(|_| regs.sp() > sp) else {
                out.complete = ended || !unread;
                // A page that could not be read once must not end every such stack from then on.
                if out.complete && (ended || self.ends_often(pc)) {
                    self.learn(pc, Rule::End, None, &mut out.rules);
                }
                break;
            };
            let (by_sp, by_bp) = step_rules((sp, bp), (regs.sp(), regs.bp()), &reads);
            self.learn(pc, by_sp, by_bp, &mut out.rules);
            address = next;
        }
        out
    }

    /// Whether stacks have ended here for want of a way on, time and again, and never gone on.
    fn ends_often(&mut self, pc: u64) -> bool {
        if self.rules.contains_key(&pc) || self.ends.len() > ENDS_MAX {
            return false;
        }
        let seen = self.ends.entry(pc).or_default();
        *seen += 1;
        *seen >= ENDS_OFTEN
    }

    /// Keeps what was seen: first as a distance from sp, then, if that differs, from bp.
    fn learn(&mut self, pc: u64, by_sp: Rule, by_bp: Option<Rule>, changed: &mut Vec<(u64, Rule)>) {
        let known = self.rules.get(&pc).copied();
        let next = match known {
            None => by_sp,
            Some(rule) if rule == by_sp || Some(rule) == by_bp || rule == Rule::None => return,
            Some(Rule::Sp { .. }) => by_bp.unwrap_or(Rule::None),
            Some(_) => Rule::None,
        };
        self.rules.insert(pc, next);
        changed.push((pc, next));
    }
}

/// The step that was seen, as a distance from sp and from bp.
fn step_rules(before: (u64, u64), after: (u64, u64), reads: &[(u64, u64)]) -> (Rule, Option<Rule>) {
    let (sp, bp) = before;
    let (cfa, new_bp) = after;
    let saved = reads
        .iter()
        .find(|(at, value)| *at != cfa.wrapping_sub(8) && *value == new_bp)
        .map_or(0, |(at, _)| at.wrapping_sub(cfa).cast_signed());
    let near = |from: u64| i32::try_from(cfa.wrapping_sub(from).cast_signed()).ok();
    let Ok(bp_at) = i32::try_from(saved) else { return (Rule::None, None) };
    if bp_at == 0 && new_bp != bp {
        return (Rule::None, None);
    }
    let by_sp = near(sp).map_or(Rule::None, |cfa| Rule::Sp { cfa, bp: bp_at });
    let by_bp = near(bp).map(|cfa| Rule::Bp { cfa, bp: bp_at });
    (by_sp, by_bp)
}

/// The name that the BPF side gives to a stack: a hash of its return addresses.
pub fn name(space: u32, python_hash: u64, pcs: &[u64]) -> u64 {
    let mut h = mix(python_hash, u64::from(space));
    for pc in pcs.iter().take(WALK_MAX) {
        h = mix(h, *pc);
    }
    h.max(1)
}

fn mix(h: u64, v: u64) -> u64 {
    let h = (h ^ v).wrapping_mul(0xff51_afd7_ed55_8ccd);
    h ^ (h >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_that_is_gone_keeps_its_place_until_other_code_has_it() {
        let placed = |start: u64, module| Placed { range: start..start + 0x1000, bias: 0, module };
        let before = [placed(0x1000, 1), placed(0x3000, 2), placed(0x5000, 3), placed(0x7000, 4)];
        let mut now = vec![placed(0x1000, 1), placed(0x3000, 9)];
        keep_gone(&mut now, &before, std::slice::from_ref(&(0x5800..0x6800)));
        assert_eq!(now, [placed(0x1000, 1), placed(0x3000, 9), placed(0x7000, 4)]);
    }
}
