//! Feature maps on the host, and convolutions of any shape as products of lowered rows with a matrix.

use ddpm_kernels::conv::Geometry;
use ddpm_kernels::{Backend, Epilogue, Operand};
use ddpm_tensor::Tensor;
use rayon::prelude::*;

use crate::error::Error;

/// A feature map `[N, H, W, C]` on the host.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Map {
    pub(super) shape: [usize; 4],
    pub(super) values: Vec<f32>,
}

/// A window that slides over a map: its height and width, its step, and the zeros around the map above and below, left and
/// right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) size: [usize; 2],
    pub(super) stride: usize,
    pub(super) padding: [usize; 2],
}

impl Window {
    /// One pixel.
    pub(super) const ONE: Self = Self { size: [1, 1], stride: 1, padding: [0, 0] };

    /// One that keeps the map's size; both sides odd.
    pub(super) const fn same(height: usize, width: usize) -> Self {
        Self { size: [height, width], stride: 1, padding: [(height - 1) / 2, (width - 1) / 2] }
    }

    /// 3x3 within the map.
    pub(super) const fn inside(stride: usize) -> Self {
        Self { size: [3, 3], stride, padding: [0, 0] }
    }

    fn output(self, h: usize, w: usize) -> [usize; 2] {
        let along = |side: usize, axis: usize| (side + 2 * self.padding[axis] - self.size[axis]) / self.stride + 1;
        [along(h, 0), along(w, 1)]
    }

    /// For each pixel of the result, what `visit` makes of the pixels of the window that lie in the map: their number in the
    /// window and their place in the image.
    fn over(
        self,
        map: &Map,
        channels_out: usize,
        visit: impl Fn(&mut [f32], &[f32], &mut dyn Iterator<Item = (usize, usize)>) + Sync,
    ) -> Map {
        let [n, h, w, c] = map.shape;
        let [h_out, w_out] = self.output(h, w);
        let mut values = vec![0.0; n * h_out * w_out * channels_out];
        values.par_chunks_mut(w_out * channels_out).enumerate().for_each(|(row, out)| {
            let (image, y) = (row / h_out, row % h_out);
            let pixels = &map.values[image * h * w * c..(image + 1) * h * w * c];
            for (x, out) in out.chunks_exact_mut(channels_out).enumerate() {
                let taps = (0..self.size[0] * self.size[1]).filter_map(|tap| {
                    let (dy, dx) = (tap / self.size[1], tap % self.size[1]);
                    let y = (y * self.stride + dy).checked_sub(self.padding[0]).filter(|&y| y < h)?;
                    let x = (x * self.stride + dx).checked_sub(self.padding[1]).filter(|&x| x < w)?;
                    Some((tap, (y * w + x) * c))
                });
                visit(out, pixels, &mut { taps });
            }
        });
        Map { shape: [n, h_out, w_out, channels_out], values }
    }
}

impl Map {
    /// The mean of each window, over the pixels that lie in the map.
    pub(super) fn average(&self, window: Window) -> Self {
        let c = self.shape[3];
        window.over(self, c, |out, pixels, taps| {
            let mut count = 0.0;
            for (_, at) in taps {
                count += 1.0;
                out.iter_mut().zip(&pixels[at..at + c]).for_each(|(sum, x)| *sum += x);
            }
            for sum in out.iter_mut() {
                *sum /= count;
            }
        })
    }

    /// The largest value of each window.
    pub(super) fn largest(&self, window: Window) -> Self {
        let c = self.shape[3];
        window.over(self, c, |out, pixels, taps| {
            out.fill(f32::NEG_INFINITY);
            for (_, at) in taps {
                out.iter_mut().zip(&pixels[at..at + c]).for_each(|(most, &x)| *most = most.max(x));
            }
        })
    }

    /// Maps of one size, concatenated along C.
    pub(super) fn concat(maps: &[Self]) -> Self {
        let [n, h, w, _] = maps.first().map_or([0; 4], |map| map.shape);
        let c: usize = maps.iter().map(|map| map.shape[3]).sum();
        let mut values = Vec::with_capacity(n * h * w * c);
        for pixel in 0..n * h * w {
            for map in maps {
                let own = map.shape[3];
                values.extend_from_slice(&map.values[pixel * own..(pixel + 1) * own]);
            }
        }
        Self { shape: [n, h, w, c], values }
    }

    /// The mean over the pixels of each image, `[N, C]`.
    pub(super) fn means(&self) -> Vec<f32> {
        let [n, h, w, c] = self.shape;
        let mut all = Vec::with_capacity(n * c);
        for image in self.values.chunks_exact((h * w * c).max(1)) {
            let mut sums = vec![0.0_f64; c];
            for pixel in image.chunks_exact(c) {
                sums.iter_mut().zip(pixel).for_each(|(sum, &x)| *sum += f64::from(x));
            }
            all.extend(sums.into_iter().map(|sum| (sum / (h * w) as f64) as f32));
        }
        all
    }

