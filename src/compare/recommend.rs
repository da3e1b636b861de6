//! One recommendation, of the user's own numbers.
//!
//! The guide behind it: where unlabelled images abound and labels are few, pre-train and fine-tune; encoders are compared by a
//! linear probe; what goes into production is fine-tuned; a small or narrow dataset wants pre-training on more images of
//! its own kind. The method is chosen by what was reached on training images that were held out; test images say how good it is.

use super::measure::Scores;
use super::methods::{Floors, Found};
use super::supervised::Reached;
use super::{half_width, half_width_of_difference};
use serde::{Deserialize, Serialize};

/// What a recommendation is made of.
#[derive(Debug, Clone)]
pub struct Evidence<'a> {
    /// Training and test images.
    pub images: [usize; 2],
    /// Few labels as the user named them, and how many images have them.
    pub few: (&'a str, usize),
    /// What each method got, in words.
    pub budget: &'a str,
    /// Every method that could be trained.
    pub methods: &'a [Found],
    /// The floors of the recommended method's kind of encoder.
    pub floors: Floors,
    /// The recommended encoder, fine-tuned with few labels and with all.
    pub tuned: [Reached; 2],
    /// The same architecture from scratch with few labels and with all.
    pub scratch: [Reached; 2],
}

/// Whether pre-training is worth it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// With few labels and with all.
    Always,
    /// With few labels; with all of them training from scratch is as good.
    FewLabels,
    /// With all labels; with few it makes no difference that the test images can show.
    AllLabels,
    /// Nowhere, within this budget.
    Never,
}

/// The recommendation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recommendation {
    /// The method that is best on held-out training images.
    pub method: String,
    /// Whether it is worth pre-training.
    pub verdict: Verdict,
    /// What to do, in a sentence.
    pub advice: String,
    /// The numbers behind it.
    pub why: String,
    /// How far chance could have made them.
    pub confidence: String,
    /// Where it does not hold.
    pub limits: String,
}

/// Fewer training images than these are a small dataset: contrast and reconstruction have little to learn from.
const SMALL: usize = 5000;

/// The method to recommend: the best with few labels on held-out training images; of equals the better linear probe there, then the
/// first.
pub fn best(methods: &[Found]) -> Option<&Found> {
    let rank = |found: &Found| (found.scores.few_held_out, found.scores.linear_held_out);
    methods.iter().rev().max_by(|a, b| {
        let (a, b) = (rank(a), rank(b));
        a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1))
    })
}

/// Whether `a` beats `b` by more than chance moves accuracies on so many test images.
fn beats(a: f64, b: f64, tested: usize) -> bool {
    a - b > half_width_of_difference(a, b, tested)
}

/// `82.10 % against 78.00 %`
fn against(a: f64, b: f64) -> String {
    format!("{a:.2} % against {b:.2} %")
}

