//! Loading state dicts that other programs wrote.

use autograd::{Module, module};
use engine::Result;
use engine::safetensors::Contents;

/// As [`module::load`]: strict, one error for all problems. In addition PyTorch's counters of batches
/// (`num_batches_tracked`), which nothing here uses, may be there.
#[track_caller]
pub fn load_state<M: Module + ?Sized>(
    network: &mut M,
    prefix: &str,
    contents: &Contents,
    ignore: &[&str],
) -> Result<()> {
    let names = contents.tensors.keys().filter_map(|name| name.strip_prefix(prefix));
    let counters = names.filter(|name| name.ends_with("num_batches_tracked"));
    let ignore: Vec<&str> = counters.chain(ignore.iter().copied()).collect();
    module::load(network, prefix, contents, &ignore)
}
