//! Chooses the instruction set of the hot loops at run time.

/// An instruction set that this machine is known to have: only [`Level::detect`] makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Level(Kind);

/// Instruction sets the hot loops are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// What the build targets.
    Base,
    /// AVX2 with fused multiply-add.
    Avx2,
    /// AVX-512 with byte, word and vector-length extensions.
    Avx512,
}

impl Level {
    /// The best level of this machine.
    pub(crate) fn detect() -> Level {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("bmi2")
                && is_x86_feature_detected!("lzcnt")
                && is_x86_feature_detected!("popcnt")
                && is_x86_feature_detected!("f16c");
            let avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512cd")
                && is_x86_feature_detected!("avx512vl");
            match (avx2, avx512) {
                (true, true) => return Level(Kind::Avx512),
                (true, false) => return Level(Kind::Avx2),
                _ => {}
            }
        }
        Level(Kind::Base)
    }

    /// The portable version, to compare the others with.
    #[cfg(test)]
    pub(crate) fn base() -> Level {
        Level(Kind::Base)
    }

    /// Every level of this machine, the portable one first.
    #[cfg(test)]
    pub(crate) fn all() -> Vec<Level> {
        match Level::detect().kind() {
            Kind::Base => vec![Level(Kind::Base)],
            Kind::Avx2 => vec![Level(Kind::Base), Level(Kind::Avx2)],
            Kind::Avx512 => vec![Level(Kind::Base), Level(Kind::Avx2), Level(Kind::Avx512)],
        }
    }

    /// Which version to run.
    pub(crate) fn kind(self) -> Kind {
        self.0
    }
}

/// One function, compiled by [`versions!`].
#[derive(Debug)]
pub(crate) struct Versions<F> {
    pub(crate) base: F,
    pub(crate) avx2: F,
    pub(crate) avx512: F,
}

impl<F: Copy> Versions<F> {
    /// The version for `level`.
    #[inline(always)]
    pub(crate) fn of(&self, level: Level) -> F {
        match level.kind() {
            Kind::Base => self.base,
            Kind::Avx2 => self.avx2,
            Kind::Avx512 => self.avx512,
        }
    }
}

/// The [`Versions`] of an `#[inline(always)]` body, as pointers to unsafe functions. The body's argument says whether it
/// is to be small rather than fast: x86 processors without AVX2 are old, and vectors for them take the compiler longest.
macro_rules! versions {
    (fn($($arg:ident: $ty:ty),*) = $($body:ident)::+) => {{
        #[cfg(target_arch = "x86_64")]
        {
            #[target_feature(enable = "avx2,fma,bmi1,bmi2,lzcnt,popcnt,f16c")]
            fn avx2($($arg: $ty),*) { $($body)::+::<false>($($arg),*) }
            #[target_feature(enable = "avx2,fma,bmi1,bmi2,lzcnt,popcnt,f16c,avx512f,avx512bw,avx512dq,avx512cd,avx512vl")]
            fn avx512($($arg: $ty),*) { $($body)::+::<false>($($arg),*) }
            $crate::machine::simd::Versions { base: $($body)::+::<true>, avx2, avx512 }
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            let base = $($body)::+::<false>;
            $crate::machine::simd::Versions { base, avx2: base, avx512: base }
        }
    }};
}
pub(crate) use versions;

/// Defines a function that runs an `#[inline(always)]` body compiled for the chosen [`Level`]. With
/// `avx512: other`, the function `other` takes its place there; it needs no feature that is not named below.
macro_rules! dispatch {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $body:expr;) => {
        $crate::machine::simd::dispatch! {
            $(#[$meta])* $vis fn $name($($arg: $ty),*) $(-> $ret)? = $body, avx512: $body;
        }
    };
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $body:expr, avx512: $wide:expr;) => {
        $(#[$meta])*
        #[inline]
        $vis fn $name(level: Level, $($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma,bmi1,bmi2,lzcnt,popcnt,f16c")]
                fn avx2($($arg: $ty),*) $(-> $ret)? { $body($($arg),*) }
                #[target_feature(enable = "avx2,fma,bmi1,bmi2,lzcnt,popcnt,f16c,avx512f,avx512bw,avx512dq,avx512cd,avx512vl")]
                fn avx512($($arg: $ty),*) $(-> $ret)? { $wide($($arg),*) }
                match level.kind() {
                    // SAFETY: a `Level` of this kind exists only after the processor
                    // reported every feature named above.
                    $crate::machine::simd::Kind::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: as above, for the AVX2 set.
                    $crate::machine::simd::Kind::Avx2 => return unsafe { avx2($($arg),*) },
                    $crate::machine::simd::Kind::Base => {}
                }
            }
            #[cfg(not(target_arch = "x86_64"))]
            let _ = level;
            $body($($arg),*)
        }
    };
}
pub(crate) use dispatch;
