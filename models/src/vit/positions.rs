//! Where tokens are: learned vectors or fixed sines and cosines, at any number of patches.

use crate::{Initializer, Position};
use autograd::module::{Path, Visitor};
use autograd::param::Role;
use autograd::{Buffer, Module, Param, Var, ops};
use engine::{DType, Error, Result, Tensor};
use kernels::augment::{Interpolation, resize_weights};

use super::weights::STD;

/// One vector a patch, and one for the class token where there are no registers.
enum Table {
    Learned(Param),
    Fixed(Buffer),
}

/// Vectors that are added to tokens: `pos_embed` [1, prefix + L, D] in state dicts.
pub(crate) struct Positions {
    table: Table,
    grid: [usize; 2],
    prefix: usize,
    name: &'static str,
    /// Resizing as matrices [L', L], for each size that a forward pass asked for.
    resized: Vec<([usize; 2], Tensor)>,
}

/// What is added in a forward pass.
pub(crate) struct Added {
    /// To the class token [1, 1, D].
    pub class: Option<Var>,
    /// To the patches of each image [L D].
    pub patches: Var,
}

impl Positions {
    /// For `grid` rows and columns of patches, and for a class token in front of them if `class`.
    ///
    /// Errors if the fixed ones are asked for in a width that is no multiple of 4.
    #[track_caller]
    pub fn new(
        kind: Position,
        grid: [usize; 2],
        class: bool,
        width: usize,
        name: &'static str,
        init: &Initializer,
    ) -> Result<Positions> {
        let prefix = usize::from(class);
        let shape = [1, prefix + grid[0] * grid[1], width];
        let table = match kind {
            Position::Learned => {
                Table::Learned(Param::new(init.normal("pos_embed", &shape, STD)?, Role::Token))
            }
            Position::Sincos => {
                let mut values = vec![0f32; prefix * width];
                values.extend(sincos(grid, width)?);
                Table::Fixed(Buffer::new(Tensor::from_slice(&values, &shape)?))
            }
        };
        Ok(Positions { table, grid, prefix, name, resized: Vec::new() })
    }

    /// What is added to tokens of type `dtype` of `grid` rows and columns of patches. At another grid than the own one the
    /// patches' vectors are resized (bicubic, antialiased, as torch's `interpolate(antialias=True)`), with their gradient;
    /// the matrix for it is made once for each size.
    pub fn forward(&mut self, grid: [usize; 2], dtype: DType) -> Result<Added> {
        let all = match &self.table {
            Table::Learned(param) => param.var(),
            Table::Fixed(buffer) => Var::constant(buffer.value().clone()),
        };
        let [len, width] = [self.grid[0] * self.grid[1], all.shape()[2]];
        let class = match self.prefix {
            0 => None,
            _ => Some(ops::cast(&ops::narrow(&all, 1, 0, 1)?, dtype)?),
        };
        let mut patches = ops::reshape(&ops::narrow(&all, 1, self.prefix, len)?, &[len, width])?;
        if grid != self.grid {
            let matrix = Var::constant(self.matrix(grid, all.value().device())?);
            patches = ops::matmul(&matrix, &patches, false, false)?;
        }
        let patches = ops::cast(&ops::reshape(&patches, &[grid[0] * grid[1] * width])?, dtype)?;
        Ok(Added { class, patches })
    }

    /// The matrix [L', L] that resizes to `grid`: the Kronecker product of both directions'.
    fn matrix(&mut self, grid: [usize; 2], device: engine::Device) -> Result<Tensor> {
        let found = self.resized.iter().find(|(size, matrix)| *size == grid && matrix.device() == device);
        if let Some((_, matrix)) = found {
            return Ok(matrix.clone());
        }
        let [rows, columns] = [0, 1].map(|d| resize_weights(self.grid[d], grid[d], Interpolation::Bicubic));
        let mut values = Vec::with_capacity(grid[0] * grid[1] * self.grid[0] * self.grid[1]);
        for row in rows.chunks_exact(self.grid[0]) {
            for column in columns.chunks_exact(self.grid[1]) {
                values.extend(row.iter().flat_map(|r| column.iter().map(move |c| r * c)));
            }
        }
        let shape = [grid[0] * grid[1], self.grid[0] * self.grid[1]];
        let matrix = Tensor::constant(&values, &shape, device)?;
        self.resized.push((grid, matrix.clone()));
        Ok(matrix)
    }
}

impl Module for Positions {
    fn visit<'a>(&'a mut self, path: &Path, visitor: &mut dyn Visitor<'a>) {
        match &mut self.table {
            Table::Learned(param) => visitor.param(path.name(self.name), param),
            Table::Fixed(buffer) => visitor.buffer(path.name(self.name), buffer),
        }
    }
}

/// Fixed positions [L, width], row by row: sines, then cosines, of a patch's column times width / 4 frequencies from 1 down
/// to 1 / 10000, then the same of its row.
///
/// The first half encodes the column although MAE's code calls it `h`: its `meshgrid` takes columns first, and weights that
/// were trained with it need this order.
fn sincos(grid: [usize; 2], width: usize) -> Result<Vec<f32>> {
    if !width.is_multiple_of(4) {
        let text = "fixed positions need a width that is a multiple of 4";
        return Err(Error::value("vit", text).with("width", width));
    }
    let quarter = width / 4;
    let frequency = |i: usize| 10000f64.powf(-(i as f64) / quarter as f64);
    let mut values = Vec::with_capacity(grid[0] * grid[1] * width);
    for row in 0..grid[0] {
        for column in 0..grid[1] {
            for place in [column, row] {
                let angles = (0..quarter).map(|i| place as f64 * frequency(i));
                values.extend(angles.clone().map(|angle| angle.sin() as f32));
                values.extend(angles.map(|angle| angle.cos() as f32));
            }
        }
    }
    Ok(values)
}
