//! What a frame spans, and the round numbers beside it.

use super::{Point, Scale, Series, Style};

/// What the frame spans.
#[derive(Debug)]
pub(super) struct Axes {
    /// Lowest and highest x.
    pub(super) x: (f64, f64),
    /// Lowest and highest y.
    pub(super) y: (f64, f64),
    /// Whether y is laid out by its logarithm.
    pub(super) log: bool,
}

/// From this ratio of the largest to the smallest value on, a logarithm shows more.
const WIDE: f64 = 30.0;

impl Axes {
    /// Axes for all the curves.
    pub(super) fn around(scale: Scale, series: &[Series]) -> Self {
        let log = match scale {
            Scale::Linear => false,
            Scale::Log => true,
            Scale::Auto => {
                let ys = || series.iter().flat_map(|one| &one.points).map(|p| p.1).filter(|y| y.is_finite());
                let (min, max) = ys().fold((f64::INFINITY, 0.0_f64), |(min, max), y| (min.min(y), max.max(y)));
                min > 0.0 && max / min >= WIDE
            }
        };
        let mut axes = Self { x: (0.0, 1.0), y: if log { (0.1, 1.0) } else { (0.0, 1.0) }, log };
        let (mut x, mut y) = ((f64::INFINITY, f64::NEG_INFINITY), (f64::INFINITY, f64::NEG_INFINITY));
        for one in series {
            let points: Vec<Point> = one.points.iter().copied().filter(|point| axes.shows(*point)).collect();
            let mut ys: Vec<f64> = points.iter().map(|p| p.1).collect();
            ys.sort_by(f64::total_cmp);
            let (Some(first), Some(last)) = (points.first(), points.last()) else { continue };
            // A few wild values of a noisy series must not squeeze the rest.
            let cut = if one.style == Style::Faint { ys.len() / 100 } else { 0 };
            y = (y.0.min(ys[cut]), y.1.max(ys[ys.len() - 1 - cut]));
            x = (x.0.min(first.0), x.1.max(last.0));
        }
        if x.0 > x.1 {
            return axes;
        }
        axes.x = if x.0 == x.1 { (x.0 - 1.0, x.1 + 1.0) } else { x };
        // A little air, and never a span of nothing.
        axes.y = if log {
            (y.0 / 1.15, y.1 * 1.15)
        } else {
            let low = if y.0 >= 0.0 && y.0 < 0.5 * y.1 { 0.0 } else { y.0 };
            let air = 0.05 * if y.1 > low { y.1 - low } else { y.1.abs().max(1e-9) };
            (if low == 0.0 { 0.0 } else { low - air }, y.1 + air)
        };
        axes
    }

    /// Whether a point has a place.
    pub(super) fn shows(&self, (x, y): Point) -> bool {
        x.is_finite() && y.is_finite() && (y > 0.0 || !self.log)
    }

    /// Where a point is, in parts of the frame to the right and upwards.
    pub(super) fn place(&self, (x, y): Point) -> Point {
        let part = |(low, high): (f64, f64), at: f64| (at - low) / (high - low);
        let up = if self.log { part((self.y.0.ln(), self.y.1.ln()), y.ln()) } else { part(self.y, y) };
        (part(self.x, x), up)
    }

    /// Round numbers along x, at most so many or a few more.
    pub(super) fn x_ticks(&self, about: usize) -> Vec<f64> {
        ticks(self.x.0, self.x.1, about)
    }

    /// Round numbers along y.
    pub(super) fn y_ticks(&self) -> Vec<f64> {
        if self.log { log_ticks(self.y.0, self.y.1) } else { ticks(self.y.0, self.y.1, 5) }
    }
}

/// Round numbers in a range, `about` so many.
fn ticks(min: f64, max: f64, about: usize) -> Vec<f64> {
    let rough = (max - min) / about as f64;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|m| m * power).into_iter().find(|step| *step >= rough).unwrap_or(rough);
    let (first, last) = ((min / step).ceil() as i64, (max / step).floor() as i64);
    (first..=last.min(first + 20)).map(|i| i as f64 * step).collect()
}

/// Numbers for a logarithmic axis: 1, 2 and 5 of each power of ten, or round numbers where these are fewer than three.
fn log_ticks(min: f64, max: f64) -> Vec<f64> {
    let (low, high) = (min.log10().floor() as i32, max.log10().ceil() as i32);
    // Parsed, so that they are the numbers that are meant: 10^-2 times 2 is a little more than 0.02.
    let round = |power: i32, m: u32| format!("{m}e{power}").parse().unwrap_or(f64::NAN);
    let of = |of: &[u32]| -> Vec<f64> {
        let all = (low..=high).flat_map(|power| of.iter().map(move |&m| round(power, m)));
        all.filter(|y| (min..=max).contains(y)).collect()
    };
    let all = of(&[1, 2, 5]);
    match all.len() {
        0..3 => ticks(min, max, 6),
        3..9 => all,
        _ => of(&[1]),
    }
}

/// A tick's number, short.
pub(super) fn number(x: f64) -> String {
    // Four digits hide what sums of steps leave behind.
    let x: f64 = format!("{x:.3e}").parse().unwrap_or(x);
    match x.abs() {
        0.0 => "0".to_owned(),
        1e6.. => format!("{}M", x / 1e6),
        1e4.. => format!("{}k", x / 1e3),
        1e-4.. => format!("{x}"),
        _ => format!("{x:e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(ticks(0.0, 1500.0, 6), [0.0, 500.0, 1000.0, 1500.0]);
        assert_eq!(log_ticks(0.02, 1.2), [0.02, 0.05, 0.1, 0.2, 0.5, 1.0]);
        assert_eq!(log_ticks(1e-4, 2.0), [1e-4, 1e-3, 0.01, 0.1, 1.0]);
        assert!(log_ticks(0.0251, 0.0262).len() >= 3);
        let said = [0.05, 1500.0, 250_000.0, 2e6, 0.0, 3.0 * 0.1, 2.5e-5, -0.5].map(number);
        assert_eq!(said, ["0.05", "1500", "250k", "2M", "0", "0.3", "2.5e-5", "-0.5"]);
    }

    #[test]
    fn an_axis_is_logarithmic_where_that_shows_more() {
        let of = |ys: &[f64]| {
            let points = ys.iter().enumerate().map(|(x, y)| (x as f64, *y)).collect();
            let one = Series { name: String::new(), points, colour: [0; 3], style: Style::Line };
            Axes::around(Scale::Auto, &[one])
        };
        assert!(of(&[1.0, 100.0]).log && !of(&[1.0, 2.0]).log && !of(&[-1.0, 100.0]).log && !of(&[]).log);
        // From zero where zero is near.
        assert_eq!(of(&[1.0, 10.0]).y.0, 0.0);
        assert!(of(&[9.0, 10.0]).y.0 > 8.0);
    }
}
