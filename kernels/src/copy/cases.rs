//! Shapes and values that tests and benchmarks share.
