//! Arguments of the commands that say what features are worth: `probe`, `classical`, `knn`, `retrieve`, `compare`.

use super::Data;
use crate::evaluate::features::Layer;
use crate::evaluate::probe::Protocol;
use clap::Args;
use std::path::PathBuf;

/// What is evaluated. A file of features needs no images.
#[derive(Debug, Args)]
#[command(mut_arg("spec", |arg| arg.required(false)))]
pub struct Evaluated {
    /// A run's folder, or an encoder's file; for probe and knn also a file of features, as `pretext embed` writes it.
    pub encoder: PathBuf,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub data: Option<Data>,
    /// Where to compute features: cpu, cuda, cuda:N, emulated.
    #[arg(long, default_value = "cpu")]
    pub device: String,
    /// Features behind this block, from 1 (a ResNet's stages, a ViT's blocks), averaged over places; `best` chooses one on a
    /// held-out tenth of the training images (default: the encoder's own features).
    #[arg(long, value_name = "N|best")]
    pub layer: Option<Layer>,
    /// Go on where more than 1 % of the test images are training images too.
    #[arg(long)]
    pub allow_duplicates: bool,
}

/// Arguments of `probe`.
#[derive(Debug, Args)]
pub struct Probe {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub of: Evaluated,
    /// How the layer is trained: sgd, moco, mae, dino, dinov2-sweep, logreg (see docs/evaluation.md).
    #[arg(long, default_value = "sgd")]
    pub protocol: Protocol,
    /// Passes over the training features (default: the protocol's).
    #[arg(long)]
    pub epochs: Option<usize>,
    /// Learning rates to choose from, on a held-out tenth of the training images (default: the protocol's).
    #[arg(long, value_delimiter = ',')]
    pub rates: Option<Vec<f32>>,
    /// Seed of the order of samples, of initial weights and of the encoder at random.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// Arguments of `classical`.
#[derive(Debug, Args)]
pub struct Classical {
    /// A run's folder or an encoder's file, for a row of its features.
    pub encoder: Option<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub data: Data,
    /// Principal components.
    #[arg(long, default_value_t = 64)]
    pub components: usize,
    /// Clusters of k-means.
    #[arg(long, default_value_t = 100)]
    pub clusters: usize,
    /// Where to compute an encoder's features: cpu, cuda, cuda:N, emulated.
    #[arg(long, default_value = "cpu")]
    pub device: String,
    /// Seed of clusters and of the probe.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// Arguments of `knn`.
#[derive(Debug, Args)]
pub struct Knn {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub of: Evaluated,
    /// Neighbours that vote.
    #[arg(short, long, default_value_t = 20)]
    pub k: usize,
    /// Votes weigh exp((similarity - 1) / temperature).
    #[arg(long, default_value_t = 0.07)]
    pub temperature: f32,
    /// Subtract the training mean before rows are normalised.
    #[arg(long = "center", alias = "centre")]
    pub centre: bool,
    /// Seed of the encoder at random.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// Arguments of `retrieve`.
#[derive(Debug, Args)]
pub struct Retrieve {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub of: Evaluated,
    /// Neighbours to show and to count.
    #[arg(short, long, default_value_t = 10)]
    pub k: usize,
    /// The test images to show, from 0 (default: --count of them, evenly spread).
    #[arg(long, value_delimiter = ',', value_name = "I,J,..")]
    pub images: Option<Vec<usize>>,
    /// How many test images to show.
    #[arg(long, default_value_t = 10, conflicts_with = "images")]
    pub count: usize,
    /// Subtract the training mean before rows are normalised.
    #[arg(long = "center", alias = "centre")]
    pub centre: bool,
    /// The PNG file to write; indices and similarities go to the same name with .json.
    #[arg(long, value_name = "FILE", default_value = "retrieved.png")]
    pub out: PathBuf,
}

/// Arguments of `compare`.
#[derive(Debug, Args)]
#[command(mut_arg("spec", |arg| arg.required(false)))]
pub struct Compare {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub data: Option<Data>,
    /// The methods (see `pretext methods`), or all.
    #[arg(long, value_delimiter = ',', default_value = "all", value_name = "all|A,B,..")]
    pub methods: Vec<String>,
    /// Minutes for which each method is trained (default: 2; for --tasks: the recipe's length).
    #[arg(long, value_name = "MINUTES", conflicts_with = "steps")]
    pub budget: Option<f64>,
    /// Steps for which each method is trained, instead of minutes.
    #[arg(long)]
    pub steps: Option<u64>,
    /// The few labels: a part of each class such as 1%, or so many of each such as 10/class.
    #[arg(long, default_value = "10/class", value_name = "P%|N/class")]
    pub labels: String,
    /// Instead of methods, compare one encoder with training from scratch on these tasks: SPEC or SPEC@LABELS, where LABELS is
    /// 1% or 10/class.
    #[arg(long, value_delimiter = ',', value_name = "A,B,..", requires = "encoder", conflicts_with_all = ["spec", "methods"])]
    pub tasks: Option<Vec<String>>,
    /// The run or file whose encoder is used for --tasks.
    #[arg(long, value_name = "RUN", requires = "tasks")]
    pub encoder: Option<PathBuf>,
    /// Seed of everything random.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Where to compute: cpu, cuda, cuda:N, emulated.
    #[arg(long, default_value = "cpu")]
    pub device: String,
    /// The folder of all runs and results (default: runs/compare-DATA or runs/tasks-METHOD). The same command goes on in it.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// One setting of every method, such as training.batch=64.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Threads that prepare images ahead.
    #[arg(long, default_value_t = 1)]
    pub workers: usize,
    /// Go on where more than 1 % of the test images are training images too.
    #[arg(long)]
    pub allow_duplicates: bool,
}
