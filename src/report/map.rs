//! Maps of feature space: one mark an image, its class told by colour and shape together, its thumbnail under the pointer.

use super::html::Html;
use super::image::{Picture, Sheet};
use super::space::Space;
use super::{pca, tsne};
use engine::Result;
use serde_json::json;

/// Side of the drawing, and the margin in it.
const SIDE: f64 = 420.0;
const MARGIN: f64 = 10.0;
/// Pixels of the longer side of a thumbnail: less in colour, which takes three times the bytes.
const THUMBNAIL: [usize; 2] = [28, 24];
/// Colours and shapes of marks. The page's style has the colours.
const COLOURS: usize = 10;
const SHAPES: [&str; 5] = [
    "M-3,0a3,3 0 1,0 6,0a3,3 0 1,0 -6,0Z",
    "M-2.7,-2.7h5.4v5.4h-5.4Z",
    "M0,-3.6L3.4,2.6H-3.4Z",
    "M0,-3.8L3.8,0L0,3.8L-3.8,0Z",
    "M-3.2,-1h2.2v-2.2h2v2.2h2.2v2h-2.2v2.2h-2v-2.2h-2.2Z",
];
/// Classes that are told apart.
const TOLD: usize = COLOURS * SHAPES.len();

/// Two maps of the same images.
pub struct Maps {
    /// Which queries are shown.
    indices: Vec<usize>,
    pca: pca::Projection,
    tsne: Option<(Vec<[f64; 2]>, f64)>,
}

/// The marks' shapes, once a page.
pub fn define_marks(h: &mut Html) {
    h.element("svg", &[("class", "marks"), ("aria-hidden", "true"), ("width", "0"), ("height", "0")], |h| {
        h.element("defs", &[], |h| {
            for (i, shape) in SHAPES.iter().enumerate() {
                h.void("path", &[("id", &format!("mark-{i}")), ("d", shape)]);
            }
        });
    });
}

/// Colour and shape of a class: no two of the first fifty share both.
fn mark(label: i32) -> (usize, usize) {
    let c = label.max(0) as usize;
    (c % COLOURS, (c + c / COLOURS) % SHAPES.len())
}

/// Thumbnails of the mapped images of a dataset, in the maps' order.
pub fn thumbnails(space: &Space, maps: &Maps) -> Result<Sheet> {
    let images = &space.queries.images;
    let side = THUMBNAIL[usize::from(images.channels() == 3)];
    let picture = |&i: &usize| Picture::of(&images.image(i)?).at_most(side);
    Sheet::new(&maps.indices.iter().map(picture).collect::<Result<Vec<_>>>()?)
}

impl Maps {
    /// Maps of at most `points` queries, evenly spread.
    pub fn new(space: &Space, points: usize, seed: u64) -> Result<Maps> {
        let n = space.queries.len();
        let count = points.min(n);
        let indices: Vec<usize> = (0..count).map(|i| i * n / count.max(1)).collect();
        let rows: Vec<f32> = indices.iter().flat_map(|&i| space.queries.row(i).iter().copied()).collect();
        let pca = pca::project(&rows, space.queries.dim)?;
        let settings = tsne::Settings { seed, ..tsne::Settings::default() };
        let tsne = (count >= 10).then(|| {
            let map = tsne::map(&rows, space.queries.dim, &pca.points, settings);
            (map, tsne::perplexity(count, settings.perplexity))
        });
        Ok(Maps { indices, pca, tsne })
    }

