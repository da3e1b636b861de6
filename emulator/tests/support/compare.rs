//! What a buffer must hold after a launch.

use half::bf16;

/// The type of a buffer's elements.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Element {
    /// IEEE single precision.
    F32,
    /// bfloat16.
    Bf16,
}

/// Elements with what each may be wrong by.
pub type Bounded = Vec<(f64, f64)>;

/// What a buffer must hold after a launch.
#[derive(Clone, PartialEq, Debug)]
pub enum Expected {
    /// Nothing is asked: scratch space.
    Any,
    /// These bytes.
    Exact(Vec<u8>),
    /// These bytes at these offsets; the rest is not asked.
    Pieces(Vec<(usize, Vec<u8>)>),
    /// Each element within its bound of its value; a bound of zero asks for the value.
    Close(Element, Bounded),
}

impl Expected {
    /// Says what is wrong with the bytes, if anything is.
    pub fn check(&self, bytes: &[u8]) -> Result<(), String> {
        match self {
            Expected::Any => Ok(()),
            Expected::Exact(want) => same(want, bytes, 0),
            Expected::Pieces(pieces) => pieces
                .iter()
                .try_for_each(|(offset, want)| same(want, &bytes[*offset..*offset + want.len()], *offset)),
            Expected::Close(element, values) => close(*element, values, bytes),
        }
    }
}

fn same(want: &[u8], got: &[u8], offset: usize) -> Result<(), String> {
    assert_eq!(want.len(), got.len(), "the reference has another size than the buffer");
    let Some(first) = (0..want.len()).find(|&i| want[i] != got[i]) else { return Ok(()) };
    let word = first / 4 * 4;
    let hex = |bytes: &[u8]| {
        bytes[word..bytes.len().min(word + 4)].iter().rev().fold(String::new(), |s, b| format!("{s}{b:02x}"))
    };
    let wrong = (0..want.len()).filter(|&i| want[i] != got[i]).count();
    Err(format!(
        "{wrong} of {} bytes differ, first in the word at byte {}: {} instead of {}",
        want.len(),
        offset + word,
        hex(got),
        hex(want)
    ))
}

fn close(element: Element, values: &[(f64, f64)], bytes: &[u8]) -> Result<(), String> {
    let got: Vec<f64> = match element {
        Element::F32 => bytes.as_chunks::<4>().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect(),
        Element::Bf16 => {
            bytes.as_chunks::<2>().0.iter().map(|b| f64::from(bf16::from_le_bytes(*b))).collect()
        }
    };
    assert_eq!(got.len(), values.len(), "the reference has another size than the buffer");
    // Written so that a NaN is wrong.
    let right = |i: usize| got[i] == values[i].0 || (got[i] - values[i].0).abs() <= values[i].1;
    let Some(first) = (0..got.len()).find(|&i| !right(i)) else { return Ok(()) };
    let wrong = (0..got.len()).filter(|&i| !right(i)).count();
    let (want, bound) = values[first];
    Err(format!(
        "{wrong} of {} elements are wrong, first element {first}: {:e} instead of {want:e}, allowed {bound:e}",
        got.len(),
        got[first]
    ))
}

/// The little-endian bytes of numbers, as device memory holds them.
pub trait Bytes {
    /// The bytes.
    fn bytes(&self) -> Vec<u8>;
}

macro_rules! numbers {
    ($($number:ty),*) => {$(
        impl Bytes for $number {
            fn bytes(&self) -> Vec<u8> {
                self.to_le_bytes().to_vec()
            }
        }
    )*};
}
numbers!(u16, i32, u32, i64, u64, f32, bf16);

impl<T: Bytes> Bytes for [T] {
    fn bytes(&self) -> Vec<u8> {
        self.iter().flat_map(Bytes::bytes).collect()
    }
}
