//! Line charts: how the loss runs.

use super::{Picture, font};

/// What a series looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// A thin pale line, for what is noisy.
    Faint,
    /// A line.
    Line,
    /// A line with a dot at every point, for what is measured now and then.
    Dots,
}

/// One curve.
#[derive(Debug, Clone)]
pub(crate) struct Series {
    /// Its name in the legend.
    pub(crate) name: String,
    /// (x, y), x not falling. Points that are not finite are left out, and so is y ≤ 0.
    pub(crate) points: Vec<(f64, f64)>,
    /// Its colour, RGB.
    pub(crate) colour: [u8; 3],
    /// Its looks.
    pub(crate) style: Style,
}

/// Colours that differ in hue and in brightness.
pub(crate) const COLOURS: [[u8; 3]; 6] =
    [[31, 94, 168], [206, 91, 30], [44, 138, 72], [136, 66, 140], [160, 130, 20], [80, 80, 80]];

const WIDTH: usize = 960;
const HEIGHT: usize = 540;
/// The axes' frame: left, top, right, bottom.
const FRAME: [f64; 4] = [92.0, 44.0, 936.0, 486.0];
const INK: [u8; 3] = [40, 40, 40];
const GRID: [u8; 3] = [226, 226, 226];

/// Draws curves over steps, on a logarithmic axis of losses.
pub(crate) fn draw(title: &str, x_name: &str, series: &[Series]) -> Picture {
    let mut canvas = Canvas { picture: Picture::filled(WIDTH, HEIGHT, &[255, 255, 255]) };
    let series: Vec<Series> = series.iter().map(finite).filter(|series| !series.points.is_empty()).collect();
    let [left, top, right, bottom] = FRAME;
    let axes = Axes::around(&series);
    for x in ticks(axes.x.0, axes.x.1) {
        let at = axes.to_pixel((x, 1.0)).0;
        canvas.line((at, top), (at, bottom), 0.5, GRID, 1.0);
        canvas.text(&number(x), at, bottom + 8.0, Anchor::Middle, INK);
    }
    for y in log_ticks(axes.y.0, axes.y.1) {
        let at = axes.to_pixel((0.0, y)).1;
        canvas.line((left, at), (right, at), 0.5, GRID, 1.0);
        canvas.text(&number(y), left - 8.0, at - 7.0, Anchor::End, INK);
    }
    for one in &series {
        let (radius, opacity) = if one.style == Style::Faint { (0.5, 0.3) } else { (1.0, 1.0) };
        let pixels: Vec<_> = thinned(&one.points).into_iter().map(|point| axes.to_pixel(point)).collect();
        for pair in pixels.windows(2) {
            canvas.line(pair[0], pair[1], radius, one.colour, opacity);
        }
        for &at in pixels.iter().filter(|_| one.style == Style::Dots || pixels.len() == 1) {
            canvas.line(at, at, 3.0, one.colour, 1.0);
        }
    }
    for (from, to) in [((left, top), (left, bottom)), ((left, bottom), (right, bottom))] {
        canvas.line(from, to, 0.6, INK, 1.0);
    }
    canvas.text(title, left, 14.0, Anchor::Start, INK);
    canvas.text(x_name, right, bottom + 30.0, Anchor::End, INK);
    let mut x = right;
    for one in series.iter().rev().filter(|one| one.style != Style::Faint) {
        canvas.text(&one.name, x, 14.0, Anchor::End, INK);
        x -= 2.0 * font::width(&one.name) as f64 + 10.0;
        canvas.line((x - 18.0, 21.0), (x, 21.0), 1.5, one.colour, 1.0);
        x -= 36.0;
    }
    if series.is_empty() {
        canvas.text("nothing to show yet", WIDTH as f64 / 2.0, HEIGHT as f64 / 2.0, Anchor::Middle, INK);
    }
    canvas.picture
}

fn finite(series: &Series) -> Series {
    let shown = |(x, y): &(f64, f64)| x.is_finite() && y.is_finite() && *y > 0.0;
    Series { points: series.points.iter().copied().filter(shown).collect(), ..series.clone() }
}

/// At most a few points a pixel column: longer series become means of neighbours.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let each = points.len().div_ceil(2 * WIDTH).max(1);
    let mean = |chunk: &[(f64, f64)]| {
        let n = chunk.len() as f64;
        (chunk.iter().map(|p| p.0).sum::<f64>() / n, chunk.iter().map(|p| p.1).sum::<f64>() / n)
    };
    points.chunks(each).map(mean).collect()
}

/// What the frame spans.
struct Axes {
    x: (f64, f64),
    y: (f64, f64),
}

impl Axes {
    fn around(series: &[Series]) -> Self {
        let mut x = (f64::INFINITY, f64::NEG_INFINITY);
        let mut y = x;
        for one in series {
            let mut ys: Vec<f64> = one.points.iter().map(|p| p.1).collect();
            ys.sort_by(f64::total_cmp);
            // A few wild values of a noisy series must not squeeze the rest.
            let cut = if one.style == Style::Faint { ys.len() / 100 } else { 0 };
            y = (y.0.min(ys[cut]), y.1.max(ys[ys.len() - 1 - cut]));
            let (first, last) = (one.points[0].0, one.points[one.points.len() - 1].0);
            x = (x.0.min(first), x.1.max(last));
        }
        if x.0 > x.1 {
            return Self { x: (0.0, 1.0), y: (0.1, 1.0) };
        }
        if x.0 == x.1 {
            x = (x.0 - 1.0, x.1 + 1.0);
        }
        // A little air, and never a span of nothing.
        Self { x, y: (y.0 / 1.15, y.1 * 1.15) }
    }

