//! Tests of the arithmetic against independent oracles.

mod approx;
mod convert;
mod half;
mod oracle;
mod round;
