//! Multi-crop (Caron et al. 2020, SwAV): two large crops and several small ones, a forward pass for the large and one for the
//! small.

use crate::draws::DroppedBranches;
use engine::{Error, ErrorKind, Result, Tensor};
use kernels::augment::Recipe;
use kernels::copy;
use models::Encoder;

/// The crops of an image: the large ones first.
#[derive(Debug, Clone)]
pub struct Crops {
    views: Vec<Recipe>,
    /// Crops of each forward pass, and what it drops.
    passes: Vec<(usize, Option<DroppedBranches>)>,
}

/// The crops of one forward pass.
pub struct Pass<'a> {
    /// [crops B, H, W, C], crop by crop.
    pub images: Tensor,
    /// What the pass drops, of `DroppedBranches`.
    pub keep: Option<&'a Tensor>,
}

impl Crops {
    /// Two large crops, of one size, and `count` small ones, for an encoder whose branches may be dropped.
    #[track_caller]
    pub fn new(
        method: &str,
        global: [Recipe; 2],
        local: Recipe,
        count: usize,
        encoder: &dyn Encoder,
        seed: u64,
    ) -> Result<Crops> {
        let size = |view: &Recipe| (view.height, view.width);
        if size(&global[0]) != size(&global[1]) {
            let text = "global1.size and global2.size must be the same";
            return Err(Error::new(ErrorKind::Usage, format!("{method} settings"), text));
        }
        let mut views = global.to_vec();
        views.extend(std::iter::repeat_n(local, count));
        let pass = |i: u64, crops| (crops, DroppedBranches::of(encoder, seed, i));
        let mut passes = vec![pass(0, 2)];
        if count > 0 {
            passes.push(pass(1, count));
        }
        Ok(Crops { views, passes })
    }

    /// The large crops of a batch, [2 B, H, W, C].
    #[track_caller]
    pub fn large(&self, views: &[Tensor]) -> Result<Tensor> {
        let large: Vec<&Tensor> = views.iter().take(2).collect();
        copy::cat(&large, 0)
    }

    /// How each crop is made.
    pub fn views(&self) -> &[Recipe] {
        &self.views
    }

    /// Whether branches are dropped, so that there is something to draw.
    pub fn drops(&self) -> bool {
        self.passes.iter().any(|(_, dropped)| dropped.is_some())
    }

    /// What is dropped in the passes of a step with so many images.
    pub fn draw(&self, step: u64, images: usize) -> Result<Vec<Tensor>> {
        let passes = self.passes.iter();
        passes.filter_map(|(n, dropped)| Some(dropped.as_ref()?.draw(step, n * images))).collect()
    }

    /// The passes of a batch with these views and draws.
    #[track_caller]
    pub fn passes<'a>(&self, method: &str, views: &[Tensor], draws: &'a [Tensor]) -> Result<Vec<Pass<'a>>> {
        if views.len() != self.views.len() {
            let text = format!("takes {} views, got {}", self.views.len(), views.len());
            return Err(Error::value(method, text));
        }
        let (mut rest, mut draws) = (views, draws.iter());
        self.passes
            .iter()
            .map(|(n, dropped)| {
                let (these, others) = rest.split_at(*n);
                rest = others;
                let images = copy::cat(&these.iter().collect::<Vec<_>>(), 0)?;
                Ok(Pass { images, keep: dropped.as_ref().and_then(|_| draws.next()) })
            })
            .collect()
    }
}