    fn to_pixel(&self, (x, y): (f64, f64)) -> (f64, f64) {
        let [left, top, right, bottom] = FRAME;
        let across = (x - self.x.0) / (self.x.1 - self.x.0);
        let up = (y.ln() - self.y.0.ln()) / (self.y.1.ln() - self.y.0.ln());
        (left + across * (right - left), bottom - up.clamp(0.0, 1.0) * (bottom - top))
    }
}

/// Round numbers in a range, five or so.
fn ticks(min: f64, max: f64) -> Vec<f64> {
    let rough = (max - min) / 6.0;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|m| m * power).into_iter().find(|step| *step >= rough).unwrap_or(rough);
    let (first, last) = ((min / step).ceil() as i64, (max / step).floor() as i64);
    (first..=last.min(first + 20)).map(|i| i as f64 * step).collect()
}

/// Numbers for a logarithmic axis: 1, 2 and 5 of each power of ten, or round numbers where these are fewer than three.
fn log_ticks(min: f64, max: f64) -> Vec<f64> {
    let (low, high) = (min.log10().floor() as i32, max.log10().ceil() as i32);
    let all: Vec<f64> = (low..=high)
        .flat_map(|power| [1.0, 2.0, 5.0].map(|m| m * 10f64.powi(power)))
        .filter(|y| (min..=max).contains(y))
        .collect();
    match all.len() {
        0..3 => ticks(min, max),
        3..12 => all,
        _ => (low..=high).map(|power| 10f64.powi(power)).filter(|y| (min..=max).contains(y)).collect(),
    }
}

/// A tick's number, short.
fn number(x: f64) -> String {
    let text = match x.abs() {
        0.0 => return "0".to_owned(),
        1e6.. => return format!("{}m", trim(&format!("{:.2}", x / 1e6))),
        1e4.. => return format!("{}k", trim(&format!("{:.1}", x / 1e3))),
        1e-4.. => format!("{x:.4}"),
        _ => return format!("{x:.0e}"),
    };
    trim(&text).to_owned()
}

fn trim(text: &str) -> &str {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text }
}

#[derive(Clone, Copy)]
enum Anchor {
    Start,
    Middle,
    End,
}

struct Canvas {
    picture: Picture,
}

impl Canvas {
    /// Lays a colour over a pixel, `cover` from 0 to 1.
    fn blend(&mut self, x: i64, y: i64, colour: [u8; 3], cover: f64) {
        if x < 0 || y < 0 || x >= WIDTH as i64 || y >= HEIGHT as i64 {
            return;
        }
        let at = (y as usize * WIDTH + x as usize) * 3;
        for (old, new) in self.picture.pixels[at..at + 3].iter_mut().zip(colour) {
            *old = (f64::from(*old) + (f64::from(new) - f64::from(*old)) * cover).round() as u8;
        }
    }

    /// A line with round ends; where both are the same, a dot.
    fn line(&mut self, a: (f64, f64), b: (f64, f64), radius: f64, colour: [u8; 3], opacity: f64) {
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

    fn text(&mut self, text: &str, x: f64, y: f64, anchor: Anchor, colour: [u8; 3]) {
        let width = 2.0 * font::width(text) as f64;
        let left = match anchor {
            Anchor::Start => x,
            Anchor::Middle => x - width / 2.0,
            Anchor::End => x - width,
        };
        let (left, top) = (left.round() as i64, y.round() as i64);
        for (column, row) in font::dots(text) {
            for (i, j) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
                self.blend(left + 2 * column as i64 + i, top + 2 * row as i64 + j, colour, 1.0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(points: Vec<(f64, f64)>) -> Series {
        Series { name: "loss".to_owned(), points, colour: COLOURS[0], style: Style::Line }
    }

    #[test]
    fn a_falling_curve_is_drawn_falling() {
        let points = (1..=100).map(|x| (f64::from(x), 1.0 / f64::from(x))).collect();
        let picture = draw("run", "step", &[series(points)]);
        let height_at = |x: usize| {
            let is_curve = |y: &usize| picture.pixels[(y * WIDTH + x) * 3..][..3] == COLOURS[0];
            (FRAME[1] as usize..FRAME[3] as usize).find(is_curve)
        };
        let heights: Vec<_> = [150, 400, 900].into_iter().filter_map(height_at).collect();
        assert_eq!(heights.len(), 3);
        assert!(heights[0] < heights[1] && heights[1] < heights[2], "{heights:?}");
    }

    #[test]
    fn odd_series_are_drawn_without_complaint() {
        for points in [vec![], vec![(5.0, 0.1)], vec![(1.0, f64::NAN), (2.0, -1.0)], vec![(1.0, 2.0), (1.0, 2.0)]] {
            assert_eq!(draw("", "", &[series(points)]).pixels.len(), WIDTH * HEIGHT * 3);
        }
        let long = (0..50_000).map(|x| (f64::from(x), 1.0 + f64::from(x % 7))).collect();
        draw("", "", &[Series { style: Style::Faint, ..series(long) }]);
    }

    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(ticks(0.0, 1500.0), [0.0, 500.0, 1000.0, 1500.0]);
        assert_eq!(log_ticks(0.02, 1.2), [0.02, 0.05, 0.1, 0.2, 0.5, 1.0]);
        assert!(log_ticks(0.0251, 0.0262).len() >= 3);
        assert_eq!([0.05, 1500.0, 250_000.0, 2e6, 0.0].map(number), ["0.05", "1500", "250k", "2m", "0"]);
    }
}
