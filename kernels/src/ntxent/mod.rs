//! ntxent