    /// Bilinear interpolation with half-pixel centres, clamped at the edges and not antialiased (PyTorch's `interpolate` with
    /// `align_corners=False`).
    pub(super) fn resized(&self, height: usize, width: usize) -> Self {
        let [n, h, w, c] = self.shape;
        let axis = |from: usize, to: usize| -> Vec<(usize, usize, f32)> {
            let scale = from as f32 / to as f32;
            let place = |i: usize| {
                let source = ((i as f32 + 0.5) * scale - 0.5).max(0.0);
                let first = (source as usize).min(from - 1);
                (first, (first + 1).min(from - 1), source - first as f32)
            };
            (0..to).map(place).collect()
        };
        let (rows, columns) = (axis(h, height), axis(w, width));
        let mut values = vec![0.0; n * height * width * c];
        values.par_chunks_mut(width * c).enumerate().for_each(|(row, out)| {
            let image = &self.values[row / height * h * w * c..];
            let (top, bottom, down) = rows[row % height];
            for (out, &(left, right, along)) in out.chunks_exact_mut(c).zip(&columns) {
                for (channel, out) in out.iter_mut().enumerate() {
                    let at = |y: usize, x: usize| image[(y * w + x) * c + channel];
                    let mix = |y: usize| at(y, left) * (1.0 - along) + at(y, right) * along;
                    *out = mix(top) * (1.0 - down) + mix(bottom) * down;
                }
            }
        });
        Self { shape: [n, height, width, c], values }
    }
}

/// A convolution with bias by lowering: each window of the map becomes a row, and the rows are multiplied with a matrix.
#[derive(Debug)]
pub(super) struct Convolution<B: Backend<Elem = f32>> {
    window: Window,
    /// `[1, 1, taps·C_in, C_out]`.
    weight: Tensor<B>,
    bias: Tensor<B>,
}

impl<B: Backend<Elem = f32>> Convolution<B> {
    /// Of weights `[taps·C_in, C_out]`, the taps row after row.
    ///
    /// # Errors
    /// Those of the device.
    pub(super) fn new(backend: &B, window: Window, weight: &[f32], bias: &[f32]) -> Result<Self, Error> {
        let c_out = bias.len();
        let weight = Tensor::from_slice(backend, [1, 1, weight.len() / c_out.max(1), c_out], weight)?;
        Ok(Self { window, weight, bias: Tensor::from_slice(backend, [c_out], bias)? })
    }

    /// The convolution of a map.
    ///
    /// # Errors
    /// Another number of channels; those of the device.
    pub(super) fn forward(&self, backend: &B, map: &Map) -> Result<Map, Error> {
        let c = map.shape[3];
        let taps = self.window.size[0] * self.window.size[1];
        let lowered;
        let rows = if self.window == Window::ONE {
            map
        } else {
            lowered = self.window.over(map, taps * c, |out, pixels, taps| {
                for (tap, at) in taps {
                    out[tap * c..(tap + 1) * c].copy_from_slice(&pixels[at..at + c]);
                }
            });
            &lowered
        };
        let x = Tensor::from_slice(backend, rows.shape, &rows.values)?;
        let epilogue = Epilogue { bias: Some(self.bias.view()), ..Epilogue::default() };
        let y = backend.conv(&Operand::plain(x.view()), self.weight.view(), Geometry::ONE, &epilogue)?.y;
        Ok(Map { shape: y.shape().nhwc(), values: y.to_vec(backend)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(h: usize, w: usize) -> Map {
        Map { shape: [1, h, w, 1], values: (0..h * w).map(|i| i as f32).collect() }
    }

    #[test]
    fn pools_look_at_what_lies_in_the_map() {
        let map = map(3, 3);
        let average = map.average(Window::same(3, 3));
        assert_eq!(average.values, [2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 5.5, 6.0]);
        let largest =
            Map { values: map.values.iter().map(|x| -x).collect(), ..map.clone() }.largest(Window::same(3, 3));
        assert_eq!(largest.values, [0.0, 0.0, -1.0, 0.0, 0.0, -1.0, -3.0, -3.0, -4.0]);
        assert_eq!(map.largest(Window::inside(2)).values, [8.0]);
        assert_eq!(map.means(), [4.0]);
    }

    #[test]
    fn resizing_keeps_what_has_the_size_and_interpolates_between_centres() {
        let map = map(2, 3);
        assert_eq!(map.resized(2, 3), map);
        assert_eq!(map.resized(2, 6).values[..6], [0.0, 0.25, 0.75, 1.25, 1.75, 2.0]);
        let both = Map::concat(&[map.clone(), map.clone()]);
        assert_eq!((both.shape, &both.values[..4]), ([1, 2, 3, 2], &[0.0, 0.0, 1.0, 1.0][..]));
    }
}
