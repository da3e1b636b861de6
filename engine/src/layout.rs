//! Shapes and strides: how a tensor's index maps to an element of its storage.

use crate::{Error, Result};

/// The largest number of dimensions a tensor can have.
pub const MAX_RANK: usize = 6;

/// Sizes, strides and offset of a tensor, in elements. Inline and `Copy`: no heap.
///
/// Element `[i0, i1, ...]` lies at `offset + i0*strides[0] + i1*strides[1] + ...`. A stride of 0 repeats
/// the same elements (`expand`).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    rank: u8,
    dims: [usize; MAX_RANK],
    strides: [usize; MAX_RANK],
    offset: usize,
}

impl std::fmt::Debug for Layout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} strides {:?} offset {}", self.dims(), self.strides(), self.offset)
    }
}

impl Layout {
    /// Row-major layout without gaps: the last dimension varies fastest.
    ///
    /// Errors if there are more than [`MAX_RANK`] dimensions or the element count overflows.
    #[track_caller]
    pub fn contiguous(shape: &[usize]) -> Result<Layout> {
        if shape.len() > MAX_RANK {
            return Err(Error::shape("layout", format!("at most {MAX_RANK} dimensions")).with("shape", shape));
        }
        let mut dims = [1; MAX_RANK];
        let mut strides = [0; MAX_RANK];
        dims[..shape.len()].copy_from_slice(shape);
        let mut step = 1usize;
        for i in (0..shape.len()).rev() {
            strides[i] = step;
            step = step
                .checked_mul(shape[i].max(1))
                .filter(|&n| n <= isize::MAX as usize / 8)
                .ok_or_else(|| Error::shape("layout", "too many elements").with("shape", shape))?;
        }
        Ok(Layout { rank: shape.len() as u8, dims, strides, offset: 0 })
    }

    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.rank as usize
    }

    /// Size of each dimension.
    pub fn dims(&self) -> &[usize] {
        &self.dims[..self.rank()]
    }

    /// Step of each dimension, in elements.
    pub fn strides(&self) -> &[usize] {
        &self.strides[..self.rank()]
    }

    /// Index of the first element.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// Number of elements, expanded ones counted.
    pub fn len(&self) -> usize {
        self.dims().iter().product()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the elements lie one after another in row-major order (any offset).
    pub fn is_contiguous(&self) -> bool {
        let mut step = 1;
        for i in (0..self.rank()).rev() {
            if self.dims[i] != 1 && self.strides[i] != step {
                return self.is_empty();
            }
            step *= self.dims[i];
        }
        true
    }

    /// The same elements under another shape, without moving them; `None` if strides do not allow it.
    pub fn reshape(&self, shape: &[usize]) -> Result<Option<Layout>> {
        let mut new = Layout::contiguous(shape)?;
        if new.len() != self.len() {
            return Err(Error::shape(
                "reshape",
                format!("{} elements cannot become {}", self.len(), new.len()),
            )
            .with("from", self.dims())
            .with("to", shape));
        }
        new.offset = self.offset;
        if self.is_contiguous() {
            return Ok(Some(new));
        }
        // Match runs of old dimensions with runs of new ones that hold equally many elements; inside a run
        // the old strides must nest.
        let old: Vec<(usize, usize)> = (0..self.rank())
            .filter(|&i| self.dims[i] != 1)
            .map(|i| (self.dims[i], self.strides[i]))
            .collect();
        let (mut i, mut j) = (0, 0);
        while i < old.len() {
            let (start, mut have) = (i, old[i].0);
            let first = j;
            let mut want = 1;
            while want != have {
                if want < have {
                    want *= shape[j];
                    j += 1;
                } else {
                    i += 1;
                    have *= old[i].0;
                }
            }
            if (start..i).any(|k| old[k].1 != old[k + 1].0 * old[k + 1].1) {
                return Ok(None);
            }
            let mut step = old[i].1;
            for k in (first..j).rev() {
                new.strides[k] = step;
                step *= shape[k];
            }
            i += 1;
        }
        Ok(Some(new))
    }

    /// Dimensions in the given order; `order` must name each once.
    #[track_caller]
    pub fn permute(&self, order: &[usize]) -> Result<Layout> {
        let mut seen = [false; MAX_RANK];
        let valid = order.len() == self.rank()
            && order.iter().all(|&d| d < self.rank() && !std::mem::replace(&mut seen[d], true));
        if !valid {
            return Err(Error::shape("permute", "the order must name every dimension once")
                .with("shape", self.dims())
                .with("order", order));
        }
        let mut new = *self;
        for (i, &d) in order.iter().enumerate() {
            new.dims[i] = self.dims[d];
            new.strides[i] = self.strides[d];
        }
        Ok(new)
    }

    /// Elements `start .. start + len` of dimension `dim`.
    #[track_caller]
    pub fn narrow(&self, dim: usize, start: usize, len: usize) -> Result<Layout> {
        if dim >= self.rank() || start.checked_add(len).is_none_or(|end| end > self.dims[dim]) {
            return Err(Error::shape("narrow", format!("{start}..{start}+{len} is outside dimension {dim}"))
                .with("shape", self.dims()));
        }
        let mut new = *self;
        new.dims[dim] = len;
        new.offset += start * self.strides[dim];
        Ok(new)
    }

    /// Repeats dimensions of size 1 (and missing leading ones) to `shape`, without copying.
    #[track_caller]
    pub fn expand(&self, shape: &[usize]) -> Result<Layout> {
        let mut new = Layout::contiguous(shape)?;
        let lead = shape.len().checked_sub(self.rank());
        let fits = lead.is_some_and(|lead| {
            (0..self.rank()).all(|i| self.dims[i] == shape[lead + i] || self.dims[i] == 1)
        });
        let (true, Some(lead)) = (fits, lead) else {
            return Err(Error::shape("expand", "each dimension must be equal or 1")
                .with("from", self.dims())
                .with("to", shape));
        };
        new.offset = self.offset;
        for i in 0..shape.len() {
            let own = i.checked_sub(lead).filter(|&k| self.dims[k] == shape[i]);
            new.strides[i] = own.map_or(0, |k| self.strides[k]);
        }
        Ok(new)
    }

    /// Calls `f` with the storage index of every element, in row-major order of the tensor's index.
    pub fn for_each_index(&self, mut f: impl FnMut(usize)) {
        if self.is_empty() {
            return;
        }
        let rank = self.rank();
        let mut index = [0usize; MAX_RANK];
        let mut at = self.offset;
        loop {
            f(at);
            let mut d = rank;
            loop {
                if d == 0 {
                    return;
                }
                d -= 1;
                index[d] += 1;
                at += self.strides[d];
                if index[d] < self.dims[d] {
                    break;
                }
                at -= self.strides[d] * self.dims[d];
                index[d] = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn indices(l: &Layout) -> Vec<usize> {
        let mut v = Vec::new();
        l.for_each_index(|i| v.push(i));
        v
    }

    #[test]
    fn contiguous_counts_up() {
        let l = Layout::contiguous(&[2, 3]).unwrap();
        assert_eq!(indices(&l), (0..6).collect::<Vec<_>>());
        assert_eq!(indices(&Layout::contiguous(&[]).unwrap()), [0]);
        assert!(indices(&Layout::contiguous(&[2, 0]).unwrap()).is_empty());
    }

    #[test]
    fn expand_and_narrow() {
        let l = Layout::contiguous(&[3]).unwrap().expand(&[2, 3]).unwrap();
        assert_eq!(indices(&l), [0, 1, 2, 0, 1, 2]);
        assert_eq!(indices(&l.narrow(1, 1, 2).unwrap()), [1, 2, 1, 2]);
        assert!(l.narrow(1, 2, 2).is_err());
        assert!(l.narrow(0, usize::MAX, 2).is_err());
        assert!(Layout::contiguous(&[2]).unwrap().expand(&[3]).is_err());
        assert!(Layout::contiguous(&[1; 7]).is_err());
        assert!(Layout::contiguous(&[usize::MAX, 2]).is_err());
    }

    proptest! {
        /// A reshape that needs no copy visits the same storage indices in the same order.
        #[test]
        fn reshape_keeps_the_order(dims in prop::collection::vec(1usize..5, 1..4), swap in any::<bool>(),
                                   cut in any::<bool>(), split in 0usize..24) {
            let mut l = Layout::contiguous(&dims).unwrap();
            if swap { let mut o: Vec<usize> = (0..dims.len()).collect(); o.reverse(); l = l.permute(&o).unwrap(); }
            if cut && l.dims()[0] > 1 { l = l.narrow(0, 1, l.dims()[0] - 1).unwrap(); }
            let n = l.len();
            let divisors: Vec<usize> = (1..=n).filter(|d| n.is_multiple_of(*d)).collect();
            let a = divisors[split % divisors.len()];
            for shape in [vec![n], vec![a, n / a], vec![a, 1, n / a]] {
                if let Some(new) = l.reshape(&shape).unwrap() {
                    prop_assert_eq!(indices(&new), indices(&l));
                } else {
                    prop_assert!(!l.is_contiguous());
                }
            }
        }
    }
}
