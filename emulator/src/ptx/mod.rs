//! PTX text to a syntax tree. Knows the grammar, not what instructions mean.

pub mod ast;
