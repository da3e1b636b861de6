//! An encoder with a projector, and pairs of them: one that is trained and one that follows it.

use crate::draws::encode;
use crate::momentum::{follow, without_history};
use autograd::module::{Path, Visitor};
use autograd::{Module, Var, module, no_grad, ops};
use engine::{DType, Result, Tensor};
use models::{Encoder, Initializer, Mlp, MlpSpec, Mode};

/// Smallest norm that a vector is divided by, PyTorch's default.
const NORM_EPS: f32 = 1e-12;

/// An encoder and what makes its features comparable.
pub struct Branch {
    /// The encoder.
    pub encoder: Box<dyn Encoder>,
    /// The projector.
    pub projector: Mlp,
}

impl Module for Branch {
    fn visit<'a>(&'a mut self, path: &Path, visitor: &mut dyn Visitor<'a>) {
        self.encoder.visit(&path.child("encoder"), visitor);
        self.projector.visit(&path.child("projector"), visitor);
    }
}

impl Branch {
    /// A branch around `encoder`, its projector initialised from `seed`.
    #[track_caller]
    pub fn new(encoder: Box<dyn Encoder>, projector: MlpSpec, seed: u64) -> Result<Branch> {
        let projector = Mlp::new(projector, &Initializer::new(seed).child("projector"))?;
        Ok(Branch { encoder, projector })
    }

    /// Another branch with the same values that is not trained.
    #[track_caller]
    pub fn follower(&mut self, projector: MlpSpec) -> Result<Branch> {
        let mut follower = Branch::new(models::duplicate(self.encoder.as_mut())?, projector, 0)?;
        module::copy(&mut self.projector, &mut follower.projector)?;
        module::set_trainable(&mut follower, false);
        Ok(follower)
    }

    /// Projections [B, D] of images, in training mode; `keep` is of `DroppedBranches`.
    #[track_caller]
    pub fn project(&mut self, images: &Tensor, keep: Option<&Tensor>) -> Result<Var> {
        let features = encode(self.encoder.as_mut(), &Var::constant(images.clone()), keep)?;
        self.projector.forward(&features, Mode::Train)
    }
}

/// Rows as unit vectors, f32.
#[track_caller]
pub fn unit(x: &Var) -> Result<Var> {
    ops::l2_normalize(&ops::cast(x, DType::F32)?, NORM_EPS)
}

/// The mean, over rows, of the products of unit vectors a and b [B, D]: their cosines.
#[track_caller]
pub fn mean_cosine(a: &Var, b: &Var) -> Result<Var> {
    let rows = a.shape().first().copied().unwrap_or(1).max(1);
    ops::scale(&ops::sum(&ops::mul(a, b)?, &[0, 1])?, 1.0 / rows as f32)
}

/// An online network that ends in a predictor, and a target network without one that follows it: BYOL, MoCo v3.
pub struct Twins {
    /// Encoder and projector that are trained.
    pub online: Branch,
    /// What the target lacks.
    pub predictor: Option<Mlp>,
    /// Encoder and projector that follow.
    pub target: Branch,
}

/// What the online network makes of a view.
pub struct Online {
    /// Projections, unit vectors.
    pub projection: Var,
    /// Predictions of the target's projections, unit vectors.
    pub prediction: Var,
}

impl Module for Twins {
    fn visit<'a>(&'a mut self, path: &Path, visitor: &mut dyn Visitor<'a>) {
        self.online.visit(path, visitor);
        if let Some(predictor) = &mut self.predictor {
            predictor.visit(&path.child("predictor"), visitor);
        }
        self.target.visit(&path.child("target"), visitor);
    }
}

impl Twins {
    /// Twins around `encoder`; the target starts with the online network's values.
    #[track_caller]
    pub fn new(
        encoder: Box<dyn Encoder>,
        projector: MlpSpec,
        predictor: Option<MlpSpec>,
        seed: u64,
    ) -> Result<Twins> {
        let mut online = Branch::new(encoder, projector, seed)?;
        let target = online.follower(projector)?;
        let init = Initializer::new(seed).child("predictor");
        let predictor = predictor.map(|spec| Mlp::new(spec, &init)).transpose()?;
        Ok(Twins { online, predictor, target })
    }

    /// What the online network makes of images.
    #[track_caller]
    pub fn online(&mut self, images: &Tensor, keep: Option<&Tensor>) -> Result<Online> {
        let z = self.online.project(images, keep)?;
        let prediction = match &mut self.predictor {
            Some(predictor) => predictor.forward(&z, Mode::Train)?,
            None => z.clone(),
        };
        Ok(Online { projection: unit(&z)?.detach(), prediction: unit(&prediction)? })
    }

    /// What the target makes of images: unit vectors, no gradient.
    #[track_caller]
    pub fn target(&mut self, method: &str, images: &Tensor) -> Result<Var> {
        let _off = no_grad();
        without_history(method, unit(&self.target.project(images, None)?)?)
    }

    /// Moves the target: see [`follow`].
    #[track_caller]
    pub fn follow(&mut self, momentum: &Tensor) -> Result<()> {
        follow(&mut self.target, &mut self.online, momentum)
    }
}
