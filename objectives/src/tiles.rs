//! Tiles of images: three rows of three, each cut at random from a cell of a grid, for jigsaw and relative position.
//!
//! Between tiles there is a gap that differs from pair to pair, so that lines which go on across a border, the easiest cue of
//! where tiles belong, do not: Doersch et al. 2015, section 3.1; Noroozi and Favaro 2016, section 4.2. Places are drawn on the
//! host and tiles are cut on the device, which moves pixels and does nothing else.

use crate::settings::{at_least_one, require};
use engine::{DType, Error, ErrorKind, Philox, Result, Tensor};
use kernels::augment::Recipe;
use kernels::{copy, norm};
use models::Encoder;
use serde::Deserialize;

/// Tiles of an image, in row-major order: 4 is the centre.
pub const TILES: usize = 9;
/// Added to the variance of a tile. One of a single value becomes zero.
const EPS: f32 = 1e-5;

/// The settings of tiles, a table such as `[settings.tiles]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TileSettings {
    /// Rows and columns of a cell, pixels; 0 is a third of the view. Where three cells leave pixels over, the grid lies anywhere.
    pub cell: usize,
    /// Rows and columns of a tile, pixels.
    pub size: usize,
    /// By how many pixels a tile's place in its cell differs, along each side: at most `cell - size`. The gap between two tiles
    /// is `cell - size` on average and at least `cell - size - jitter`.
    pub jitter: usize,
    /// By how many pixels, at most, each colour channel of a tile is moved by itself: against chromatic aberration, which tells
    /// where in a photo a tile was. On grey images it does nothing.
    pub channel_shift: usize,
    /// Whether each channel of each tile is normalised by its own mean and deviation.
    pub normalize: bool,
}

/// Where tiles can be in a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    view: [usize; 2],
    channels: usize,
    cell: usize,
    tiles: TileSettings,
}

impl Grid {
    /// The grid on views that `recipe` makes. Errors name the field of `settings.tiles` and what it must be.
    #[track_caller]
    pub fn new(method: &str, tiles: TileSettings, recipe: &Recipe, channels: usize) -> Result<Grid> {
        let view = [recipe.height, recipe.width];
        let side = recipe.height.min(recipe.width);
        let cell = if tiles.cell == 0 { side / 3 } else { tiles.cell };
        require(
            method,
            &[
                at_least_one("tiles.size", tiles.size),
                (
                    3 * cell <= side,
                    format!("tiles.cell must be at most a third of the view's {side} pixels, not {cell}"),
                ),
                (
                    tiles.size <= cell,
                    format!("tiles.size must be at most the cell's {cell} pixels, not {}", tiles.size),
                ),
                (
                    tiles.jitter <= cell.saturating_sub(tiles.size),
                    format!(
                        "tiles.jitter must be at most what the tile leaves of its cell, {}, not {}",
                        cell.saturating_sub(tiles.size),
                        tiles.jitter
                    ),
                ),
            ],
        )?;
        Ok(Grid { view, channels, cell, tiles })
    }

    /// An error if `encoder` cannot see tiles of this size.
    #[track_caller]
    pub fn require_encoder(&self, method: &str, encoder: &mut dyn Encoder) -> Result<()> {
        let size = self.tiles.size;
        match encoder.vit().map(|vit| vit.spec().patch) {
            Some(patch) if !size.is_multiple_of(patch) => {
                let text =
                    format!("tiles.size {size} is no whole number of the encoder's patches of {patch}");
                Err(Error::new(ErrorKind::Usage, format!("{method} settings"), text))
            }
            _ => Ok(()),
        }
    }

    /// Where each channel of each tile of `batch` views is cut: i32 [B 9 C, 3], the plane among [B C], row and column.
    pub fn draw(&self, random: &mut Philox, batch: usize) -> Result<Tensor> {
        let TileSettings { size, jitter, channel_shift, .. } = self.tiles;
        let shift = if self.channels > 1 { channel_shift } else { 0 };
        let middle = (self.cell - size - jitter) / 2;
        let mut at = Vec::with_capacity(batch * TILES * self.channels * 3);
        for image in 0..batch {
            let origin = self.view.map(|side| random.below(side - 3 * self.cell + 1));
            for tile in 0..TILES {
                let cell = [tile / 3, tile % 3];
                let place =
                    [0, 1].map(|d| origin[d] + cell[d] * self.cell + middle + random.below(jitter + 1));
                for channel in 0..self.channels {
                    let moved = [0, 1].map(|d| {
                        let by = random.below(2 * shift + 1);
                        (place[d] + by).saturating_sub(shift).min(self.view[d] - size) as i32
                    });
                    at.extend([(image * self.channels + channel) as i32, moved[0], moved[1]]);
                }
            }
        }
        Tensor::from_slice(&at, &[at.len() / 3, 3])
    }

    /// The tiles of views [B, H, W, C] at places of [`Grid::draw`], a plane a channel, [B 9 C, size, size] in f32; normalised
    /// if the settings say so.
    #[track_caller]
    pub fn cut(&self, views: &Tensor, at: &Tensor) -> Result<Tensor> {
        let [height, width] = self.view;
        let batch = views.shape().first().copied().unwrap_or(0);
        views.require_shape("tiles", "views", &[batch, height, width, self.channels])?;
        let planes = copy::contiguous(&views.permute(&[0, 3, 1, 2])?)?;
        let planes = planes.reshape(&[batch * self.channels, height, width])?;
        let size = self.tiles.size;
        let tiles = copy::cast(&copy::windows(&planes, at, [size, size])?, DType::F32)?;
        match self.tiles.normalize {
            true => normalized(&tiles),
            false => Ok(tiles),
        }
    }

    /// Planes [N C, size, size] as images [N, size, size, C] of `dtype`.
    #[track_caller]
    pub fn images(&self, planes: &Tensor, dtype: DType) -> Result<Tensor> {
        let (size, channels) = (self.tiles.size, self.channels);
        let planes = planes.reshape(&[planes.len() / (size * size * channels), channels, size, size])?;
        copy::cast(&copy::contiguous(&planes.permute(&[0, 2, 3, 1])?)?, dtype)
    }

    /// Rows and columns of a tile.
    pub fn size(&self) -> usize {
        self.tiles.size
    }

    /// Channels of a tile.
    pub fn channels(&self) -> usize {
        self.channels
    }
}

/// Planes [N, h, w], each by its own mean and (biased) deviation.
#[track_caller]
pub fn normalized(planes: &Tensor) -> Result<Tensor> {
    let &[count, rows, columns] = planes.shape() else {
        return Err(Error::shape("tiles", "planes must be [N, h, w]").argument("planes", planes));
    };
    let (y, ..) = norm::layer_forward(&planes.reshape(&[count, rows * columns])?, None, None, EPS)?;
    y.reshape(planes.shape())
}
