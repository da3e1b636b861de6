//! Operations on the values of single pixels, in place.

use crate::multiversion;

/// ITU-R 601 luma weights as torchvision rounds them.
pub(super) const GREY: [f32; 3] = [0.2989, 0.587, 0.114];
/// Pixels whose hue is turned together.
const BLOCK: usize = 16;
/// Partial sums of a mean.
const LANES: usize = 8;

#[inline(always)]
fn unit(x: f32) -> f32 {
    x.clamp(0.0, 1.0)
}

#[inline(always)]
fn grey(p: &[f32; 3]) -> f32 {
    GREY[0] * p[0] + GREY[1] * p[1] + GREY[2] * p[2]
}

multiversion! {
    /// Every value to the nearest in \[0, 1\].
    pub(super) fn clamp(pixels: &mut [f32]) {
        for p in pixels.iter_mut() {
            *p = unit(*p);
        }
    }
}

multiversion! {
    /// See [`super::brightness`].
    pub(super) fn brightness(pixels: &mut [f32], factor: f32) {
        for p in pixels.iter_mut() {
            *p = unit(*p * factor);
        }
    }
}

multiversion! {
    /// See [`super::contrast`].
    pub(super) fn contrast(pixels: &mut [f32], channels: usize, factor: f32) {
        let mean = match channels {
            3 => mean(pixels.as_chunks::<3>().0, grey),
            _ => mean(pixels.as_chunks::<1>().0, |p| p[0]),
        };
        let offset = mean * (1.0 - factor);
        for p in pixels.iter_mut() {
            *p = unit(*p * factor + offset);
        }
    }
}

/// The mean of a function of the pixels: eight partial sums in f64, added in order.
#[inline(always)]
fn mean<const C: usize>(pixels: &[[f32; C]], value: impl Fn(&[f32; C]) -> f32) -> f32 {
    let mut sums = [0f64; LANES];
    let (blocks, rest) = pixels.as_chunks::<LANES>();
    for block in blocks {
        for (sum, p) in sums.iter_mut().zip(block) {
            *sum += f64::from(value(p));
        }
    }
    for (sum, p) in sums.iter_mut().zip(rest) {
        *sum += f64::from(value(p));
    }
    (sums.iter().sum::<f64>() / pixels.len().max(1) as f64) as f32
}

multiversion! {
    /// See [`super::saturation`].
    pub(super) fn saturation(pixels: &mut [f32], channels: usize, factor: f32) {
        if channels == 3 {
            for p in pixels.as_chunks_mut::<3>().0 {
                let offset = grey(p) * (1.0 - factor);
                *p = [unit(p[0] * factor + offset), unit(p[1] * factor + offset), unit(p[2] * factor + offset)];
            }
        }
    }
}

multiversion! {
    /// See [`super::grayscale`].
    pub(super) fn grayscale(pixels: &mut [f32], channels: usize) {
        if channels == 3 {
            for p in pixels.as_chunks_mut::<3>().0 {
                *p = [grey(p); 3];
            }
        }
    }
}

multiversion! {
    /// See [`super::solarize`].
    pub(super) fn solarize(pixels: &mut [f32], threshold: f32) {
        for p in pixels.iter_mut() {
            *p = if *p >= threshold { 1.0 - *p } else { *p };
        }
    }
}

multiversion! {
    /// See [`super::normalize`]; `mean` and `std` have one element a channel.
    pub(super) fn normalize(pixels: &mut [f32], mean: &[f32], std: &[f32]) {
        match (mean, std) {
            ([m], [s]) => {
                for p in pixels.iter_mut() {
                    *p = (*p - m) / s;
                }
            }
            ([m0, m1, m2], [s0, s1, s2]) => {
                for p in pixels.as_chunks_mut::<3>().0 {
                    *p = [(p[0] - m0) / s0, (p[1] - m1) / s1, (p[2] - m2) / s2];
                }
            }
            _ => {
                for p in pixels.chunks_exact_mut(mean.len()) {
                    for (p, (m, s)) in p.iter_mut().zip(mean.iter().zip(std)) {
                        *p = (*p - m) / s;
                    }
                }
            }
        }
    }
}

multiversion! {
    /// See [`super::hue`].
    pub(super) fn hue(pixels: &mut [f32], channels: usize, shift: f32) {
        if channels == 3 {
            let (blocks, rest) = pixels.as_chunks_mut::<3>().0.as_chunks_mut::<BLOCK>();
            for block in blocks {
                turn(block, shift);
            }
            let mut last = [[0f32; 3]; BLOCK];
            last[..rest.len()].copy_from_slice(rest);
            turn(&mut last, shift);
            rest.copy_from_slice(&last[..rest.len()]);
        }
    }
}

/// Turns the hue of a block of RGB pixels. Free of branches, so that the block is one vector.
#[inline(always)]
fn turn(block: &mut [[f32; 3]; BLOCK], shift: f32) {
    let (mut red, mut green, mut blue) = ([0f32; BLOCK], [0f32; BLOCK], [0f32; BLOCK]);
    for (i, p) in block.iter().enumerate() {
        [red[i], green[i], blue[i]] = *p;
    }
    for i in 0..BLOCK {
        let (r, g, b) = (red[i], green[i], blue[i]);
        let high = r.max(g).max(b);
        let range = high - r.min(g).min(b);
        let divisor = if range == 0.0 { 1.0 } else { range };
        // The sector of the circle, 0 ..= 6, from the channel that is largest; the first one on ties.
        let sector = if r == high {
            (g - b) / divisor
        } else if g == high {
            2.0 + (b - r) / divisor
        } else {
            4.0 + (r - g) / divisor
        };
        let turned = wrap(sector + 6.0 * shift);
        // high - range max(0, min(k, 4 - k, 1)) with k = (n + sector) mod 6; n is 5, 3, 1 for R, G, B.
        let channel = |n: f32| {
            let k = wrap(n + turned);
            high - range * k.min(4.0 - k).clamp(0.0, 1.0)
        };
        red[i] = channel(5.0);
        green[i] = channel(3.0);
        blue[i] = channel(1.0);
    }
    for (i, p) in block.iter_mut().enumerate() {
        *p = [red[i], green[i], blue[i]];
    }
}

/// `x` in -6 .. 12 modulo 6.
#[inline(always)]
fn wrap(x: f32) -> f32 {
    let x = if x < 0.0 { x + 6.0 } else { x };
    if x >= 6.0 { x - 6.0 } else { x }
}
