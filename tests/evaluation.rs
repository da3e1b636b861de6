//! What evaluation must never get wrong: a frozen trunk, the right features, floors beside every number,
//! no test image in training, weights that load whole or not at all.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use autograd::module::{Path, Visitor};
use autograd::{Module, Var};
use common::{Stage, stderr, stdout, succeeded};
use data::Dataset;
use engine::{Result, Tensor};
use models::{Arch, Encoder, ImageShape, Mode};
use pretext::evaluate::features;
use pretext::evaluate::inputs::Source;
use serde_json::Value;
use std::sync::Arc;

const SHORT: &[&str] = &["--steps", "6", "--no-table"];

fn events(text: &str) -> Vec<Value> {
    text.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

/// Every table carries the encoder at random and raw pixels, and the features are the encoder's 16 values,
/// not the projector's 128.
#[test]
fn every_result_stands_beside_its_floors() {
    let stage = Stage::new();
    let data = stage.data();
    succeeded(&stage.pretrain("run", SHORT));
    for command in ["probe", "knn"] {
        let out = stage.run(&[command, "run", "--data", &data, "--json"]);
        let found = events(&stdout(succeeded(&out)));
        let rows: Vec<(String, u64)> = found
            .iter()
            .filter(|e| e["event"] == "result")
            .map(|e| (e["features"].as_str().unwrap().into(), e["dim"].as_u64().unwrap()))
            .collect();
        let want = [("trained", 16), ("random", 16), ("random-unset", 16), ("pixels", 144)]
            .map(|(n, d)| (n.to_string(), d));
        assert_eq!(rows, want, "{command}");
    }
    let text = stdout(succeeded(&stage.run(&["knn", "run", "--data", &data])));
    assert!(text.contains("same encoder at random") && text.contains("raw pixels"), "{text}");
}

/// `--layer` evaluates features of a block, everywhere in the table, and `best` the one that wins on held-out training images.
#[test]
fn a_table_can_be_of_another_layer() {
    let stage = Stage::new();
    let data = stage.data();
    succeeded(&stage.pretrain("run", SHORT));
    for (layer, dim) in [("1", 4), ("2", 8), ("3", 16)] {
        let out = stage.run(&["knn", "run", "--data", &data, "--json", "--layer", layer]);
        let found = events(&stdout(succeeded(&out)));
        let rows: Vec<_> = found.iter().filter(|e| e["event"] == "result").collect();
        assert_eq!(rows.len(), 4);
        for row in rows.iter().filter(|e| e["features"] != "pixels") {
            assert_eq!((row["dim"].as_u64(), row["layer"].to_string()), (Some(dim), layer.to_string()));
        }
    }
    // The last stage of a ResNet is its features.
    let table =
        |more: &[&str]| stdout(succeeded(&stage.run(&[&["knn", "run", "--data", &data], more].concat())));
    assert_eq!(table(&["--layer", "3"]).replace(", encoders' features of layer 3", ""), table(&[]));
    for command in ["knn", "probe"] {
        let out = stage.run(&[command, "run", "--data", &data, "--json", "--layer", "best"]);
        let found = events(&stdout(succeeded(&out)));
        let layers = found.iter().find(|e| e["event"] == "layers").unwrap();
        let reached: Vec<f64> =
            layers["held_out"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
        let best = layers["best"].as_u64().unwrap() as usize;
        assert!(reached.len() == 3 && reached.iter().all(|r| *r <= reached[best - 1]), "{layers}");
        assert!(stderr(&out).contains("held-out"));
        assert_eq!(found.iter().find(|e| e["event"] == "result").unwrap()["layer"], best);
    }
    let out = stage.run(&["probe", "run", "--data", &data, "--layer", "4"]);
    assert_eq!(out.status.code(), Some(2));
    assert!(stderr(&out).contains("no layer 4: this encoder has 1 to 3"), "{}", stderr(&out));
    let out = stage.run(&["probe", "run", "--data", &data, "--layer", "last"]);
    assert!(out.status.code() == Some(2) && stderr(&out).contains("best"), "{}", stderr(&out));
}

/// Pre-training ends with the table, and `--json` has one object a line on stdout and nothing else.
#[test]
fn pretraining_ends_with_the_table() {
    let stage = Stage::new();
    let out = stage.pretrain("run", &["--steps", "6", "--json"]);
    let found = events(&stdout(succeeded(&out)));
    assert_eq!(found.iter().filter(|e| e["event"] == "step").count(), 6);
    assert_eq!(found.iter().filter(|e| e["event"] == "result").count(), 8);
    assert!(found.iter().any(|e| e["event"] == "health" && e["knn"].is_number()));
    assert!(stderr(&out).contains("encoder.safetensors"));
}

/// An encoder that keeps counting in evaluation mode, as batch norm does when someone forgets the mode.
struct Drifting {
    inner: Box<dyn Encoder>,
    drifts: bool,
}

impl Module for Drifting {
    fn visit<'a>(&'a mut self, path: &Path, visitor: &mut dyn Visitor<'a>) {
        self.inner.visit(path, visitor);
    }
}

impl Encoder for Drifting {
    fn features(&mut self, images: &Var, mode: Mode) -> Result<Var> {
        self.inner.features(images, if self.drifts { Mode::Train } else { mode })
    }
    fn blocks(&self) -> usize {
        self.inner.blocks()
    }
    fn block_features(&mut self, images: &Var, block: usize) -> Result<Var> {
        self.inner.block_features(images, block)
    }
    fn map(&mut self, images: &Var, mode: Mode) -> Result<Var> {
        self.inner.map(images, mode)
    }
    fn dim(&self) -> usize {
        self.inner.dim()
    }
    fn arch(&self) -> &Arch {
        self.inner.arch()
    }
    fn image(&self) -> ImageShape {
        self.inner.image()
    }
    fn layers(&self) -> usize {
        self.inner.layers()
    }
    fn layer_of(&self, parameter: &str) -> usize {
        self.inner.layer_of(parameter)
    }
}

fn small_dataset() -> Arc<dyn Dataset> {
    let (pixels, labels) = common::images(30, 3);
    let names = vec!["above".to_string(), "below".to_string()];
    Arc::new(data::InMemory::new("blobs".to_string(), pixels, [12, 12, 1], labels, names).unwrap())
}

#[test]
fn a_trunk_that_is_not_frozen_is_an_error() {
    let dataset = small_dataset();
    let input = kernels::augment::Recipe::evaluation(12, 12);
    for drifts in [false, true] {
        let inner = models::build(
            &Arch::named("resnet-small/4"),
            ImageShape { height: 12, width: 12, channels: 1 },
            1,
        )
        .unwrap();
        let mut encoder = Drifting { inner, drifts };
        let result = features::labelled(&mut encoder, Source::Own, &input, &dataset);
        match drifts {
            false => assert_eq!(result.unwrap().0.dim, 16),
            true => assert!(result.unwrap_err().message().contains("frozen")),
        }
    }
}

/// Features do not depend on which images share a batch: evaluation uses running statistics.
#[test]
fn features_of_an_image_do_not_depend_on_its_batch() {
    let dataset = small_dataset();
    let input = kernels::augment::Recipe::evaluation(12, 12);
    let mut encoder =
        models::build(&Arch::named("resnet-small/4"), ImageShape { height: 12, width: 12, channels: 1 }, 1)
            .unwrap();
    let (all, _) = features::labelled(encoder.as_mut(), Source::Own, &input, &dataset).unwrap();
    let some: Arc<dyn Dataset> = Arc::new(data::Subset::new(dataset.clone(), vec![7, 3]).unwrap());
    let (few, _) = features::labelled(encoder.as_mut(), Source::Own, &input, &some).unwrap();
    assert_eq!(few.row(0), all.row(7));
    assert_eq!(few.row(1), all.row(3));
    assert_eq!(few.labels, [all.labels[7], all.labels[3]]);
}

/// The online kNN sees training images alone.
#[test]
fn the_sample_set_keeps_test_images_out_of_training() {
    let splits = data::open("sample", None).unwrap();
    let shared = data::overlap(splits.train.as_ref(), splits.test.as_ref()).unwrap();
    assert!(shared.is_empty(), "{shared:?}");
    let part = features::spread(&splits.train, 2500).unwrap();
    assert_eq!(part.len(), 2500);
    let own = data::overlap(part.as_ref(), splits.test.as_ref()).unwrap();
    assert!(own.is_empty());
}

/// A weight that is missing, misnamed or mis-shaped stops the load; what is loaded gives the saved features.
#[test]
fn encoders_load_whole_or_not_at_all() {
    let stage = Stage::new();
    let data = stage.data();
    succeeded(&stage.pretrain("run", SHORT));
    let path = stage.path("run").join("encoder.safetensors");
    let whole = engine::safetensors::load(&path).unwrap();
    for change in ["missing", "unexpected", "mis-shaped"] {
        let mut broken = whole.clone();
        let name = "layer1.0.conv1.weight";
        let tensor = broken.tensors.remove(name).unwrap();
        match change {
            "missing" => {}
            "unexpected" => {
                broken.insert(name, &tensor).unwrap();
                broken.insert("layer9.weight", &tensor).unwrap();
            }
            _ => broken.insert(name, &tensor.narrow(0, 0, 1).unwrap()).unwrap(),
        }
        let file = stage.path("broken.safetensors");
        engine::safetensors::save(&file, &broken).unwrap();
        let out = stage.run(&["knn", "broken.safetensors", "--data", &data]);
        assert_eq!(out.status.code(), Some(1));
        assert!(
            stderr(&out).contains(change) && stderr(&out).contains("broken.safetensors"),
            "{}",
            stderr(&out)
        );
    }
    // `embed` twice: through the file, and through a run that was stopped and has a checkpoint alone.
    let stopped = stage.pretrain("other", &["--steps", "6", "--stop-after", "5", "--no-table"]);
    assert_eq!(stopped.status.code(), Some(1));
    for (run, out) in [("run", "a"), ("run/encoder.safetensors", "b"), ("other", "c")] {
        succeeded(&stage.run(&["embed", run, "--data", &data, "--out", &format!("{out}.safetensors")]));
    }
    let read = |name: &str| engine::safetensors::load(&stage.path(name)).unwrap();
    let (a, b, c) = (read("a.safetensors"), read("b.safetensors"), read("c.safetensors"));
    let values = |t: &Tensor| t.to_vec::<f32>().unwrap();
    assert_eq!(values(a.get("train").unwrap()), values(b.get("train").unwrap()));
    assert_ne!(values(a.get("train").unwrap()), values(c.get("train").unwrap()));
    assert_eq!(a.get("train").unwrap().shape(), [96, 16]);
    assert_eq!(a.get("test_labels").unwrap().shape(), [40]);
}

#[test]
fn lists_and_doctor_say_what_there_is() {
    let stage = Stage::new();
    for (command, word) in
        [("methods", "simclr"), ("archs", "resnet50"), ("datasets", "mnist:DIR"), ("doctor", "device cpu")]
    {
        assert!(stdout(succeeded(&stage.run(&[command]))).contains(word));
        let json = stage.run(&[command, "--json"]);
        assert!(!events(&stdout(succeeded(&json))).is_empty());
    }
}

/// Normalisation, softmax and losses run in f32 or not at all: bf16 is refused, never computed with silently.
#[test]
fn low_precision_is_refused_where_it_would_bias() {
    let x = Tensor::from_slice(&[half::bf16::from_f32(1.0); 8], &[2, 4]).unwrap();
    let labels = Tensor::from_slice(&[0i32, 1], &[2]).unwrap();
    let target = kernels::softmax_xent::Target::Labels(&labels);
    let errors = [
        kernels::norm::l2_forward(&x, 1e-12).err(),
        kernels::norm::batch_forward(&x, None, None, None, false, 1e-5).err(),
        kernels::norm::layer_forward(&x, None, None, 1e-5).err(),
        kernels::softmax_xent::forward(&x, target, 0.0).err(),
        kernels::softmax_xent::softmax(&x).err(),
    ];
    for error in errors {
        assert_eq!(error.unwrap().kind(), engine::ErrorKind::DType);
    }
}
