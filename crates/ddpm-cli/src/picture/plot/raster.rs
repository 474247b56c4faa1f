//! Charts as pixels.

use super::{Anchor, Canvas, Ink, Pen, Point, axes::Axes};
use crate::picture::{Picture, font};

/// A white picture that is drawn on.
pub(super) struct Raster {
    pub(super) picture: Picture,
}

impl Raster {
    pub(super) fn new(width: f64, height: f64) -> Self {
        Self { picture: Picture::filled(width.ceil() as usize, height.ceil() as usize, &[255; 3]) }
    }

    /// Lays a colour over a pixel, `cover` from 0 to 1.
    fn blend(&mut self, x: i64, y: i64, colour: [u8; 3], cover: f64) {
        if x < 0 || y < 0 || x >= self.picture.width as i64 || y >= self.picture.height as i64 {
            return;
        }
        let at = (y as usize * self.picture.width + x as usize) * 3;
        for (old, new) in self.picture.pixels[at..at + 3].iter_mut().zip(colour) {
            *old = (f64::from(*old) + (f64::from(new) - f64::from(*old)) * cover).round() as u8;
        }
    }

    /// A line with round ends; where both are the same, a dot.
    fn line(&mut self, a: Point, b: Point, radius: f64, colour: [u8; 3], opacity: f64) {
        let reach = radius + 1.0;
        let (x0, x1) = ((a.0.min(b.0) - reach).floor() as i64, (a.0.max(b.0) + reach).ceil() as i64);
        let (y0, y1) = ((a.1.min(b.1) - reach).floor() as i64, (a.1.max(b.1) + reach).ceil() as i64);
        let (dx, dy) = (b.0 - a.0, b.1 - a.1);
        let length2 = dx * dx + dy * dy;
        for y in y0..=y1 {
            for x in x0..=x1 {
                let (px, py) = (x as f64 - a.0, y as f64 - a.1);
                let t = if length2 > 0.0 { ((px * dx + py * dy) / length2).clamp(0.0, 1.0) } else { 0.0 };
                let distance = (px - t * dx).hypot(py - t * dy);
                // How much of the pixel the line covers, as a ramp one pixel wide.
                let cover = (radius + 0.5 - distance).clamp(0.0, 1.0);
                if cover > 0.0 {
                    self.blend(x, y, colour, cover * opacity);
                }
            }
        }
    }
}

impl Canvas for Raster {
    fn lines(&mut self, points: &[Point], pen: Pen<'_>) {
        let colour = match pen.ink {
            Ink::Text => [40; 3],
            Ink::Grid => [226; 3],
            Ink::Colour(colour) => colour,
        };
        // How far along the whole line each piece begins, for the dashes.
        let mut along = 0.0;
        for pair in points.windows(2) {
            let (a, b) = (pair[0], pair[1]);
            let length = (b.0 - a.0).hypot(b.1 - a.1);
            if !pen.dashed {
                self.line(a, b, pen.width / 2.0, colour, pen.opacity);
                continue;
            }
            let at = |s: f64| (a.0 + (b.0 - a.0) * s / length, a.1 + (b.1 - a.1) * s / length);
            let mut s = 0.0;
            while s < length {
                let phase = (along + s) % DASH.1;
                let next = (s + if phase < DASH.0 { DASH.0 - phase } else { DASH.1 - phase }.max(1e-6)).min(length);
                if phase < DASH.0 {
                    self.line(at(s), at(next), pen.width / 2.0, colour, pen.opacity);
                }
                s = next;
            }
            along += length;
        }
    }

    fn dot(&mut self, at: Point, colour: [u8; 3]) {
        self.line(at, at, 3.0, colour, 1.0);
    }

    fn text(&mut self, text: &str, (x, y): Point, anchor: Anchor) {
        let left = match anchor {
            Anchor::Start => x,
            Anchor::Middle => x - self.width(text) / 2.0,
            Anchor::End => x - self.width(text),
        };
        let (left, top) = (left.round() as i64, y.round() as i64);
        for (column, row) in font::dots(text) {
            for (i, j) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
                self.blend(left + 2 * column as i64 + i, top + 2 * row as i64 + j, [40; 3], 1.0);
            }
        }
    }

    fn width(&self, text: &str) -> f64 {
        2.0 * font::width(text) as f64
    }

    fn frame(&mut self, _: [f64; 4], _: &Axes) {}
}

/// Length of a dash, and of a dash with the gap behind it.
pub(super) const DASH: (f64, f64) = (8.0, 13.0);
