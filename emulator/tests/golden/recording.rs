//! What a GPU gave: the files of `emulator/golden/h100/`.

use flate2::read::GzDecoder;
use safetensors::SafeTensors;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

/// One file: arrays by name, as bytes.
pub struct Recording {
    arrays: BTreeMap<String, Vec<u8>>,
}

impl Recording {
    /// Reads `name.safetensors`, or `name.safetensors.gz`.
    pub fn open(name: &str) -> Recording {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/h100");
        let plain = folder.join(format!("{name}.safetensors"));
        let bytes = if plain.exists() {
            std::fs::read(&plain).unwrap()
        } else {
            let packed = std::fs::File::open(folder.join(format!("{name}.safetensors.gz"))).unwrap();
            let mut bytes = Vec::new();
            GzDecoder::new(packed).read_to_end(&mut bytes).unwrap();
            bytes
        };
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let arrays = file.tensors().into_iter().map(|(name, array)| (name, array.data().to_vec()));
        Recording { arrays: arrays.collect() }
    }

    /// The cases: what stands before the last `/` of the arrays' names, in order.
    pub fn cases(&self) -> Vec<String> {
        let mut cases: Vec<String> =
            self.arrays.keys().map(|name| name.rsplit_once('/').unwrap().0.to_owned()).collect();
        cases.dedup();
        cases
    }

    /// An array's bytes.
    pub fn bytes(&self, name: &str) -> &[u8] {
        self.arrays.get(name).unwrap_or_else(|| panic!("no array {name}"))
    }

    /// An array of 32-bit words.
    pub fn words(&self, name: &str) -> Vec<u32> {
        let words = self.bytes(name).chunks_exact(4);
        words.map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect()
    }
}
