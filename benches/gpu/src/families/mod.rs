//! The cases, a file a family. A case is JSON: `{"kind": "matmul", "m": 4096, ...}`.

mod attention;
mod conv2d;
mod matmul;
mod memory;
mod norm;
mod ntxent;
mod optim;
mod softmax_xent;

use crate::computation::Computation;
use serde::Deserialize;

/// One direction of a computation with a backward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Direction {
    Forward,
    Backward,
    /// Both, one after the other.
    Both,
}

macro_rules! cases {
    ($($kind:ident($type:path)),* $(,)?) => {
        /// What is computed, and its sizes.
        #[derive(Deserialize)]
        #[serde(tag = "kind", rename_all = "snake_case")]
        pub(crate) enum Case {
            $($kind($type)),*
        }

        impl Case {
            /// The computation.
            pub fn computation(self) -> Box<dyn Computation> {
                match self {
                    $(Case::$kind(case) => Box::new(case)),*
                }
            }
        }
    };
}

cases! {
    Matmul(matmul::Matmul),
    Linear(matmul::Linear),
    LinearGelu(matmul::LinearGelu),
    Attention(attention::Attention),
    Conv2d(conv2d::Conv2d),
    LayerNorm(norm::LayerNorm),
    BatchNorm(norm::BatchNorm),
    CrossEntropy(softmax_xent::CrossEntropy),
    Ntxent(ntxent::Ntxent),
    Adamw(optim::Adamw),
    Sgd(optim::Sgd),
    Elementwise(memory::Elementwise),
}
