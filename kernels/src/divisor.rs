//! Division on the device by a number that the host knows: a multiplication and a shift.

use engine::{Error, Result};

/// `Divisor` of `common/divisor.cuh`, for numbers below 2^31.
#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Zeroable, bytemuck::Pod)]
pub(crate) struct Divisor {
    divisor: u32,
    multiplier: u32,
    shift: u32,
}
const _: () = assert!(size_of::<Divisor>() == 12);

impl Divisor {
    /// For divisors from 1 to 2^31 - 1; 0 is taken for 1, since a size of 0 leaves nothing to divide.
    ///
    /// With `l = ceil(log2 d)` and `m = floor(2^32 (2^l - d) / d) + 1`, the quotient of every `n < 2^31` is
    /// `(mulhi(n, m) + n) >> l` (Granlund and Montgomery, 1994, figure 4.1).
    #[track_caller]
    pub(crate) fn new(operation: &str, divisor: usize) -> Result<Divisor> {
        let divisor = side(operation, divisor)?.max(1);
        let shift = divisor.next_power_of_two().trailing_zeros();
        let multiplier =
            ((1u64 << 32) * ((1u64 << shift) - u64::from(divisor)) / u64::from(divisor) + 1) as u32;
        Ok(Divisor { divisor, multiplier, shift })
    }
}

/// A size that kernels count in 32 bits.
#[track_caller]
pub(crate) fn side(operation: &str, n: usize) -> Result<u32> {
    match n <= i32::MAX as usize {
        true => Ok(n as u32),
        false => {
            Err(Error::value(operation, "a size must be less than 2^31 on a CUDA device").with("size", n))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotients_are_exact() {
        let most = i32::MAX as u32;
        for d in (1..300).chain([1 << 16, (1 << 16) + 1, 12_345_678, 1 << 30, (1 << 30) + 1, most - 1, most])
        {
            let Divisor { divisor, multiplier, shift } = Divisor::new("test", d as usize).unwrap();
            let near = |n: u32| [n.saturating_sub(1), n, (n + 1).min(most)];
            for n in [0, d, d / 2, most, most / 2, most / d * d, most / d * d - d].into_iter().flat_map(near)
            {
                let high = ((u64::from(n) * u64::from(multiplier)) >> 32) as u32;
                assert_eq!((high + n) >> shift, n / divisor, "{n} / {d}");
            }
        }
        assert!(Divisor::new("test", 1 << 31).is_err());
    }
}
