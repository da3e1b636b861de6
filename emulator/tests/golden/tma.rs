//! Tiles of a 40 x 96 tensor of 16-bit elements by tensor map, in four swizzles, from four corners: two of them reach out of
//! bounds. The map is encoded by the emulated driver from the numbers that the recording used.

use super::device::{Device, plain};
use super::nvrtc;
use super::recording::Recording;
use emulator::driver::error::CUDA_SUCCESS;
use emulator::driver::tensor_map::{Encoded, cuTensorMapEncodeTiled};
use emulator::exec::Options;

const ROWS: u64 = 40;
const COLUMNS: u64 = 96;

/// The map of a 2-dimensional bf16 tensor, as 16 words.
fn encoded(address: u64, box_columns: u32, swizzle: u32) -> [u64; 16] {
    const BFLOAT16: u32 = 9;
    let mut map = Encoded([0; 128]);
    let (size, strides, box_size, steps) = ([COLUMNS, ROWS], [2 * COLUMNS], [box_columns, 16], [1, 1]);
    // SAFETY: all pointers are to arrays of the rank's length.
    let code = unsafe {
        cuTensorMapEncodeTiled(
            Some(&mut map),
            BFLOAT16,
            2,
            address,
            size.as_ptr(),
            strides.as_ptr(),
            box_size.as_ptr(),
            steps.as_ptr(),
            0,
            swizzle,
            0,
            0,
        )
    };
    assert_eq!(code, CUDA_SUCCESS);
    let words = map.0.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap()));
    words.collect::<Vec<u64>>().try_into().unwrap()
}

#[test]
fn tiles_lie_as_on_hardware() {
    let recording = Recording::open("tma");
    let ptx = nvrtc::ptx_for("compute_90a", include_str!("tma.cu"), "tma.cu", &[]);
    let mut count = 0;
    for (number, (name, box_columns)) in
        [("none", 64u32), ("32", 16), ("64", 32), ("128", 64)].into_iter().enumerate()
    {
        for (x, y) in [(0i64, 0i64), (16, 8), (-8, -3), (80, 32)] {
            let case = format!("swizzle{name}.box{box_columns}x16.at{x}.{y}");
            let want = recording.words(&format!("{case}/out"));
            // The recording's box lay at a multiple of 1024, as the kernel's here does.
            assert_eq!(recording.words(&format!("{case}/base"))[0] % 1024, 0);
            for late_copies in [false, true] {
                let device = Device::new();
                let image = device.load(&ptx);
                let source = device.upload(recording.bytes("global/source"));
                let out = device.upload_words(&vec![0; want.len()]);
                let mut parameters = encoded(source, box_columns, number as u32).to_vec();
                parameters.extend([x as u64, y as u64, 4 * want.len() as u64, out]);
                let options = Options { late_copies, ..plain() };
                let report = device.run(&image, "tile", 1, 32, &parameters, &options);
                assert!(report.is_none(), "{case}: {}", report.unwrap());
                assert_eq!(device.download_words(out, want.len()), want, "{case}");
                count += 1;
            }
        }
    }
    assert_eq!(count, 2 * (recording.cases().len() - 1), "every recorded tile");
}