    /// Writes both maps, with thumbnails of sheet number `sheet`, and one legend.
    pub fn draw(&self, h: &mut Html, space: &Space, id: &str, sheet: usize) {
        let kind = if space.tested { "test" } else { "training" };
        h.note(&format!(
            "Features of {} {kind} images, scaled to length 1. Under the pointer: the image. Two dimensions cannot hold what {} do: classes \
             that overlap here may be apart there.",
            self.indices.len(),
            space.queries.dim
        ));
        h.element("div", &[("class", "maps")], |h| {
            let [a, b] = self.pca.explained.map(|part| format!("{:.0} %", 100.0 * part));
            let title = format!("PCA: the two directions of largest variance ({a} and {b} of it)");
            self.map(h, space, &format!("{id}-pca"), &title, &self.pca.points, sheet);
            match &self.tsne {
                Some((points, perplexity)) => {
                    let title = format!(
                        "t-SNE, perplexity {}: who is near whom; sizes and distances of clusters mean nothing",
                        super::chart::number(*perplexity)
                    );
                    self.map(h, space, &format!("{id}-tsne"), &title, points, sheet);
                }
                None => h.missing("No t-SNE: it needs at least ten images."),
            }
        });
        self.legend(h, space);
    }

    fn map(&self, h: &mut Html, space: &Space, id: &str, title: &str, points: &[[f64; 2]], sheet: usize) {
        let range = |c: usize| {
            let values = || points.iter().map(|p| p[c]);
            (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max))
        };
        let (x, y) = (range(0), range(1));
        // One scale for both directions: a map.
        let extent = (x.1 - x.0).max(y.1 - y.0).max(1e-12);
        let at = |v: f64, (low, high): (f64, f64)| {
            MARGIN + (SIDE - 2.0 * MARGIN) * (0.5 + (v - (low + high) / 2.0) / extent)
        };
        let names: Vec<String> = self
            .indices
            .iter()
            .map(|&i| space.queries.label(i).map_or(String::new(), |l| space.class(l)))
            .collect();
        let mut classes = names.clone();
        classes.sort();
        classes.dedup();
        let of: Vec<usize> = names.iter().map(|n| classes.binary_search(n).unwrap_or(0)).collect();
        let data = json!({"classes": classes, "of": of}).to_string();
        h.element("figure", &[("class", "map"), ("id", id)], |h| {
            h.leaf("figcaption", &[], title);
            let view = format!("0 0 {SIDE} {SIDE}");
            let sheet = sheet.to_string();
            let label = format!("{title}; {} images", points.len());
            let attributes = [
                ("viewBox", view.as_str()),
                ("role", "img"),
                ("aria-label", &label),
                ("data-sheet", &sheet),
                ("data-map", &data),
            ];
            h.element("svg", &attributes, |h| {
                for (i, point) in points.iter().enumerate() {
                    let label = space.queries.label(self.indices[i]);
                    let (colour, shape) = label.map_or((0, 0), mark);
                    // Upwards is larger.
                    let (px, py) = (at(point[0], x), at(-point[1], (-y.1, -y.0)));
                    let (px, py) = (format!("{px:.1}"), format!("{py:.1}"));
                    let (href, class) = (format!("#mark-{shape}"), format!("k{colour}"));
                    h.void("use", &[("href", &href), ("x", &px), ("y", &py), ("class", &class)]);
                }
            });
        });
    }

    fn legend(&self, h: &mut Html, space: &Space) {
        let Some(labels) = &space.queries.labels else {
            return h.missing("There are no labels: marks have one colour.");
        };
        let shown: Vec<i32> = self.indices.iter().map(|&i| labels[i]).collect();
        let mut classes = shown.clone();
        classes.sort_unstable();
        classes.dedup();
        h.element("ul", &[("class", "legend classes")], |h| {
            for &class in classes.iter().take(TOLD) {
                let (colour, shape) = mark(class);
                let count = shown.iter().filter(|l| **l == class).count();
                h.element("li", &[], |h| {
                    h.element("svg", &[("viewBox", "-5 -5 10 10"), ("aria-hidden", "true")], |h| {
                        h.void(
                            "use",
                            &[("href", &format!("#mark-{shape}")), ("class", &format!("k{colour}"))],
                        );
                    });
                    h.text(&format!(" {} ({count})", space.class(class)));
                });
            }
        });
        if classes.len() > TOLD {
            h.note(&format!("Marks repeat after {TOLD} of the {} classes.", classes.len()));
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_two_of_fifty_classes_look_alike() {
        let mut seen: Vec<_> = (0..super::TOLD as i32).map(super::mark).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 50);
    }
}