/// The recommendation that the evidence gives; none without a method.
pub fn recommend(evidence: &Evidence) -> Option<Recommendation> {
    let Evidence { images: [trained, tested], few: (few, labelled), .. } = *evidence;
    let found = best(evidence.methods)?;
    let ([tuned_few, tuned_all], [scratch_few, scratch_all]) =
        (evidence.tuned.map(|r| r.top1), evidence.scratch.map(|r| r.top1));
    let floors = evidence.floors;
    // With few labels a probe can be the better use of either encoder.
    let with_few = found.scores.few.max(tuned_few);
    let random = |score: fn(&Scores) -> f64| floors.random_by(score);
    let without = scratch_few.max(floors.pixels.few).max(random(|s| s.few));
    let verdict = match (beats(with_few, without, tested), beats(tuned_all, scratch_all, tested)) {
        (true, true) => Verdict::Always,
        (true, false) => Verdict::FewLabels,
        (false, true) => Verdict::AllLabels,
        (false, false) => Verdict::Never,
    };
    let name = &found.method;
    let use_few = match tuned_few >= found.scores.few {
        true => "fine-tune the whole encoder",
        false => "train a linear layer on its frozen features",
    };
    let advice = match verdict {
        Verdict::Always => format!(
            "Pre-train with {name} on all images, then fine-tune: with few labels ({few}) {use_few}, with all of them the whole encoder."
        ),
        Verdict::FewLabels => format!(
            "Pre-train with {name} on all images and, with labels for few of them ({few}), {use_few}. With all labels, train from scratch."
        ),
        Verdict::AllLabels => {
            format!("Pre-train with {name} on all images and fine-tune the whole encoder with all labels.")
        }
        Verdict::Never => format!(
            "Do not pre-train for this data within {}: {}. If you must, {name} came out best.",
            evidence.budget,
            match scratch_all >= floors.pixels.linear {
                true => "train with your labels from scratch",
                false => "a linear classifier on raw pixels does as well",
            }
        ),
    };
    let why = format!(
        "With {labelled} labelled images ({few}): {name}'s features give {:.2} % in a linear probe and {tuned_few:.2} % fine-tuned; from scratch \
         {scratch_few:.2} %, the same encoder at random {:.2} %, raw pixels {:.2} %. With all {trained} labels: fine-tuned {} from scratch \
         in the same time; linear probe {:.2} %, at random {:.2} %, raw pixels {:.2} %. {name} was chosen among {} by {:.2} % \
         with few labels on training images that were held out, not on the test images.",
        found.scores.few,
        random(|s| s.few),
        floors.pixels.few,
        against(tuned_all, scratch_all),
        found.scores.linear,
        random(|s| s.linear),
        floors.pixels.linear,
        evidence.methods.len(),
        found.scores.few_held_out,
    );
    Some(Recommendation {
        method: name.clone(),
        verdict,
        advice,
        why,
        confidence: confidence(evidence, found),
        limits: limits(evidence, verdict, [scratch_all, tuned_all]),
    })
}

/// How sure the choice and the gain are.
fn confidence(evidence: &Evidence, found: &Found) -> String {
    let tested = evidence.images[1];
    let few = found.scores.few;
    let others: Vec<Found> = evidence.methods.iter().filter(|m| m.method != found.method).cloned().collect();
    let next = match best(&others) {
        None => "There is no other method to compare with.".into(),
        Some(second) => {
            let difference = few - second.scores.few;
            let allowed = half_width_of_difference(few, second.scores.few, tested);
            let known = match difference.abs() > allowed {
                true => "more than chance explains",
                false => "no more than chance explains: take either",
            };
            format!(
                "The next best, {}, differs by {difference:+.2} points with few labels on the test images, where {allowed:.2} may be \
                 chance: {known}.",
                second.method
            )
        }
    };
    format!(
        "{tested} test images tell an accuracy of {few:.2} % to within ±{:.2} points (95 %). {next} The choice of the few labelled images \
         moves it by {:.2} points (deviation of {} choices). Every method was trained once: another seed moves it, too.",
        half_width(few, tested),
        found.scores.few_deviation,
        super::measure::SEEDS,
    )
}

