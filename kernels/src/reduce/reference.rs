//! One element at a time, in f32 (naive) or f64 (oracle).
