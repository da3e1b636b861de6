//! Images in, batches of views out.
//!
//! [`open`] turns a specification such as `fashion-mnist` or `mnist:DIR` into two [`Dataset`]s; a [`Loader`]
//! turns one of them into shuffled batches of augmented views, [`Evaluation`] into batches in a fixed order.
//! On a device [`Loader::raw_epoch`] leaves the views to its kernels (`kernels::augment::on_device`).
//! A batch depends on the seed, the epoch and the samples in it, never on how many threads made it.
//!
//! A new source of images is one file in `sources/`, named there in `mod.rs` and in [`SOURCES`]: `docs/data.md`.

mod batch;
mod dataset;
pub mod decode;
mod encode;
mod evaluation;
pub mod idx;
mod lightness;
mod loader;
mod sources;
mod statistics;

pub use batch::{Batch, RawBatch};
pub use dataset::{Dataset, Image, InMemory, Splits, Subset};
pub use encode::{encode_png, write_png};
pub use evaluation::Evaluation;
pub use lightness::Lightness;
pub use loader::{Epoch, Loader, LoaderOptions};
pub use sources::{Availability, SOURCES, Source, open};
pub use statistics::{overlap, pixel_statistics};
