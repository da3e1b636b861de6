//! What a captured graph keeps: the memory that was handed out while it was captured, and the constants that it reads.

use super::{Block, Capture, Context};
use std::sync::Arc;

/// What a captured graph needs for as long as it lives.
#[derive(Default)]
pub(in crate::cuda) struct Captured {
    /// Regions that belong to the graph: address and size.
    pub(in crate::cuda) regions: Vec<(u64, usize)>,
    /// Constants that it reads.
    pub(in crate::cuda) constants: Vec<Arc<Block>>,
}

/// Starts to note which regions are handed out: they will belong to the graph that is captured.
pub(in crate::cuda) fn begin_capture(context: &Context) {
    context.pool.state().capture = Some(Capture::default());
}

/// Whether a graph is being captured.
pub(in crate::cuda) fn capturing(context: &Context) -> bool {
    context.pool.state().capture.is_some()
}

/// Lets the graph that is being captured, if there is one, keep a constant.
pub(in crate::cuda) fn keep_for_capture(context: &Context, block: &Arc<Block>) {
    if let Some(capture) = &mut context.pool.state().capture
        && !capture.constants.iter().any(|known| Arc::ptr_eq(known, block))
    {
        capture.constants.push(block.clone());
    }
}

/// Ends what [`begin_capture`] began and gives the regions, which are kept from everyone else until
/// [`release_graph`], and the constants. Without a graph (`keep` is false) regions stay in the pool.
pub(in crate::cuda) fn end_capture(context: &Context, keep: bool) -> Captured {
    // Blocks lock the pool when they are dropped, so constants must not be dropped in here.
    let mut state = context.pool.state();
    let Capture { taken, constants } = state.capture.take().unwrap_or_default();
    if !keep {
        return Captured { regions: Vec::new(), constants };
    }
    let mut taken: Vec<(u64, usize)> = taken.into_iter().collect();
    taken.sort_unstable();
    for &(region, size) in &taken {
        let idle = state.free.get_mut(&size).is_some_and(|free| free.remove(&region));
        if idle {
            state.cached -= size;
            state.reserved += size;
        }
        state.graphs.insert(region, !idle);
    }
    Captured { regions: taken, constants }
}

/// Gives the regions of a graph, which is no more, back to the free list.
pub(in crate::cuda) fn release_graph(context: &Context, regions: &[(u64, usize)]) {
    let mut state = context.pool.state();
    for &(region, size) in regions {
        if state.graphs.remove(&region) == Some(false) {
            state.reserved -= size;
            state.cached += size;
            state.free.entry(size).or_default().insert(region);
        }
    }
}
