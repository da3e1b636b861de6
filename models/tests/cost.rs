//! What a ViT holds for its backward pass falls with the patches that it sees. Alone in its program: live bytes are
//! counted for the whole of it.

// A test reports by panicking.
#![allow(clippy::unwrap_used)]

use autograd::Var;
use engine::{Tensor, memory};
use kernels::array::Array;
use models::{Arch, ImageShape, VitInput, build};

#[test]
fn masked_patches_cost_nothing_in_the_blocks() {
    let image = ImageShape { height: 32, width: 32, channels: 1 };
    let mut encoder = build(&Arch::named("vit-micro"), image, 1).unwrap();
    let vit = encoder.vit().unwrap();
    let x = Var::constant(Array::<f32>::random(&[2, 32, 32, 1], 1, 1.0).to_tensor().unwrap());
    let mut held = |each: i32| {
        let rows: Vec<i32> = (0..2).flat_map(|b| (0..each).map(move |i| b * 64 + i)).collect();
        let kept = Tensor::from_slice(&rows, &[rows.len()]).unwrap();
        let before = memory::stats().live;
        let tokens = vit.forward(&VitInput { kept: Some(&kept), ..VitInput::whole(&x) }).unwrap();
        assert_eq!(tokens.x.shape(), [2, 1 + each as usize, 96]);
        memory::stats().live - before
    };
    // 17 of 65 tokens, and the embeddings of all patches, which positions are added to.
    let ratio = held(16) as f64 / held(64) as f64;
    assert!(ratio < 0.3, "{ratio}");
}
