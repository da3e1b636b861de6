//! Plain arrays for reference implementations: a shape and a vector, in f32 or f64, no cleverness.
//!
//! A family's reference is generic over [`Real`]. In f64 it is the oracle; in f32 it is the naive
//! implementation whose error sets the tolerance (see [`crate::compare`]).

use engine::random::Purpose;
use engine::{DType, Philox, Result, Tensor};
use half::bf16;
use std::fmt::Debug;
use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub};

/// f32 or f64.
pub trait Real:
    Copy
    + Debug
    + PartialOrd
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + Send
    + Sync
    + 'static
{
    /// Zero.
    const ZERO: Self;
    /// One.
    const ONE: Self;
    /// The nearest value to `x`.
    fn of(x: f64) -> Self;
    /// This value in f64.
    fn get(self) -> f64;
    /// e to this power.
    fn exp(self) -> Self;
    /// Natural logarithm.
    fn ln(self) -> Self;
    /// Square root.
    fn sqrt(self) -> Self;
    /// The larger of both.
    fn max(self, other: Self) -> Self {
        if other > self { other } else { self }
    }
    /// Magnitude.
    fn abs(self) -> Self {
        if self < Self::ZERO { -self } else { self }
    }
}

macro_rules! real {
    ($t:ty) => {
        impl Real for $t {
            const ZERO: $t = 0.0;
            const ONE: $t = 1.0;
            fn of(x: f64) -> $t {
                x as $t
            }
            fn get(self) -> f64 {
                self as f64
            }
            fn exp(self) -> $t {
                <$t>::exp(self)
            }
            fn ln(self) -> $t {
                <$t>::ln(self)
            }
            fn sqrt(self) -> $t {
                <$t>::sqrt(self)
            }
        }
    };
}
real!(f32);
real!(f64);

/// A dense row-major array.
#[derive(Debug, Clone, PartialEq)]
pub struct Array<T> {
    /// Size of each dimension.
    pub shape: Vec<usize>,
    /// Elements in row-major order.
    pub data: Vec<T>,
}

impl<T: Real> Array<T> {
    /// Zeros.
    pub fn zeros(shape: &[usize]) -> Array<T> {
        Array { shape: shape.to_vec(), data: vec![T::ZERO; shape.iter().product()] }
    }

    /// From values in row-major order. Their number must be the product of `shape`.
    pub fn new(shape: &[usize], data: Vec<T>) -> Array<T> {
        debug_assert_eq!(shape.iter().product::<usize>(), data.len());
        Array { shape: shape.to_vec(), data }
    }

    /// A scalar.
    pub fn scalar(x: T) -> Array<T> {
        Array { shape: Vec::new(), data: vec![x] }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// Position of an index in `data`.
    pub fn at(&self, index: &[usize]) -> usize {
        debug_assert_eq!(index.len(), self.shape.len());
        index.iter().zip(&self.shape).fold(0, |at, (&i, &n)| {
            debug_assert!(i < n);
            at * n + i
        })
    }

    /// Element at an index.
    pub fn get(&self, index: &[usize]) -> T {
        self.data[self.at(index)]
    }

    /// A function of each element.
    pub fn map(&self, f: impl Fn(T) -> T) -> Array<T> {
        Array { shape: self.shape.clone(), data: self.data.iter().map(|&x| f(x)).collect() }
    }

    /// A function of two arrays' elements. Their shapes must be equal.
    pub fn zip(&self, other: &Array<T>, f: impl Fn(T, T) -> T) -> Array<T> {
        debug_assert_eq!(self.shape, other.shape);
        let data = self.data.iter().zip(&other.data).map(|(&a, &b)| f(a, b)).collect();
        Array { shape: self.shape.clone(), data }
    }

    /// The same values in another precision.
    pub fn cast<U: Real>(&self) -> Array<U> {
        Array { shape: self.shape.clone(), data: self.data.iter().map(|&x| U::of(x.get())).collect() }
    }

    /// The values of an f32 or bf16 tensor, whatever its strides and device.
    pub fn from_tensor(x: &Tensor) -> Result<Array<T>> {
        let data = match x.dtype() {
            DType::BF16 => x.to_vec::<bf16>()?.into_iter().map(|v| T::of(v.to_f64())).collect(),
            _ => x.to_vec::<f32>()?.into_iter().map(|v| T::of(f64::from(v))).collect(),
        };
        Ok(Array { shape: x.shape().to_vec(), data })
    }

    /// The values rounded to an element type, bf16 or f32.
    pub fn rounded_to(&self, dtype: DType) -> Array<T> {
        match dtype {
            DType::BF16 => self.map(|x| T::of(bf16::from_f32(x.get() as f32).to_f64())),
            _ => self.map(|x| T::of(f64::from(x.get() as f32))),
        }
    }

    /// A CPU tensor with these values, rounded to bf16 or f32.
    pub fn to_tensor_of(&self, dtype: DType) -> Result<Tensor> {
        match dtype {
            DType::BF16 => {
                let data: Vec<bf16> = self.data.iter().map(|&x| bf16::from_f32(x.get() as f32)).collect();
                Tensor::from_slice(&data, &self.shape)
            }
            _ => self.to_tensor(),
        }
    }

    /// An f32 CPU tensor with these values, rounded.
    pub fn to_tensor(&self) -> Result<Tensor> {
        let data: Vec<f32> = self.data.iter().map(|&x| x.get() as f32).collect();
        Tensor::from_slice(&data, &self.shape)
    }

    /// Normal values times `scale`, exact in f32 so that every precision sees the same input.
    pub fn random(shape: &[usize], seed: u64, scale: f32) -> Array<T> {
        let mut g = Philox::new(seed, Purpose::Test, 0);
        let n = shape.iter().product();
        let data = (0..n).map(|_| T::of(f64::from(g.normal() * scale))).collect();
        Array { shape: shape.to_vec(), data }
    }

    /// Integers from -`limit` to `limit`: sums of their products are exact, so results must be equal.
    pub fn integers(shape: &[usize], seed: u64, limit: usize) -> Array<T> {
        let mut g = Philox::new(seed, Purpose::Test, 1);
        let n = shape.iter().product();
        let data = (0..n).map(|_| T::of(g.below(2 * limit + 1) as f64 - limit as f64)).collect();
        Array { shape: shape.to_vec(), data }
    }
}
