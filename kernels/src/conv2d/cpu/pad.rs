//! Images with a border of zeros.

use crate::parallel;

/// A window of an `[h, w, c]` image that may reach over its edges; what lies outside is zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    pub h: usize,
    pub w: usize,
    pub c: usize,
    /// Image row of the window's first row.
    pub top: isize,
    /// Image column of the window's first column.
    pub left: isize,
    /// Size of the window.
    pub rows: usize,
    pub columns: usize,
}

impl Window {
    /// Elements of one image.
    pub(super) fn image(&self) -> usize {
        self.h * self.w * self.c
    }

    /// Elements of one window.
    pub(super) fn len(&self) -> usize {
        self.rows * self.columns * self.c
    }

    /// Whether the window is inside and as wide as the image, so that no copy is needed.
    pub(super) fn is_inside(&self) -> bool {
        self.top == 0 && self.left == 0 && self.rows <= self.h && self.columns == self.w
    }

    /// Copies the windows of consecutive images.
    pub(super) fn copy(&self, images: &[f32], out: &mut [f32]) {
        for (image, out) in
            images.chunks_exact(self.image().max(1)).zip(out.chunks_exact_mut(self.len().max(1)))
        {
            self.copy_one(image, out);
        }
    }

    /// [`Window::copy`] in parallel, of as many images as `out` has room for.
    pub(super) fn copy_parallel(&self, images: &[f32], out: &mut [f32]) {
        let step = (parallel::GRAIN / self.len().max(1)).max(1);
        parallel::chunks(out, step * self.len(), |start, out| {
            let first = start / self.len();
            let count = out.len() / self.len();
            self.copy(&images[first * self.image()..(first + count) * self.image()], out);
        });
    }

    fn copy_one(&self, image: &[f32], out: &mut [f32]) {
        let line = self.columns * self.c;
        // Columns of the window before the image, and those that both have.
        let before = (-self.left).clamp(0, self.columns as isize) as usize;
        let first = self.left.max(0) as usize;
        let shared = self.w.saturating_sub(first).min(self.columns - before);
        for (i, out) in out.chunks_exact_mut(line.max(1)).enumerate() {
            let row = self.top + i as isize;
            if row < 0 || row >= self.h as isize || shared == 0 {
                out.fill(0.0);
                continue;
            }
            let from = (row as usize * self.w + first) * self.c;
            let (left, rest) = out.split_at_mut(before * self.c);
            let (middle, right) = rest.split_at_mut(shared * self.c);
            left.fill(0.0);
            middle.copy_from_slice(&image[from..from + shared * self.c]);
            right.fill(0.0);
        }
    }
}
