//! What can be seen inside an encoder: its first layer's filters, and where a ViT's class token looks.

use super::html::Html;
use super::image::{Picture, byte};
use crate::evaluate::features::Trained;
use autograd::{Var, module};
use data::{Dataset, Evaluation};
use engine::{Error, Result, Tensor};
use std::sync::Arc;

/// Filters shown.
const FILTERS: usize = 64;
/// Images whose attention is shown, and maps of all together.
const IMAGES: usize = 6;
const MAPS: usize = 72;
/// Pixels of the longer side of an image.
const SIDE: usize = 64;

/// The weights of the first layer.
pub struct Filters {
    name: String,
    shape: [usize; 4],
    /// A picture each of the first ones.
    addresses: Vec<String>,
}

impl Filters {
    /// The first convolution or patch embedding of the encoder. Each filter's weights are scaled by the largest of them.
    pub fn new(trained: &mut Trained) -> Result<Filters> {
        let parts = module::parts(trained.encoder.as_mut());
        // Kernels are [out, rows, columns, in] in memory.
        let found = parts.params.iter().find(|(_, p)| p.value().rank() == 4);
        let (name, weight) =
            found.ok_or_else(|| Error::value("report", "the encoder has no convolution and no patches"))?;
        let &[count, h, w, c] = weight.value().shape() else {
            return Err(Error::shape("report", "a kernel is [out, rows, columns, in]"));
        };
        let values = weight.value().to_vec::<f32>()?;
        let one = h * w * c;
        let picture = |filter: &[f32]| {
            let largest = filter.iter().fold(0f32, |a, v| a.max(v.abs())).max(f32::MIN_POSITIVE);
            // Channels other than grey and RGB are seen one under the other.
            let size = if matches!(c, 1 | 3) { [h, w, c] } else { [h * c, w, 1] };
            Picture { size, pixels: filter.iter().map(|v| byte(0.5 + 0.5 * v / largest)).collect() }
        };
        let first = values.chunks_exact(one.max(1)).take(FILTERS);
        let addresses = first.map(|filter| picture(filter).address()).collect::<Result<_>>()?;
        Ok(Filters { name: name.clone(), shape: [count, h, w, c], addresses })
    }

    /// Writes the filters.
    pub fn draw(&self, h: &mut Html) {
        let [count, rows, columns, channels] = self.shape;
        let which = match self.addresses.len() {
            shown if shown < count => format!("The first {shown} of {count} filters"),
            _ => format!("All {count} filters"),
        };
        h.note(&format!(
            "{which} of {}, {rows} x {columns} pixels of {channels} channel{}. Each is scaled by its own largest weight: mid-grey is 0, \
             lengths cannot be compared.",
            self.name,
            if channels == 1 { "" } else { "s" }
        ));
        let label = format!("{which} of the first layer");
        h.element("div", &[("class", "filters"), ("role", "img"), ("aria-label", &label)], |h| {
            self.addresses.iter().for_each(|address| h.void("img", &[("src", address), ("alt", "")]));
        });
    }
}

/// Where the class token of the last block takes from.
pub struct Attention {
    rows: Vec<Row>,
    heads: usize,
    grid: [usize; 2],
    /// The weight of each token if all were equal.
    uniform: f32,
}

/// An image and a map a head.
struct Row {
    image: String,
    heads: Vec<Head>,
}

struct Head {
    map: String,
    /// The largest weight of a patch.
    largest: f32,
    /// What is given to the class token itself and to registers.
    elsewhere: f32,
}

impl Attention {
    /// Attention for some of the images; `None` for an encoder that is no ViT.
    pub fn new(trained: &mut Trained, images: &Arc<dyn Dataset>) -> Result<Option<Attention>> {
        let device = module::device(trained.encoder.as_mut());
        let seen = trained.sees(images)?;
        let Some(vit) = trained.encoder.vit() else { return Ok(None) };
        let (heads, prefix) = (vit.spec().heads, 1 + vit.spec().registers);
        let count = (MAPS / heads.max(1)).clamp(2, IMAGES).min(images.len());
        let some = crate::evaluate::features::spread(&seen, count)?;
        let batch = Evaluation::new(some, trained.input.clone(), count)?.next().transpose()?;
        let batch = batch.ok_or_else(|| Error::value("report", "there is no image"))?;
        let input = Var::constant(batch.views[0].to_device(device)?);
        let grid = vit.patch_embed().grid(&input)?;
        let weights: Tensor = vit.attention_maps(&input)?;
        let tokens = prefix + grid[0] * grid[1];
        weights.require_shape("report", "attention", &[count, heads, tokens, tokens])?;
        let weights = weights.to_vec::<f32>()?;
        let head = |i: usize, head: usize| -> Result<Head> {
            // The first row of a head's matrix is the class token's.
            let row = &weights[(i * heads + head) * tokens * tokens..][..tokens];
            let (before, patches) = row.split_at(prefix);
            let largest = patches.iter().copied().fold(0f32, f32::max);
            let scaled: Vec<f32> = patches.iter().map(|w| w / largest.max(f32::MIN_POSITIVE)).collect();
            let map = Picture::from_unit([grid[0], grid[1], 1], &scaled).address()?;
            Ok(Head { map, largest, elsewhere: before.iter().sum() })
        };
        let shown = crate::evaluate::features::spread(images, count)?;
        let rows = (0..count).map(|i| {
            let image = Picture::of(&shown.image(i)?).at_most(SIDE)?.address()?;
            Ok(Row { image, heads: (0..heads).map(|j| head(i, j)).collect::<Result<_>>()? })
        });
        let rows = rows.collect::<Result<_>>()?;
        Ok(Some(Attention { rows, heads, grid, uniform: 1.0 / tokens as f32 }))
    }

