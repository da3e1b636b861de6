//! Branch-free scalar functions that the compiler can vectorise.
