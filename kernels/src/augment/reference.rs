//! Naive augmentation in any precision, no cleverness.