    /// Writes the maps.
    pub fn draw(&self, h: &mut Html, method: &str) {
        h.note(&format!(
            "Weights of the class token's attention over the {} x {} patches in the last block, a map for each of {} heads, in \
             evaluation mode. Each map is scaled by its own largest weight (max; {:.4} is what every token gets if all are equal); \
             \u{201c}else\u{201d} is what goes to the class token itself and to registers. They say where a head takes values from in this one \
             block: not what decides the features, and not that it found an object.",
            self.grid[0], self.grid[1], self.heads, self.uniform
        ));
        if method == "mae" {
            h.note(
                "No loss of MAE asks anything of the class token, and its features are the average of the patches: do not read \
                 more into these maps.",
            );
        }
        for row in &self.rows {
            h.element("div", &[("class", "strip")], |h| {
                let tile = |h: &mut Html, address: &str, alt: &str, lines: [String; 2]| {
                    h.element("figure", &[("class", "tile")], |h| {
                        h.void("img", &[("src", address), ("alt", alt), ("style", "width:64px")]);
                        h.element("figcaption", &[], |h| lines.iter().for_each(|l| h.leaf("span", &[], l)));
                    });
                };
                tile(h, &row.image, "image", ["image".into(), String::new()]);
                for (i, head) in row.heads.iter().enumerate() {
                    let lines = [format!("max {:.3}", head.largest), format!("else {:.2}", head.elsewhere)];
                    tile(h, &head.map, &format!("attention of head {}", i + 1), lines);
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kernels::augment::Recipe;
    use models::{Arch, ImageShape};

    fn trained(arch: &Arch, channels: usize) -> Trained {
        let image = ImageShape { height: 8, width: 12, channels };
        let encoder = models::build(arch, image, 3).unwrap();
        Trained { encoder, input: Recipe::evaluation(8, 12), lightness: false, origin: "test".into() }
    }

    /// The class token's own row, and of it the patches behind the registers.
    #[test]
    fn a_map_is_the_class_tokens_row_without_prefix() {
        let arch = Arch { registers: Some(2), heads: Some(3), patch: Some(4), ..Arch::named("vit-micro") };
        let mut trained = trained(&arch, 1);
        for (i, (_, param)) in module::parts(trained.encoder.as_mut()).params.into_iter().enumerate() {
            let random = kernels::array::Array::<f32>::random(param.value().shape(), i as u64, 1.0);
            param.set(random.to_tensor().unwrap()).unwrap();
        }
        let pixels: Vec<u8> = (0..5 * 96).map(|i| (i * 37) as u8).collect();
        let images: Arc<dyn Dataset> =
            Arc::new(data::InMemory::new("x", pixels.clone(), [8, 12, 1], vec![], vec![]).unwrap());
        let found = Attention::new(&mut trained, &images).unwrap().unwrap();
        assert_eq!((found.rows.len(), found.heads, found.grid, found.uniform), (5, 3, [2, 3], 1.0 / 9.0));
        let input: Vec<f32> = pixels.iter().map(|v| f32::from(*v) / 255.0).collect();
        let input = Var::constant(Tensor::from_slice(&input, &[5, 8, 12, 1]).unwrap());
        let all = trained.encoder.vit().unwrap().attention_maps(&input).unwrap().to_vec::<f32>().unwrap();
        for (i, row) in found.rows.iter().enumerate() {
            for (j, head) in row.heads.iter().enumerate() {
                let weights = &all[(i * 3 + j) * 81..][..9];
                let largest = weights[3..].iter().copied().fold(0.0, f32::max);
                assert_eq!((head.largest, head.elsewhere), (largest, weights[..3].iter().sum()));
                let scaled: Vec<f32> = weights[3..].iter().map(|w| w / largest).collect();
                assert_eq!(head.map, Picture::from_unit([2, 3, 1], &scaled).address().unwrap());
            }
        }
        let mut resnet = self::trained(&Arch { width: Some(4), ..Arch::named("resnet-small") }, 1);
        assert!(Attention::new(&mut resnet, &images).unwrap().is_none());
    }

    #[test]
    fn filters_are_the_first_kernel_each_scaled_by_itself() {
        let mut trained = trained(&Arch { width: Some(4), ..Arch::named("resnet-small") }, 3);
        let found = Filters::new(&mut trained).unwrap();
        assert_eq!(
            (found.name.as_str(), found.shape, found.addresses.len()),
            ("conv1.weight", [4, 3, 3, 3], 4)
        );
        let parts = module::parts(trained.encoder.as_mut());
        let weight = parts.params[0].1.value().to_vec::<f32>().unwrap();
        let last = &weight[81..];
        let largest = last.iter().fold(0f32, |a, v| a.max(v.abs()));
        let values: Vec<f32> = last.iter().map(|v| 0.5 + 0.5 * v / largest).collect();
        assert_eq!(found.addresses[3], Picture::from_unit([3, 3, 3], &values).address().unwrap());
        assert!(values.iter().any(|v| *v == 0.0 || *v == 1.0));
    }
}
