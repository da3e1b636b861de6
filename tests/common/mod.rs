//! What the tests of the command line share: small datasets on disk, and running the program.
#![allow(dead_code, reason = "each test binary uses its own part of this")]

pub mod methods;

use engine::Philox;
use engine::random::Purpose;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Header and values of an IDX file of bytes.
pub fn idx(dims: &[u32], values: &[u8]) -> Vec<u8> {
    let mut out = vec![0, 0, 8, dims.len() as u8];
    dims.iter().for_each(|d| out.extend(d.to_be_bytes()));
    out.extend(values);
    out
}

/// Two classes of 12x12 images: bright blobs above or below the middle, with noise.
pub fn images(n: usize, seed: u64) -> (Vec<u8>, Vec<u8>) {
    let mut g = Philox::new(seed, Purpose::Test, 0);
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    for i in 0..n {
        let class = i % 2;
        let (cx, cy) = (g.range(3.0, 9.0), if class == 0 { g.range(2.0, 5.0) } else { g.range(7.0, 10.0) });
        for y in 0..12 {
            for x in 0..12 {
                let d = (x as f32 - cx).powi(2) + (y as f32 - cy).powi(2);
                pixels.push((230.0 * (-d / 4.0).exp() + g.range(0.0, 25.0)) as u8);
            }
        }
        labels.push(class as u8);
    }
    (pixels, labels)
}

/// Writes an MNIST-like dataset of `train` and `test` images into `folder`.
pub fn write_mnist(folder: &Path, train: usize, test: usize) {
    std::fs::create_dir_all(folder).unwrap();
    for (name, n, seed) in [("train", train, 1), ("t10k", test, 2)] {
        let (pixels, labels) = images(n, seed);
        let write = |kind: &str, bytes: Vec<u8>| {
            std::fs::write(folder.join(format!("{name}-{kind}-ubyte")), bytes).unwrap();
        };
        write("images-idx3", idx(&[n as u32, 12, 12], &pixels));
        write("labels-idx1", idx(&[n as u32], &labels));
    }
}

/// Writes the images of [`write_mnist`], tinted, as PNG files in a folder for each split and class.
pub fn write_colour(folder: &Path, train: usize, test: usize) {
    for (name, n, seed) in [("train", train, 1), ("test", test, 2)] {
        let (pixels, labels) = images(n, seed);
        for (i, (image, label)) in pixels.chunks(144).zip(labels).enumerate() {
            let tint = [[255, 90, 60], [70, 255, 120], [80, 110, 255]][i % 3];
            let rgb: Vec<u8> =
                image.iter().flat_map(|v| tint.map(|t| (u32::from(*v) * t / 255) as u8)).collect();
            let class = folder.join(name).join(["above", "below"][usize::from(label)]);
            std::fs::create_dir_all(&class).unwrap();
            data::write_png(&class.join(format!("{i:03}.png")), [12, 12, 3], &rgb).unwrap();
        }
    }
}

/// A folder with a small dataset in `data/`, for runs of a second or two.
pub struct Stage {
    folder: tempfile::TempDir,
}

impl Stage {
    /// 96 training images, 40 test images.
    pub fn new() -> Stage {
        let folder = tempfile::tempdir().unwrap();
        write_mnist(&folder.path().join("data"), 96, 40);
        Stage { folder }
    }

    /// A dataset in colour, a folder of PNG files with the images of [`write_mnist`], each tinted: written when it is first
    /// asked for.
    pub fn colour_data(&self) -> String {
        let folder = self.path("colour");
        if !folder.exists() {
            write_colour(&folder, 96, 40);
        }
        format!("folder:{}", folder.display())
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The dataset's specification.
    pub fn data(&self) -> String {
        format!("mnist:{}", self.path("data").display())
    }

    /// The program with these arguments, in the folder.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pretext"));
        command.args(args).current_dir(self.folder.path());
        command
    }

    /// Runs the program.
    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Arguments of a small pre-training run into `out`, and more.
    pub fn pretrain(&self, out: &str, more: &[&str]) -> Output {
        let data = self.data();
        let mut args = vec!["pretrain", "simclr", "--data", &data, "--out", out];
        args.extend([
            "--set",
            "training.batch=16",
            "--set",
            "arch.name=resnet-small",
            "--set",
            "arch.width=4",
            "--set",
            "settings.projector_hidden=16",
        ]);
        args.extend(more);
        self.run(&args)
    }
}

/// stdout as text.
pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// stderr as text.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Fails with everything that was printed unless the program succeeded.
pub fn succeeded(output: &Output) -> &Output {
    assert!(output.status.success(), "{}\n{}", stdout(output), stderr(output));
    output
}
