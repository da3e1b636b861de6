//! Values from PyTorch, torchvision, lightly, scikit-image and scikit-learn (`tests/golden/`), checked through the public functions.

// A test reports by panicking, helpers included.
#![allow(clippy::unwrap_used, clippy::panic)]

mod golden {
    pub mod case;

    mod augment;
    mod distill;
    mod evaluation;
    mod losses;
    mod networks;
    mod objectives;
    mod operations;
    mod training;

    /// Every file in `cases/` is checked by a test, and every test has its file.
    #[test]
    fn every_file_is_used() {
        let folder = std::fs::read_dir(case::folder()).unwrap();
        let mut there: Vec<String> = folder.map(|f| f.unwrap().file_name().into_string().unwrap()).collect();
        there.sort();
        let lists = [
            augment::FILES,
            distill::FILES,
            evaluation::FILES,
            losses::FILES,
            networks::FILES,
            objectives::FILES,
            operations::FILES,
            training::FILES,
        ];
        let mut used: Vec<String> = lists.concat().iter().map(|f| format!("{f}.safetensors")).collect();
        used.sort();
        assert_eq!(there, used);
    }
}
