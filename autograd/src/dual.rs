//! Dual numbers: a value and its derivative in one direction, for differentiating references.
//!
//! A reference generic over [`Real`] that runs on `Dual<f32>` gives the naive f32 derivative of the operation,
//! with no step size to choose; its error is the measure for the real backward pass.

use kernels::array::{Array, Real};
use std::cmp::Ordering;
use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub};

/// `value + tangent e` with `e^2 = 0`. Compares by value.
#[derive(Debug, Clone, Copy)]
pub struct Dual<T> {
    /// The number.
    pub value: T,
    /// Its derivative.
    pub tangent: T,
}

/// `x` moving in `direction`, or standing still.
pub fn moving<T: Real>(x: &Array<f64>, direction: Option<&Array<f64>>) -> Array<Dual<T>> {
    let tangent = |i: usize| direction.map_or(T::ZERO, |d| T::of(d.data[i]));
    let dual = |(i, &v): (usize, &f64)| Dual { value: T::of(v), tangent: tangent(i) };
    Array::new(&x.shape, x.data.iter().enumerate().map(dual).collect())
}

/// The derivative of each element, in f64.
pub fn tangents<T: Real>(x: &Array<Dual<T>>) -> Vec<f64> {
    x.data.iter().map(|d| d.tangent.get()).collect()
}

impl<T: Real> PartialEq for Dual<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl<T: Real> PartialOrd for Dual<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.value.partial_cmp(&other.value)
    }
}

impl<T: Real> Add for Dual<T> {
    type Output = Self;
    fn add(self, o: Self) -> Self {
        Dual { value: self.value + o.value, tangent: self.tangent + o.tangent }
    }
}

impl<T: Real> Sub for Dual<T> {
    type Output = Self;
    fn sub(self, o: Self) -> Self {
        Dual { value: self.value - o.value, tangent: self.tangent - o.tangent }
    }
}

impl<T: Real> Mul for Dual<T> {
    type Output = Self;
    fn mul(self, o: Self) -> Self {
        Dual { value: self.value * o.value, tangent: self.tangent * o.value + self.value * o.tangent }
    }
}

impl<T: Real> Div for Dual<T> {
    type Output = Self;
    fn div(self, o: Self) -> Self {
        let value = self.value / o.value;
        Dual { value, tangent: (self.tangent - value * o.tangent) / o.value }
    }
}

impl<T: Real> Neg for Dual<T> {
    type Output = Self;
    fn neg(self) -> Self {
        Dual { value: -self.value, tangent: -self.tangent }
    }
}

impl<T: Real> AddAssign for Dual<T> {
    fn add_assign(&mut self, o: Self) {
        *self = *self + o;
    }
}

impl<T: Real> Real for Dual<T> {
    const ZERO: Self = Dual { value: T::ZERO, tangent: T::ZERO };
    const ONE: Self = Dual { value: T::ONE, tangent: T::ZERO };

    /// A constant: it does not move.
    fn of(x: f64) -> Self {
        Dual { value: T::of(x), tangent: T::ZERO }
    }

    /// The value alone; what is computed from it does not move.
    fn get(self) -> f64 {
        self.value.get()
    }

    fn exp(self) -> Self {
        let value = self.value.exp();
        Dual { value, tangent: value * self.tangent }
    }

    fn ln(self) -> Self {
        Dual { value: self.value.ln(), tangent: self.tangent / self.value }
    }

    fn sqrt(self) -> Self {
        let value = self.value.sqrt();
        Dual { value, tangent: self.tangent / (value + value) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derivatives_of_every_function() {
        let x = Dual { value: 0.7f64, tangent: 1.0 };
        let two = Dual::of(2.0);
        let slopes: [(Dual<f64>, f64); 9] = [
            (x * x, 1.4),
            (two / x, -2.0 / 0.49),
            (x / two, 0.5),
            (two - x, -1.0),
            (-x + x + x, 1.0),
            (x.exp(), 0.7f64.exp()),
            (x.ln(), 1.0 / 0.7),
            (x.sqrt(), 0.5 / 0.7f64.sqrt()),
            ((x - two).abs().max(x), -1.0),
        ];
        for (i, (got, want)) in slopes.into_iter().enumerate() {
            assert!((got.tangent - want).abs() < 1e-15, "{i}: {got:?}, want {want}");
        }
    }
}
