//! Minimum and maximum of float32 and float64. PTX ISA 9.7.3.11 and 9.7.3.12: a NaN loses against a number unless `.NaN`
//! is given, two NaNs give the canonical one, -0 is less than +0.

use super::round::{CANONICAL_F32, CANONICAL_F64};

macro_rules! extrema {
    ($float:ty, $bits:ty, $signed:ty, $nan:expr, $suffix:literal, $order:ident, $pick:ident, $pick_nan:ident, $pick_xor:ident,
     $min:ident, $max:ident, $min_nan:ident, $max_nan:ident, $min_xor:ident, $max_xor:ident) => {
        /// The bits in an order that integers share: -0 before +0.
        #[inline(always)]
        fn $order(value: $float) -> $signed {
            let bits = value.to_bits() as $signed;
            bits ^ (((bits >> (<$bits>::BITS - 1)) as $bits) >> 1) as $signed
        }

        #[inline(always)]
        fn $pick(a: $float, b: $float, largest: bool) -> $float {
            let number = if ($order(a) < $order(b)) != largest { a } else { b };
            let a_or_number = if b.is_nan() { a } else { number };
            let picked = if a.is_nan() { b } else { a_or_number };
            if picked.is_nan() { <$float>::from_bits($nan) } else { picked }
        }

        #[inline(always)]
        fn $pick_nan(a: $float, b: $float, largest: bool) -> $float {
            let number = if ($order(a) < $order(b)) != largest { a } else { b };
            if a.is_nan() || b.is_nan() { <$float>::from_bits($nan) } else { number }
        }

        #[inline(always)]
        fn $pick_xor(a: $float, b: $float, largest: bool, nan_wins: bool) -> $float {
            let sign = (a.to_bits() ^ b.to_bits()) & (1 << (<$bits>::BITS - 1));
            let loses = $pick(a.abs(), b.abs(), largest);
            let picked = if nan_wins { $pick_nan(a.abs(), b.abs(), largest) } else { loses };
            let signed = <$float>::from_bits(picked.to_bits() | sign);
            if picked.is_nan() { picked } else { signed }
        }

        #[doc = concat!("`min.", $suffix, "`: NaN loses.")]
        #[inline(always)]
        pub fn $min(a: $float, b: $float) -> $float {
            $pick(a, b, false)
        }

        #[doc = concat!("`max.", $suffix, "`: NaN loses.")]
        #[inline(always)]
        pub fn $max(a: $float, b: $float) -> $float {
            $pick(a, b, true)
        }

        #[doc = concat!("`min.NaN.", $suffix, "`: NaN wins and is canonical.")]
        #[inline(always)]
        pub fn $min_nan(a: $float, b: $float) -> $float {
            $pick_nan(a, b, false)
        }

        #[doc = concat!("`max.NaN.", $suffix, "`: NaN wins and is canonical.")]
        #[inline(always)]
        pub fn $max_nan(a: $float, b: $float) -> $float {
            $pick_nan(a, b, true)
        }

        #[doc = concat!("`min{.NaN}.xorsign.abs.", $suffix, "`: of the magnitudes, with the product of the signs.")]
        #[inline(always)]
        pub fn $min_xor(a: $float, b: $float, nan_wins: bool) -> $float {
            $pick_xor(a, b, false, nan_wins)
        }

        #[doc = concat!("`max{.NaN}.xorsign.abs.", $suffix, "`: of the magnitudes, with the product of the signs.")]
        #[inline(always)]
        pub fn $max_xor(a: $float, b: $float, nan_wins: bool) -> $float {
            $pick_xor(a, b, true, nan_wins)
        }
    };
}

extrema!(
    f32,
    u32,
    i32,
    CANONICAL_F32,
    "f32",
    order_f32,
    pick_f32,
    pick_nan_f32,
    pick_xorsign_f32,
    min_f32,
    max_f32,
    min_nan_f32,
    max_nan_f32,
    min_xorsign_f32,
    max_xorsign_f32
);
extrema!(
    f64,
    u64,
    i64,
    CANONICAL_F64,
    "f64",
    order_f64,
    pick_f64,
    pick_nan_f64,
    pick_xorsign_f64,
    min_f64,
    max_f64,
    min_nan_f64,
    max_nan_f64,
    min_xorsign_f64,
    max_xorsign_f64
);