/// When it would not be worth it, or not be true.
fn limits(evidence: &Evidence, verdict: Verdict, [scratch, tuned]: [f64; 2]) -> String {
    let [trained, tested] = evidence.images;
    let chance = half_width_of_difference(tuned, scratch, tested);
    let mut text = match verdict {
        Verdict::FewLabels | Verdict::Never => format!(
            "It is not worth pre-training where all {trained} images have labels: {}, where {chance:.2} points may be chance, and it took {} \
             first.",
            against(tuned, scratch),
            evidence.budget
        ),
        Verdict::Always | Verdict::AllLabels => format!(
            "Even with all {trained} labels pre-training gains {:.2} points, where {chance:.2} may be chance; it is paid for by {} once, and by \
             nothing for every further task.",
            tuned - scratch,
            evidence.budget
        ),
    };
    if trained < SMALL {
        text.push_str(&format!(
            " {trained} images are few to pre-train on: look for more images of the same kind, labelled or not; an encoder trained on \
             another kind often transfers badly."
        ));
    }
    text.push_str(
        " Linear probes compare encoders; what counts in production is the fine-tuned accuracy. A longer budget can change the order: methods that \
         start slowly (masked autoencoders, self-distillation) are not done after minutes.",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::cost::Cost;

    fn scores(linear: f64, few: f64) -> Scores {
        Scores { linear, linear_held_out: linear, knn: linear, few, few_deviation: 1.0, few_held_out: few }
    }

    fn found(method: &str, linear: f64, few: f64) -> Found {
        let cost = Cost { steps: 1, seconds: 60.0, joules: None, estimated: false };
        Found { method: method.into(), arch: "a".into(), key: "k".into(), cost, scores: scores(linear, few) }
    }

    fn given(methods: &[Found], tuned: [f64; 2], scratch: [f64; 2], images: [usize; 2]) -> Recommendation {
        let reached = |top1| Reached { top1, cost: None };
        recommend(&Evidence {
            images,
            few: ("1%", 100),
            budget: "2 minutes",
            methods,
            floors: Floors {
                pixels: scores(84.0, 60.0),
                random: scores(68.0, 50.0),
                unset: Some(scores(79.0, 55.0)),
            },
            tuned: tuned.map(reached),
            scratch: scratch.map(reached),
        })
        .unwrap()
    }

    #[test]
    fn the_verdict_follows_from_the_numbers() {
        let methods = [found("simclr", 86.0, 70.0), found("mae", 80.0, 66.0)];
        for (tuned, scratch, verdict) in [
            ([72.0, 92.0], [56.0, 88.0], Verdict::Always),
            ([72.0, 88.2], [56.0, 88.0], Verdict::FewLabels),
            ([72.0, 86.0], [56.0, 88.0], Verdict::FewLabels),
            ([72.0, 92.0], [71.0, 88.0], Verdict::AllLabels),
            ([72.0, 88.0], [71.0, 88.0], Verdict::Never),
        ] {
            let found = given(&methods, tuned, scratch, [10_000, 2000]);
            assert_eq!((found.verdict, found.method.as_str()), (verdict, "simclr"));
            let pre_trains = found.advice.starts_with("Pre-train");
            assert_eq!(pre_trains, verdict != Verdict::Never, "{}", found.advice);
        }
        // The same difference on fewer test images may be chance.
        let wide = given(&methods, [72.0, 92.0], [56.0, 88.0], [10_000, 100]);
        assert_eq!(wide.verdict, Verdict::Never);
    }

    /// The method is chosen by held-out training images: a better test accuracy does not choose.
    #[test]
    fn test_images_choose_nothing() {
        let mut methods = [found("simclr", 86.0, 70.0), found("mae", 80.0, 66.0)];
        methods[1].scores.few = 99.0;
        methods[1].scores.linear = 99.0;
        methods[1].scores.knn = 99.0;
        assert_eq!(best(&methods).unwrap().method, "simclr");
        methods[1].scores.few_held_out = 71.0;
        assert_eq!(best(&methods).unwrap().method, "mae");
        assert!(best(&[]).is_none());
    }

    #[test]
    fn words_say_how_sure_and_when_not() {
        let near = [found("simclr", 86.0, 70.0), found("byol", 80.0, 69.5)];
        let text = given(&near, [72.0, 88.0], [56.0, 88.0], [10_000, 2000]);
        assert!(text.confidence.contains("byol") && text.confidence.contains("take either"), "{text:?}");
        // 1.96 sqrt(.7 .3 / 2000) = 2.01 points.
        assert!(text.confidence.contains("±2.01"), "{}", text.confidence);
        let far = [found("simclr", 86.0, 70.0), found("byol", 80.0, 60.0)];
        let text = given(&far, [72.0, 88.0], [56.0, 88.0], [3000, 2000]);
        assert!(text.confidence.contains("more than chance explains"), "{}", text.confidence);
        assert!(text.limits.contains("3000 images are few"), "{}", text.limits);
    }
}
