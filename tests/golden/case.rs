//! One file of reference values, and how results are compared with it.

use autograd::Var;
use engine::safetensors::{self, Contents};
use engine::{Device, Tensor};
use kernels::compare;
use kernels::copy::contiguous;
use std::path::PathBuf;

/// Where the files lie.
pub fn folder() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "golden", "cases"].iter().collect()
}

/// A test for each file, and the list of files.
macro_rules! golden {
    ($($test:ident: $file:literal => $check:path),* $(,)?) => {
        $(#[test] fn $test() { $check(&$crate::golden::case::Case::load($file)) })*
        /// The files that the tests of this module check.
        pub const FILES: &[&str] = &[$($file),*];
    };
}
pub(crate) use golden;

/// A file's tensors and settings.
pub struct Case {
    name: &'static str,
    pub contents: Contents,
    settings: serde_json::Value,
}

impl Case {
    pub fn load(name: &'static str) -> Case {
        let contents = safetensors::load(&folder().join(format!("{name}.safetensors"))).unwrap();
        let settings = serde_json::from_str(&contents.metadata["case"]).unwrap();
        Case { name, contents, settings }
    }

    pub fn tensor(&self, name: &str) -> Tensor {
        self.contents.get(name).unwrap().clone()
    }

    /// As [`Case::tensor`], in the layout of memory: see [`channels_last`].
    pub fn inside(&self, name: &str) -> Tensor {
        channels_last(&self.tensor(name))
    }

    /// A leaf with the tensor in the layout of memory.
    pub fn leaf(&self, name: &str) -> Var {
        Var::leaf(self.inside(name))
    }

    pub fn number(&self, key: &str) -> f64 {
        self.settings[key].as_f64().unwrap_or_else(|| panic!("{}: no number '{key}'", self.name))
    }

    pub fn count(&self, key: &str) -> usize {
        self.number(key) as usize
    }

    /// Whether there is such a setting.
    pub fn has(&self, key: &str) -> bool {
        !self.settings[key].is_null()
    }

    pub fn text(&self, key: &str) -> &str {
        self.settings[key].as_str().unwrap_or_else(|| panic!("{}: no text '{key}'", self.name))
    }

    pub fn flag(&self, key: &str) -> bool {
        self.settings[key].as_bool().unwrap_or_else(|| panic!("{}: no flag '{key}'", self.name))
    }

    /// `actual` must equal the tensor `name` (in the layout of memory) up to rounding, where every element
    /// comes from a sum of about `terms`.
    ///
    /// The reference is exact to half a unit in the last place. Rounding errors of a sum of n terms add up like
    /// a random walk, to sqrt(n) units; 4 of these are allowed, relative to the largest element.
    #[track_caller]
    pub fn check(&self, name: &str, actual: &Tensor, terms: usize) {
        self.check_within(name, actual, 4.0 * f64::from(f32::EPSILON) * (terms as f64).sqrt());
    }

    /// As [`Case::check`], with the largest error given as a part of the largest element.
    #[track_caller]
    pub fn check_within(&self, name: &str, actual: &Tensor, allowed: f64) {
        let expected = self.inside(name);
        assert_eq!(actual.shape(), expected.shape(), "{}: {name}", self.name);
        let values =
            |t: &Tensor| -> Vec<f64> { t.to_vec::<f32>().unwrap().into_iter().map(f64::from).collect() };
        let (actual, expected) = (values(actual), values(&expected));
        let (error, at) = compare::error(&actual, &expected);
        assert!(
            error <= allowed,
            "{}: {name} differs by {error:.2e} of its largest element, allowed {allowed:.2e}: element {at} is {} \
             and should be {}",
            self.name,
            actual[at],
            expected[at]
        );
    }

    /// The gradients of `leaves` must equal `grad.NAME`.
    #[track_caller]
    pub fn check_gradients(&self, leaves: &[(&str, &Var)], terms: usize) {
        for (name, leaf) in leaves {
            self.check(&format!("grad.{name}"), &leaf.gradient().unwrap(), terms);
        }
    }

    /// Checks the output, walks back from `grad_out`, and checks the gradients.
    #[track_caller]
    pub fn check_operation(&self, out: &Var, leaves: &[(&str, &Var)], terms: usize) {
        self.check("out", out.value(), terms);
        out.backward_from(self.inside("grad_out")).unwrap();
        self.check_gradients(leaves, terms);
    }
}

/// Files hold images as NCHW (or CHW) and kernels as OIHW; memory has the channels last. Tensors of other
/// ranks are the same in both.
pub fn channels_last(x: &Tensor) -> Tensor {
    let order: &[usize] = match x.rank() {
        4 => &[0, 2, 3, 1],
        _ => return x.clone(),
    };
    contiguous(&x.permute(order).unwrap()).unwrap()
}

/// Zeros of a tensor's shape.
pub fn zeros_like(x: &Tensor) -> Tensor {
    Tensor::zeros(x.shape(), x.dtype(), Device::Cpu).unwrap()
}
