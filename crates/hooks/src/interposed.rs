//! Names of memory functions that lead elsewhere than to the C or C++ library.

use std::collections::BTreeSet;

use plumb_target::image::{FileView, Slot};
use plumb_target::{ReadMemory, memory};

use crate::link::{Linked, Module, Namespace};
use crate::names::{self, C_FUNCTIONS, CPP_OPERATORS};
use crate::report::Interposed;
use crate::scan::Scene;

/// Who comes first by the dynamic linker's order, and whose slots lead elsewhere than it says.
pub(crate) fn find(scene: &Scene, linked: &Linked) -> Vec<Interposed> {
    let mut found = BTreeSet::new();
    if let Some(first) = linked.namespaces.first() {
        found.extend(by_order(linked, first));
    }
    for namespace in &linked.namespaces {
        for &index in &namespace.order {
            found.extend(by_slot(scene, linked, namespace, index));
        }
    }
    found.into_iter().collect()
}

fn by_order(linked: &Linked, namespace: &Namespace) -> Vec<Interposed> {
    let of = |name: &str| -> Option<Interposed> {
        let mut definers = namespace.startup.iter().map(|&index| &linked.modules[index]);
        let mut definers = definers.by_ref().filter(|module| module.defines(name));
        let owner = definers.next().filter(|module| takes_over(module, name))?;
        let replaced = definers.find(|module| module.is_ordinary_for(name))?;
        let symbol = names::shown(name);
        Some(Interposed { symbol, module: replaced.path(), owner: Some(owner.path()) })
    };
    C_FUNCTIONS.iter().chain(CPP_OPERATORS).filter_map(|name| of(name)).collect()
}

/// Whether a definition there replaces the ordinary one. Compilers leave single C++ operators in
/// many libraries; only one that brings both ends of an allocation is an allocator.
fn takes_over(module: &Module, name: &str) -> bool {
    let allocates =
        || module.defines("malloc") || module.defines("_Znwm") && module.defines("_ZdlPv");
    !module.is_ordinary_for(name) && (!names::is_cpp(name) || allocates())
}

fn by_slot(scene: &Scene, linked: &Linked, namespace: &Namespace, index: usize) -> Vec<Interposed> {
    let module = &linked.modules[index];
    if module.slots.is_empty() {
        return Vec::new();
    }
    let mut scope = namespace.startup.clone();
    scope.extend(linked.closure(&[index], &namespace.order));
    let addresses: Vec<u64> =
        module.slots.iter().map(|slot| module.image.bias.wrapping_add(slot.address)).collect();
    let mut bytes = vec![0; addresses.len() * 8];
    scene.memory.read_scattered(&addresses, 8, &mut bytes);
    let changed = module.slots.iter().zip(memory::words(&bytes)).filter(|(slot, holds)| {
        *holds != 0
            && !is_rightful(linked, &scope, &slot.name, *holds)
            && !is_unresolved(module, slot, *holds)
    });
    changed
        .map(|(slot, holds)| Interposed {
            symbol: names::shown(&slot.name),
            module: module.path(),
            owner: scene.owner_through(holds),
        })
        .collect()
}

/// A slot that was not filled in yet holds what the file holds: before relocation just that, after
/// it an address in the module's own PLT, where the first call looks the name up.
fn is_unresolved(module: &Module, slot: &Slot, holds: u64) -> bool {
    let first = || {
        let file = module.image.open().ok()?;
        FileView::new(&file, &module.image.elf).u64_at(slot.address)
    };
    first().is_some_and(|value| {
        value == holds || value != 0 && module.image.bias.wrapping_add(value) == holds
    })
}

/// Whether the dynamic linker may have written that: a definition of the same name in scope, a
/// PLT entry of the executable that stands for it, or any place in the name's ordinary library.
/// Which version of a name was meant, and `RTLD_DEEPBIND`, are left open on purpose.
fn is_rightful(linked: &Linked, scope: &[usize], name: &str, holds: u64) -> bool {
    let mut in_scope = scope.iter().map(|&index| &linked.modules[index]);
    let stands_for = |module: &Module| {
        let stand_ins = module.slots.iter().filter(|slot| slot.name == name);
        let mut stand_ins = stand_ins.filter_map(|slot| slot.stand_in);
        stand_ins.any(|at| module.image.bias.wrapping_add(at) == holds)
    };
    if in_scope
        .any(|m| m.image.range.contains(&holds) && m.defines_at(name, holds) || stands_for(m))
    {
        return true;
    }
    // C++ libraries may share operators by RTLD_GLOBAL or as unique symbols, whatever the scope.
    let there = linked.modules.iter().find(|module| module.image.range.contains(&holds));
    there.is_some_and(|module| {
        module.is_ordinary_for(name) || names::is_cpp(name) && module.defines_at(name, holds)
    })
}
