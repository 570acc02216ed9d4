//! Which instructions this machine has.

use std::sync::OnceLock;

/// An instruction set, chosen once a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Whatever the compiler was told.
    Portable,
    /// AVX2, FMA and F16C.
    Avx2,
}

impl Level {
    /// The best that this machine runs.
    #[must_use]
    pub fn best() -> Self {
        static BEST: OnceLock<Level> = OnceLock::new();
        *BEST.get_or_init(|| {
            #[cfg(target_arch = "x86_64")]
            if is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c")
            {
                return Self::Avx2;
            }
            Self::Portable
        })
    }
}

/// Defines a function that runs an `#[inline(always)]` body in the version of a level.
macro_rules! versions {
    ($(#[$meta:meta])* pub(crate) fn $name:ident($($arg:ident: $ty:ty),* $(,)?) = $body:path) => {
        $(#[$meta])*
        pub(crate) fn $name(level: $crate::kernels::level::Level, $($arg: $ty),*) {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            fn avx2($($arg: $ty),*) {
                $body($($arg),*)
            }
            match level {
                #[cfg(target_arch = "x86_64")]
                // SAFETY: `Level::best` gives this level only where the features are there.
                $crate::kernels::level::Level::Avx2 => unsafe { avx2($($arg),*) },
                _ => $body($($arg),*),
            }
        }
    };
}
pub(crate) use versions;

#[cfg(test)]
impl Level {
    /// Every level that this machine can run, for comparing them.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        [Self::Portable, Self::Avx2].into_iter().filter(|&level| level <= Self::best())
    }
}
