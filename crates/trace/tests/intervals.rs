//! The interval accounting against a model that is too simple to be wrong: one owner a page.

use std::collections::BTreeMap;

use plumb_trace::account::{Account, Sizes};
use plumb_trace::events::{Event, Kind};
use proptest::prelude::*;

const PAGE: u64 = 4096;
const BASE: u64 = 0x10_0000;
const PAGES: u64 = 48;
const MMAP: u32 = 9;
const MUNMAP: u32 = 11;
const BRK: u32 = 12;
const MREMAP: u32 = 25;

/// A page's owner: the stack that mapped it.
type Model = BTreeMap<u64, u32>;

#[derive(Debug, Clone)]
enum Step {
    Map {
        at: u64,
        pages: u64,
    },
    Unmap {
        at: u64,
        pages: u64,
        fails: bool,
    },
    /// Between entry and return another thread maps into what the unmapping frees.
    Race {
        at: u64,
        pages: u64,
    },
    Remap {
        from: u64,
        pages: u64,
        to: u64,
        new_pages: u64,
        fails: bool,
    },
    Break {
        pages: u64,
    },
    Fork,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let at = 0..PAGES;
    let n = 1..10u64;
    let step = prop_oneof![
        4 => (at.clone(), n.clone()).prop_map(|(at, pages)| Step::Map { at, pages }),
        3 => (at.clone(), n.clone(), prop::bool::weighted(0.1))
            .prop_map(|(at, pages, fails)| Step::Unmap { at, pages, fails }),
        1 => (at.clone(), n.clone()).prop_map(|(at, pages)| Step::Race { at, pages }),
        3 => (at.clone(), n.clone(), at.clone(), n, prop::bool::weighted(0.1)).prop_map(
            |(from, pages, to, new_pages, fails)| {
                // The kernel refuses a move onto itself; growing in place is a move to itself.
                let apart = to + new_pages <= from || from + pages <= to;
                let to = if apart { to } else { from };
                Step::Remap { from, pages, to, new_pages, fails }
            }
        ),
        2 => (0..20u64).prop_map(|pages| Step::Break { pages }),
        1 => Just(Step::Fork),
    ];
    prop::collection::vec(step, 1..60)
}

struct NoSegments;

impl Sizes for NoSegments {
    fn segment(&self, _: u64) -> Option<u64> {
        None
    }
}

struct World {
    account: Account,
    model: Model,
    brk: u64,
    pid: u32,
    stack: u32,
    children: Vec<(u32, Model)>,
}

const BRK_BASE: u64 = 0x4000_0000;

impl World {
    fn new() -> Self {
        let mut account = Account::new();
        account.watch(1, Some(BRK_BASE));
        Self { account, model: Model::new(), brk: 0, pid: 1, stack: 0, children: Vec::new() }
    }

    fn send(&mut self, kind: Kind, nr: u32, tid: u32, args: [u64; 6], ret: i64) {
        let event = Event {
            kind,
            nr,
            tgid: self.pid,
            tid,
            time_ns: u64::from(self.stack),
            args,
            ret,
            stack: 0,
            space: 1,
            hashed: false,
            has_stack: true,
        };
        self.account.apply(&event, self.stack, &NoSegments);
    }

    fn own(&mut self, at: u64, pages: u64) {
        for page in at..at + pages {
            self.model.insert(page, self.stack);
        }
    }

    fn map(&mut self, tid: u32, at: u64, pages: u64) {
        let address = BASE + at * PAGE;
        // Lengths that are no multiple of a page are rounded up, as by the kernel.
        let args = [address, pages * PAGE - 7, 3, 0x32, 0, 0];
        self.send(Kind::SyscallExit, MMAP, tid, args, address.cast_signed());
        self.own(BASE / PAGE + at, pages);
    }

