//! softmax_xent
