//! The state of a network: saving, strict loading, layouts in files, freezing.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use autograd::module::{Path, Visitor};
use autograd::param::{Role, Stored};
use autograd::{Buffer, Module, Param, module, ops};
use engine::Tensor;
use engine::safetensors::Contents;
use kernels::array::Array;

fn random(shape: &[usize], seed: u64) -> Tensor {
    Array::<f32>::random(shape, seed, 1.0).to_tensor().unwrap()
}

fn values(x: &Tensor) -> Vec<f32> {
    x.to_vec().unwrap()
}

/// A network with every kind of state.
struct Network {
    kernel: Param,
    bias: Param,
    running: Buffer,
}

impl Network {
    fn new(seed: u64) -> Network {
        Network {
            kernel: Param::kernel(random(&[2, 3, 4, 5], seed)),
            bias: Param::new(random(&[7], seed + 1), Role::Bias),
            running: Buffer::new(random(&[6], seed + 2)),
        }
    }

    fn state(&self) -> Vec<Vec<f32>> {
        [self.kernel.value(), self.bias.value(), self.running.value()].map(values).to_vec()
    }
}

impl Module for Network {
    fn visit<'a>(&'a mut self, path: &Path, visitor: &mut dyn Visitor<'a>) {
        visitor.param(path.child("inner").name("kernel"), &mut self.kernel);
        visitor.param(path.name("bias"), &mut self.bias);
        visitor.buffer(path.name("running"), &mut self.running);
    }
}

#[test]
fn state_goes_out_and_in_again() {
    let (mut from, mut to) = (Network::new(1), Network::new(10));
    let mut contents = Contents::default();
    module::save(&mut from, "encoder.", &mut contents).unwrap();
    let names: Vec<&str> = contents.tensors.keys().map(String::as_str).collect();
    assert_eq!(names, ["encoder.bias", "encoder.inner.kernel", "encoder.running"]);
    // [out, kh, kw, in] in memory, [out, in, kh, kw] in files.
    let stored = &contents.tensors["encoder.inner.kernel"];
    assert_eq!(stored.shape(), [2, 5, 3, 4]);
    let (file, memory) = (values(stored), values(from.kernel.value()));
    let [o, i, y, x] = [1, 3, 2, 1];
    assert_eq!(file[((o * 5 + i) * 3 + y) * 4 + x], memory[((o * 3 + y) * 4 + x) * 5 + i]);
    // What has another prefix belongs to others.
    contents.insert("head.weight", &random(&[1], 5)).unwrap();
    assert_ne!(from.state(), to.state());
    module::load(&mut to, "encoder.", &contents, &[]).unwrap();
    assert_eq!(from.state(), to.state());
    assert_eq!(to.kernel.value().shape(), [2, 3, 4, 5]);
    assert!(to.kernel.value().is_contiguous());
}

#[test]
fn channels_last_is_a_roundtrip() {
    let x = random(&[2, 3, 4, 5], 5);
    for stored in [Stored::AsIs, Stored::ChannelsLast] {
        let back = stored.inside(&stored.outside(&x).unwrap()).unwrap();
        assert_eq!((back.shape(), values(&back)), (x.shape(), values(&x)));
    }
    assert_eq!(Stored::ChannelsLast.outside(&x).unwrap().shape(), [2, 5, 3, 4]);
}

#[test]
fn strict_loading_lists_every_problem_and_changes_nothing() {
    let mut contents = Contents::default();
    module::save(&mut Network::new(1), "", &mut contents).unwrap();
    contents.tensors.remove("running");
    contents.insert("bias", &random(&[8], 2)).unwrap();
    contents.insert("extra", &random(&[1], 3)).unwrap();
    contents.insert("ignored", &random(&[1], 4)).unwrap();
    let mut network = Network::new(10);
    let before = network.state();
    let e = module::load(&mut network, "", &contents, &["ignored"]).unwrap_err();
    for part in ["3 names", "missing: running [6]", "unexpected: extra", "mis-shaped: bias is [8]", "[7]"] {
        assert!(e.message().contains(part), "'{part}' is not in: {e}");
    }
    assert!(!e.message().contains("ignored"));
    assert_eq!(network.state(), before);
}

#[test]
fn frozen_parameters_get_no_gradient() {
    let mut network = Network::new(1);
    assert_eq!(module::count(&mut network), 2 * 3 * 4 * 5 + 7);
    network.bias.set_trainable(false);
    assert_eq!(module::count(&mut network), 2 * 3 * 4 * 5);
    assert!(!ops::scale(&network.bias.var(), 2.0).unwrap().has_history());
    module::set_trainable(&mut network, true);
    let y = ops::sum(&ops::scale(&network.bias.var(), 2.0).unwrap(), &[0]).unwrap();
    y.backward().unwrap();
    assert_eq!(values(&network.bias.gradient().unwrap()), [2.0; 7]);
    module::clear_gradients(&mut network);
    assert!(network.bias.gradient().is_none());
}
