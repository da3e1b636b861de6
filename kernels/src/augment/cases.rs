//! Cases for tests and benchmarks.