    fn step(&mut self, step: &Step) {
        self.stack += 1;
        match *step {
            Step::Map { at, pages } => self.map(1, at, pages),
            Step::Unmap { at, pages, fails } => {
                let args = [BASE + at * PAGE, pages * PAGE, 0, 0, 0, 0];
                self.send(Kind::SyscallEnter, MUNMAP, 1, args, 0);
                if fails {
                    self.send(Kind::SyscallExit, MUNMAP, 1, args, -12);
                } else {
                    self.model
                        .retain(|p, _| !(BASE / PAGE + at..BASE / PAGE + at + pages).contains(p));
                }
            }
            Step::Race { at, pages } => {
                let args = [BASE + at * PAGE, pages * PAGE, 0, 0, 0, 0];
                self.send(Kind::SyscallEnter, MUNMAP, 1, args, 0);
                self.model.retain(|p, _| !(BASE / PAGE + at..BASE / PAGE + at + pages).contains(p));
                self.map(2, at, pages);
            }
            Step::Remap { from, pages, to, new_pages, fails } => {
                self.remap(from, pages, to, new_pages, fails);
            }
            Step::Break { pages } => self.set_break(pages),
            Step::Fork => {
                let child = 100 + self.stack;
                let args = [u64::from(child), 0, 0, 0, 0, 0];
                self.send(Kind::Fork, 0, 1, args, 0);
                self.children.push((child, self.model.clone()));
            }
        }
    }

    fn remap(&mut self, from: u64, pages: u64, to: u64, new_pages: u64, fails: bool) {
        let (old, new) = (BASE + from * PAGE, BASE + to * PAGE);
        let args = [old, pages * PAGE, new_pages * PAGE, 1, new, 0];
        self.send(Kind::SyscallEnter, MREMAP, 1, args, 0);
        if fails {
            self.send(Kind::SyscallExit, MREMAP, 1, args, -12);
            return;
        }
        self.send(Kind::SyscallExit, MREMAP, 1, args, new.cast_signed());
        let moved: Vec<(u64, Option<u32>)> =
            (0..pages).map(|i| (i, self.model.remove(&(old / PAGE + i)))).collect();
        for i in 0..new_pages {
            self.model.remove(&(new / PAGE + i));
        }
        for (i, owner) in moved {
            if let (true, Some(owner)) = (i < new_pages, owner) {
                self.model.insert(new / PAGE + i, owner);
            }
        }
        for i in pages..new_pages {
            self.model.insert(new / PAGE + i, self.stack);
        }
    }

    fn set_break(&mut self, pages: u64) {
        let to = BRK_BASE + pages * PAGE;
        self.send(Kind::SyscallExit, BRK, 1, [to, 0, 0, 0, 0, 0], to.cast_signed());
        for page in self.brk..pages {
            self.model.insert(BRK_BASE / PAGE + page, self.stack);
        }
        for page in pages..self.brk {
            self.model.remove(&(BRK_BASE / PAGE + page));
        }
        self.brk = pages;
    }

    fn seen(&self, pid: u32) -> Model {
        let process = self.account.process(pid).expect("watched");
        let pages = process.ranges.iter().flat_map(|(range, owner)| {
            (range.start / PAGE..range.end / PAGE).map(move |page| (page, owner.stack))
        });
        pages.collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn agrees_with_a_page_by_page_model(steps in steps()) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
            prop_assert_eq!(&world.seen(1), &world.model, "after {:?}", step);
        }
        for (child, then) in &world.children {
            prop_assert_eq!(&world.seen(*child), then, "child {}", child);
        }
    }
}

#[test]
fn exec_forgets_and_a_stranger_is_ignored() {
    let mut world = World::new();
    world.stack = 1;
    world.map(1, 0, 4);
    world.pid = 77;
    world.map(1, 8, 4);
    assert!(world.account.process(77).is_none());
    world.pid = 1;
    world.send(Kind::Exec, 0, 1, [0; 6], 0);
    assert!(world.seen(1).is_empty());
}
