//! Which instruction set runs: chosen once at load, carried by value.
//!
//! Invariant: an [`Isa`] above portable exists only after the processor said that it has it, so code
//! that holds one may call the functions compiled for it.

/// An instruction set this processor has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Isa(Level);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX2 with int8 dot products.
    #[cfg(target_arch = "x86_64")]
    AvxVnni,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// AVX-512 with int8 dot products.
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
}

impl Isa {
    /// All that this processor has, fastest first; the last is always the portable one.
    #[cfg_attr(not(target_arch = "x86_64"), allow(clippy::vec_init_then_push))]
    pub fn available() -> Vec<Isa> {
        let mut found = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            let fma = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            let v4 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            if fma && v4 && is_x86_feature_detected!("avx512vnni") {
                found.push(Isa(Level::Avx512Vnni));
            }
            if fma && v4 {
                found.push(Isa(Level::Avx512));
            }
            if fma && is_x86_feature_detected!("avxvnni") {
                found.push(Isa(Level::AvxVnni));
            }
            if fma {
                found.push(Isa(Level::Avx2));
            }
        }
        found.push(Isa(Level::Portable));
        found
    }

    /// The fastest that this processor has.
    pub fn best() -> Isa {
        Self::available()[0]
    }

    pub fn name(self) -> &'static str {
        match self.0 {
            Level::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => "AVX2+FMA",
            #[cfg(target_arch = "x86_64")]
            Level::AvxVnni => "AVX2+FMA+VNNI",
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => "AVX-512",
            #[cfg(target_arch = "x86_64")]
            Level::Avx512Vnni => "AVX-512+VNNI",
        }
    }

    /// Whether it has int8 dot products: several times the rate of f32.
    pub fn has_vnni(self) -> bool {
        match self.0 {
            Level::Portable => false,
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 | Level::Avx512 => false,
            #[cfg(target_arch = "x86_64")]
            Level::AvxVnni | Level::Avx512Vnni => true,
        }
    }

    pub(super) fn level(self) -> Level {
        self.0
    }
}

/// Defines `$name(isa, …)`, which runs `$body::<FMA>(…)` compiled for the given instruction set. The
/// body is `#[inline(always)]` scalar code over lanes that the compiler vectorises; `FMA` says whether
/// `mul_add` is one instruction there.
macro_rules! per_isa {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) = $body:ident) => {
        $(#[$doc])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name(isa: $crate::backend::cpu::isa::Isa, $($arg: $ty),*) {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
            fn avx512($($arg: $ty),*) {
                $body::<true>($($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2($($arg: $ty),*) {
                $body::<true>($($arg),*)
            }
            match isa.level() {
                $crate::backend::cpu::isa::Level::Portable => $body::<false>($($arg),*),
                #[cfg(target_arch = "x86_64")]
                // SAFETY: the level exists only after detection (see Isa).
                $crate::backend::cpu::isa::Level::Avx2 | $crate::backend::cpu::isa::Level::AvxVnni => unsafe { avx2($($arg),*) },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: as above.
                $crate::backend::cpu::isa::Level::Avx512 | $crate::backend::cpu::isa::Level::Avx512Vnni => unsafe {
                    avx512($($arg),*)
                },
            }
        }
    };
}
pub(super) use per_isa;

/// Added to numbers below 2^22: rounds them to integers, which are then in the low bits.
pub(super) const ROUND: f32 = 12_582_912.0;

/// a·b + c, in one rounding where the instruction set does that at full speed.
#[inline(always)]
pub(super) fn mul_add<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// All lanes as one, half by half: a chain of log2(N) steps, not N. N is 8 or a multiple of 16.
#[inline(always)]
pub(super) fn reduce<const N: usize, T: Copy>(lanes: [T; N], step: impl Fn(T, T) -> T) -> T {
    // An array per width, each loop of a length known here: vectors and halves of them.
    let mut eight = [lanes[0]; 8];
    if let Some((first, rest)) = lanes.as_chunks::<16>().0.split_first() {
        let mut all = *first;
        for part in rest {
            for i in 0..16 {
                all[i] = step(all[i], part[i]);
            }
        }
        for i in 0..8 {
            eight[i] = step(all[i], all[i + 8]);
        }
    } else {
        eight.copy_from_slice(&lanes);
    }
    let mut four = [eight[0]; 4];
    for i in 0..4 {
        four[i] = step(eight[i], eight[i + 4]);
    }
    step(step(four[0], four[2]), step(four[1], four[3]))
}
