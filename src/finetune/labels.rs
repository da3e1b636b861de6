//! Which labelled training images are used: all, a share of every class, or so many of every class.
//!
//! A subset is a function of the training labels and the seed. For one seed the smaller is a part of the larger. Test
//! images are never looked at.

use data::{Dataset, Splits, Subset};
use engine::random::Purpose;
use engine::{Error, ErrorKind, Philox, Result};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// What `--labels` says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Labels {
    /// Every training image.
    All,
    /// This part of the images of every class, above 0 and below 1; at least one of each. The parts of classes of equal
    /// size are equal.
    Share(f64),
    /// So many images of every class.
    PerClass(usize),
}

impl FromStr for Labels {
    type Err = Error;

    fn from_str(text: &str) -> Result<Labels> {
        let percent = text.strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok());
        let count = text.strip_suffix("/class").and_then(|number| number.trim().parse::<usize>().ok());
        match (text, percent, count) {
            ("all", ..) => Ok(Labels::All),
            (_, Some(percent), _) if percent > 0.0 && percent < 100.0 => Ok(Labels::Share(percent / 100.0)),
            (_, _, Some(count)) if count > 0 => Ok(Labels::PerClass(count)),
            _ => {
                let rule = "all, a percentage between 0% and 100% such as 1%, or a number of each class such as 10/class";
                Err(Error::new(ErrorKind::Usage, "--labels", format!("'{text}' is none of: {rule}")))
            }
        }
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Labels::All => f.write_str("all"),
            // What a decimal fraction loses by the division is no part of the name.
            Labels::Share(share) => write!(f, "{}%", (share * 1e8).round() / 1e6),
            Labels::PerClass(count) => write!(f, "{count}/class"),
        }
    }
}

/// The classes of labelled data. An error unless every training and every test image has a label, and there is one of each.
pub fn require_labelled(splits: &Splits) -> Result<usize> {
    for part in [&splits.train, &splits.test] {
        if part.is_empty() || (0..part.len()).any(|i| part.label(i).is_none()) {
            let text = "has images without labels, or none at all: fine-tuning needs labelled training and test images";
            return Err(Error::value("finetune", format!("{} {text}", part.name())));
        }
    }
    let classes = splits.train.classes().len();
    match (0..splits.test.len()).filter_map(|i| splits.test.label(i)).find(|label| *label >= classes) {
        None => Ok(classes),
        Some(label) => {
            let text =
                format!("a test image is of class {label}, the training images have {classes} classes");
            Err(Error::value("finetune", text))
        }
    }
}

/// The training images that `labels` takes of `train`, in their order there. Classes without any image have no part in it.
///
/// Errors: images without labels, a class with fewer images than are wanted.
pub fn choose(train: &Arc<dyn Dataset>, labels: Labels, seed: u64) -> Result<Arc<dyn Dataset>> {
    if labels == Labels::All {
        return Ok(train.clone());
    }
    Ok(Arc::new(Subset::new(train.clone(), indices(train.as_ref(), labels, seed)?)?))
}

/// Which images [`choose`] takes.
pub fn indices(train: &dyn Dataset, labels: Labels, seed: u64) -> Result<Vec<usize>> {
    if labels == Labels::All {
        return Ok((0..train.len()).collect());
    }
    let mut classes: Vec<Vec<usize>> = vec![Vec::new(); train.classes().len()];
    for i in 0..train.len() {
        let class = train
            .label(i)
            .and_then(|label| classes.get_mut(label))
            .ok_or_else(|| Error::value("--labels", format!("image {i} of {} has no label", train.name())))?;
        class.push(i);
    }
    let mut chosen = Vec::new();
    for (class, images) in classes.iter().enumerate() {
        let wanted = match labels {
            Labels::All => images.len(),
            _ if images.is_empty() => 0,
            Labels::Share(share) => ((share * images.len() as f64).round() as usize).max(1),
            Labels::PerClass(count) => count,
        };
        if wanted > images.len() {
            let (name, there) = (&train.classes()[class], images.len());
            let text = format!("{wanted} images of every class are asked for, and '{name}' has {there}");
            return Err(Error::new(ErrorKind::Usage, "--labels", text));
        }
        let order = Philox::new(seed, Purpose::Split, class as u64).permutation(images.len());
        chosen.extend(order[..wanted].iter().map(|&i| images[i]));
    }
    chosen.sort_unstable();
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use data::InMemory;

    /// Images of one pixel, which is their number: 40 of class 0, 60 of class 1, 100 of class 2, mixed.
    fn set(classes: usize) -> Arc<dyn Dataset> {
        let labels: Vec<u8> = (0..200).map(|i| [0, 1, 2, 2, 1, 0, 2, 1, 2, 2][i % 10]).collect();
        let names = (0..classes).map(|i| format!("class {i}")).collect();
        Arc::new(InMemory::new("x", (0..200).collect(), [1, 1, 1], labels, names).unwrap())
    }

    /// The images that are chosen, and how many of each class.
    fn taken(labels: &str, seed: u64) -> (Vec<u8>, [usize; 3]) {
        let part = choose(&set(3), labels.parse().unwrap(), seed).unwrap();
        let images = (0..part.len()).map(|i| part.image(i).unwrap().pixels[0]).collect();
        let count = |class| (0..part.len()).filter(|&i| part.label(i) == Some(class)).count();
        (images, [count(0), count(1), count(2)])
    }

    #[test]
    fn subsets_are_balanced() {
        assert_eq!(taken("all", 1).1, [40, 60, 100]);
        assert_eq!(taken("7/class", 1).1, [7, 7, 7]);
        assert_eq!(taken("10%", 1).1, [4, 6, 10]);
        assert_eq!(taken("0.1%", 1).1, [1, 1, 1]);
        let error = choose(&set(3), Labels::PerClass(41), 1).err().unwrap();
        assert!(error.message().contains("'class 0' has 40"), "{error}");
        for labels in [Labels::PerClass(5), Labels::Share(0.01)] {
            let with_an_empty_class = choose(&set(4), labels, 1).unwrap();
            assert_eq!(with_an_empty_class.len(), choose(&set(3), labels, 1).unwrap().len());
        }
    }

    #[test]
    fn subsets_are_nested_and_fixed_by_the_seed() {
        let chain = ["1/class", "4/class", "10/class", "40/class"].map(|labels| taken(labels, 5).0);
        for (small, large) in chain.iter().zip(&chain[1..]) {
            assert!(small.iter().all(|image| large.contains(image)), "{small:?} in {large:?}");
        }
        assert!(chain[2].is_sorted() && chain[2] == taken("10/class", 5).0);
        assert_ne!(chain[2], taken("10/class", 6).0);
    }

    #[test]
    fn names_are_read_and_written() {
        for text in ["all", "1%", "0.5%", "12.3%", "10/class"] {
            assert_eq!(text.parse::<Labels>().unwrap().to_string(), text);
        }
        for text in ["", "1", "0%", "100%", "nan%", "-1%", "0/class", "1.5/class", "ten/class", "All", "%"] {
            let error = text.parse::<Labels>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage, "{text}");
            assert!(error.message().contains("10/class"), "{error}");
        }
    }
}
