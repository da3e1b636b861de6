//! Compiles kernels, each source once a process.

use engine::cuda::nvrtc::{Code, testing::nvrtc_for_tests};
use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};

/// What is compiled: source, file name, architecture, options.
type Key = (String, String, &'static str, Vec<String>);

static COMPILED: LazyLock<Mutex<HashMap<Key, Arc<str>>>> = LazyLock::new(Default::default);

/// The PTX of a source, with line information. Panics with the compiler's log where it does not compile.
pub fn ptx(source: &str, file: &str, options: &[&str]) -> Arc<str> {
    ptx_for("compute_90", source, file, options)
}

/// As [`ptx`], for an architecture: `compute_90a` where a kernel uses what only sm_90a has.
pub fn ptx_for(architecture: &'static str, source: &str, file: &str, options: &[&str]) -> Arc<str> {
    let mut options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
    options.push("-lineinfo".to_owned());
    let key = (source.to_owned(), file.to_owned(), architecture, options);
    if let Some(ptx) = COMPILED.lock().unwrap().get(&key) {
        return ptx.clone();
    }
    let compiled = nvrtc_for_tests().compile(source, file, architecture, &key.3);
    let ptx: Arc<str> = match compiled.unwrap_or_else(|error| panic!("{error}")).code {
        Code::Ptx(ptx) => ptx.into(),
        Code::Cubin(_) => panic!("{file}: machine code instead of PTX"),
    };
    COMPILED.lock().unwrap().insert(key, ptx.clone());
    ptx
}
