//! Names of functions: which are memory's, how they are shown, which of several is the public one.

use plumb_target::symbols::{Symbol, demangled};

/// Functions of the C library through which a process gets or gives back memory, or copies or loads
/// what holds it.
pub(crate) const C_FUNCTIONS: &[&str] = &[
    "malloc",
    "calloc",
    "realloc",
    "reallocarray",
    "free",
    "aligned_alloc",
    "posix_memalign",
    "memalign",
    "valloc",
    "pvalloc",
    "malloc_usable_size",
    "mmap",
    "mmap64",
    "munmap",
    "mremap",
    "madvise",
    "mprotect",
    "brk",
    "sbrk",
    "shmat",
    "shmdt",
    "fork",
    "vfork",
    "dlopen",
    "dlclose",
];

/// The operators `new`, `new[]`, `delete` and `delete[]` of the C++ library, mangled by the Itanium
/// ABI: plain, nothrow, sized, aligned.
pub(crate) const CPP_OPERATORS: &[&str] = &[
    "_Znwm",
    "_Znam",
    "_ZnwmRKSt9nothrow_t",
    "_ZnamRKSt9nothrow_t",
    "_ZnwmSt11align_val_t",
    "_ZnamSt11align_val_t",
    "_ZnwmSt11align_val_tRKSt9nothrow_t",
    "_ZnamSt11align_val_tRKSt9nothrow_t",
    "_ZdlPv",
    "_ZdaPv",
    "_ZdlPvm",
    "_ZdaPvm",
    "_ZdlPvRKSt9nothrow_t",
    "_ZdaPvRKSt9nothrow_t",
    "_ZdlPvSt11align_val_t",
    "_ZdaPvSt11align_val_t",
    "_ZdlPvmSt11align_val_t",
    "_ZdaPvmSt11align_val_t",
    "_ZdlPvSt11align_val_tRKSt9nothrow_t",
    "_ZdaPvSt11align_val_tRKSt9nothrow_t",
];

/// Whether interposing this (mangled) name changes how a process gets its memory.
pub fn is_memory_function(name: &str) -> bool {
    C_FUNCTIONS.contains(&name) || CPP_OPERATORS.contains(&name)
}

/// Whether the name is a C++ operator.
pub(crate) fn is_cpp(name: &str) -> bool {
    name.starts_with("_Z")
}

/// A name as a person writes it: demangled, without a version.
pub(crate) fn shown(name: &str) -> String {
    demangled(name.split('@').next().unwrap_or(name))
}

/// Of the names of one address: the public one, then the others, each once.
pub(crate) fn public(symbols: &[Symbol]) -> Option<(String, Vec<String>)> {
    let mut all: Vec<(bool, bool, usize, usize, String)> = symbols
        .iter()
        .map(|s| {
            let name = s.name.split('@').next().unwrap_or(&s.name);
            let underscores = name.len() - name.trim_start_matches('_').len();
            (!s.is_function, !s.is_exported, underscores, name.len(), shown(name))
        })
        .collect();
    all.sort();
    let mut names: Vec<String> = Vec::with_capacity(all.len());
    for (.., name) in all {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let mut names = names.into_iter();
    Some((names.next()?, names.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbol(name: &str, is_exported: bool) -> Symbol {
        let name = name.to_owned();
        Symbol { name, address: 0, size: 8, is_function: true, is_indirect: false, is_exported }
    }

    #[test]
    fn the_public_name_comes_first() {
        let all = ["__mmap64", "mmap64", "__mmap", "mmap", "mmap@@GLIBC_2.2.5"];
        let all: Vec<Symbol> = all.iter().map(|n| symbol(n, true)).collect();
        let expected = ["mmap64", "__mmap", "__mmap64"].map(str::to_owned).to_vec();
        assert_eq!(public(&all), Some(("mmap".into(), expected)));
        assert_eq!(public(&[symbol("a", false), symbol("__b", true)]).unwrap().0, "__b");
        assert_eq!(public(&[]), None);
    }

    #[test]
    fn names_are_demangled() {
        assert_eq!(shown("_Znwm"), "operator new(unsigned long)");
        assert_eq!(shown("munmap@@GLIBC_2.2.5"), "munmap");
        assert_eq!(shown("_ZN4core3fmt5write17h0123456789abcdefE"), "core::fmt::write");
        assert!(CPP_OPERATORS.iter().all(|name| shown(name).starts_with("operator ")));
    }
}
