//! Line charts: how numbers run over steps. One layout, drawn as pixels or as SVG.

mod axes;
mod raster;
mod svg;

use std::{io::Write as _, path::Path};

use anyhow::Result;

use self::{
    axes::{Axes, number},
    raster::Raster,
    svg::Svg,
};
use super::{Picture, png};
pub(crate) use svg::escaped;

/// What a series looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// A thin pale line, for what is noisy.
    Faint,
    /// A line.
    Line,
    /// A dashed line.
    Dashes,
    /// A line with a dot at every point, for what is measured now and then.
    Dots,
}

/// One curve.
#[derive(Debug, Clone)]
pub(crate) struct Series {
    /// Its name in the legend.
    pub(crate) name: String,
    /// (x, y), x not falling. Points that are not finite are left out, and so is y ≤ 0 on a logarithmic axis.
    pub(crate) points: Vec<(f64, f64)>,
    /// Its colour, RGB.
    pub(crate) colour: [u8; 3],
    /// Its looks.
    pub(crate) style: Style,
}

/// Colours that people tell apart who see red and green, or blue, alike: those of Okabe and Ito (2008) that show on white and
/// on black.
pub(crate) const COLOURS: [[u8; 3]; 6] =
    [[0, 114, 178], [213, 94, 0], [0, 158, 115], [204, 121, 167], [230, 159, 0], [86, 180, 233]];

/// How y is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scale {
    /// Equal differences are equally far apart.
    Linear,
    /// Equal ratios are.
    Log,
    /// Logarithmic if all is positive and the largest is thirty times the smallest or more.
    Auto,
}

/// One pair of axes with its curves.
#[derive(Debug, Clone)]
pub(crate) struct Panel {
    /// What y is.
    pub(crate) name: String,
    /// How it is laid out.
    pub(crate) scale: Scale,
    /// What x is, where it is not the chart's.
    pub(crate) x_name: Option<&'static str>,
    /// The curves.
    pub(crate) series: Vec<Series>,
}

/// Panels with one legend.
#[derive(Debug, Clone)]
pub(crate) struct Chart<'a> {
    /// What stands above all.
    pub(crate) title: &'a str,
    /// What x is, in the panels that do not say it.
    pub(crate) x_name: &'a str,
    /// Panels, row by row.
    pub(crate) panels: &'a [Panel],
    /// Panels in a row.
    pub(crate) columns: usize,
    /// Width and height of a panel.
    pub(crate) panel: (f64, f64),
}

/// Draws curves over steps, on a logarithmic axis of losses.
pub(crate) fn draw(title: &str, x_name: &str, series: &[Series]) -> Picture {
    let panel = Panel { name: String::new(), scale: Scale::Log, x_name: None, series: series.to_vec() };
    Chart { title, x_name, panels: &[panel], columns: 1, panel: (960.0, 504.0) }.picture()
}

type Point = (f64, f64);

/// What a stroke or letter is coloured as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ink {
    /// Letters and axes.
    Text,
    /// The lines behind curves.
    Grid,
    /// A curve.
    Colour([u8; 3]),
}

/// How a line is drawn, and the name of the curve that it is.
#[derive(Debug, Clone, Copy)]
struct Pen<'a> {
    ink: Ink,
    width: f64,
    opacity: f64,
    dashed: bool,
    name: &'a str,
}

impl Pen<'_> {
    const fn thin(ink: Ink) -> Self {
        Self { ink, width: 1.0, opacity: 1.0, dashed: false, name: "" }
    }
}

/// Which part of a text stands at its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Anchor {
    Start,
    Middle,
    End,
}

/// What a chart is drawn on. The origin is the upper left corner.
trait Canvas {
    /// Lines from point to point.
    fn lines(&mut self, points: &[Point], pen: Pen<'_>);
    /// A dot.
    fn dot(&mut self, at: Point, colour: [u8; 3]);
    /// A text whose upper edge is at a height.
    fn text(&mut self, text: &str, at: Point, anchor: Anchor);
    /// How wide a text is, or may become.
    fn width(&self, text: &str) -> f64;
    /// What follows are the curves of this frame (left, top, right, bottom) with these axes.
    fn frame(&mut self, frame: [f64; 4], axes: &Axes);
}

/// Height of the row with the title, and of each row of the legend.
const ROW: f64 = 26.0;
/// Space around all.
const MARGIN: f64 = 14.0;
/// From a panel's edges to its frame: left, top, right, bottom.
const INSET: [f64; 4] = [86.0, 30.0, 28.0, 52.0];
/// Length of the stroke beside a name, and the gaps around it.
const STROKE: f64 = 22.0;

impl Chart<'_> {
    /// Writes it as an .svg, or as a .png where the name ends otherwise.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        if path.extension().is_some_and(|end| end.eq_ignore_ascii_case("svg")) {
            png::appear(path, |file| Ok(file.write_all(self.svg().as_bytes())?))
        } else {
            png::write(path, &self.picture(), &[])
        }
    }

    /// As pixels.
    pub(crate) fn picture(&self) -> Picture {
        let legend = self.legend(&Raster::new(0.0, 0.0));
        let (width, height) = self.size(&legend);
        let mut canvas = Raster::new(width, height);
        self.draw(&mut canvas, &legend);
        canvas.picture
    }

    /// As an SVG document that stands alone.
    pub(crate) fn svg(&self) -> String {
        self.scalable().alone()
    }

    /// As an SVG element for a page that gives the classes `text` and `grid` their colours.
    pub(crate) fn inline_svg(&self) -> String {
        self.scalable().element()
    }

    fn scalable(&self) -> Svg {
        let legend = self.legend(&Svg::new(0.0, 0.0));
        let (width, height) = self.size(&legend);
        let mut canvas = Svg::new(width, height);
        self.draw(&mut canvas, &legend);
        canvas
    }

    fn columns(&self) -> usize {
        self.columns.clamp(1, self.panels.len().max(1))
    }

    fn size(&self, legend: &Legend<'_>) -> (f64, f64) {
        let rows = self.panels.len().div_ceil(self.columns());
        (self.columns() as f64 * self.panel.0, legend.height + rows as f64 * self.panel.1)
    }

    /// Where title and names stand: each name once, right of the title or below it, in as many rows as it takes.
    fn legend(&self, canvas: &dyn Canvas) -> Legend<'_> {
        let (left, right) = (MARGIN, self.columns() as f64 * self.panel.0 - MARGIN);
        let mut shown: Vec<&Series> = Vec::new();
        for series in self.panels.iter().flat_map(|panel| &panel.series) {
            let known = shown.iter().any(|other| other.name == series.name && other.colour == series.colour);
            if series.style != Style::Faint && !series.name.is_empty() && !known {
                shown.push(series);
            }
        }
        let wide = |series: &Series| STROKE + 8.0 + canvas.width(&series.name) + 22.0;
        let total: f64 = shown.iter().map(|series| wide(series)).sum();
        let title = if self.title.is_empty() { 0.0 } else { canvas.width(self.title) + 30.0 };
        let beside = left + title + total <= right;
        let (mut x, mut y) = if beside { (right - total, MARGIN) } else { (left, MARGIN + ROW) };
        if !beside && title == 0.0 {
            y = MARGIN;
        }
        let mut names = Vec::new();
        for series in shown {
            if !beside && x > left && x + wide(series) > right {
                (x, y) = (left, y + ROW);
            }
            names.push(((x, y), series));
            x += wide(series);
        }
        let empty = names.is_empty() && title == 0.0;
        Legend { height: if empty { 0.0 } else { y + ROW - 4.0 }, names }
    }

    fn draw(&self, canvas: &mut dyn Canvas, legend: &Legend<'_>) {
        canvas.text(self.title, (MARGIN, MARGIN), Anchor::Start);
        for (at, series) in &legend.names {
            let y = at.1 + 7.0;
            let pen = Pen { width: 3.0, name: "", ..pen_of(series) };
            canvas.lines(&[(at.0, y), (at.0 + STROKE, y)], pen);
            canvas.text(&series.name, (at.0 + STROKE + 8.0, at.1), Anchor::Start);
        }
        for (i, panel) in self.panels.iter().enumerate() {
            let corner = (
                (i % self.columns()) as f64 * self.panel.0,
                legend.height + (i / self.columns()) as f64 * self.panel.1,
            );
            self.draw_panel(canvas, corner, panel);
        }
    }

    fn draw_panel(&self, canvas: &mut dyn Canvas, (x, y): Point, panel: &Panel) {
        let (width, height) = self.panel;
        let top = if panel.name.is_empty() { 8.0 } else { INSET[1] };
        let frame @ [left, top, right, bottom] = [x + INSET[0], y + top, x + width - INSET[2], y + height - INSET[3]];
        let axes = Axes::around(panel.scale, &panel.series);
        let to_pixel = |point: Point| {
            let (across, up) = axes.place(point);
            (left + across * (right - left), bottom - up.clamp(0.0, 1.0) * (bottom - top))
        };
        let room = ((right - left) / 90.0).max(2.0) as usize;
        for tick in axes.x_ticks(room) {
            let at = to_pixel((tick, 1.0)).0;
            canvas.lines(&[(at, top), (at, bottom)], Pen::thin(Ink::Grid));
            canvas.text(&number(tick), (at, bottom + 8.0), Anchor::Middle);
        }
        for tick in axes.y_ticks() {
            let at = to_pixel((0.0, tick)).1;
            canvas.lines(&[(left, at), (right, at)], Pen::thin(Ink::Grid));
            canvas.text(&number(tick), (left - 8.0, at - 7.0), Anchor::End);
        }
        canvas.frame(frame, &axes);
        let mut empty = true;
        for series in &panel.series {
            let shown: Vec<Point> = series.points.iter().copied().filter(|point| axes.shows(*point)).collect();
            let pixels: Vec<Point> = thinned(&shown, (right - left) as usize).into_iter().map(to_pixel).collect();
            empty &= pixels.is_empty();
            canvas.lines(&pixels, pen_of(series));
            for &at in pixels.iter().filter(|_| series.style == Style::Dots || pixels.len() == 1) {
                canvas.dot(at, series.colour);
            }
        }
        canvas.lines(&[(left, top), (left, bottom), (right, bottom)], Pen::thin(Ink::Text));
        canvas.text(&panel.name, (left, y + 6.0), Anchor::Start);
        canvas.text(panel.x_name.unwrap_or(self.x_name), (right, bottom + 28.0), Anchor::End);
        if empty {
            let middle = (f64::midpoint(left, right), f64::midpoint(top, bottom));
            canvas.text("nothing to show yet", middle, Anchor::Middle);
        }
    }
}

/// Where the names stand, and how high all of it is.
struct Legend<'a> {
    names: Vec<(Point, &'a Series)>,
    height: f64,
}

fn pen_of(series: &Series) -> Pen<'_> {
    let faint = series.style == Style::Faint;
    Pen {
        ink: Ink::Colour(series.colour),
        width: if faint { 1.0 } else { 2.0 },
        opacity: if faint { 0.3 } else { 1.0 },
        dashed: series.style == Style::Dashes,
        name: &series.name,
    }
}

/// At most a few points a column: longer series become means of neighbours.
fn thinned(points: &[Point], columns: usize) -> Vec<Point> {
    let each = points.len().div_ceil(columns.max(1)).max(1);
    let mean = |chunk: &[Point]| {
        let n = chunk.len() as f64;
        (chunk.iter().map(|p| p.0).sum::<f64>() / n, chunk.iter().map(|p| p.1).sum::<f64>() / n)
    };
    points.chunks(each).map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(points: Vec<Point>) -> Series {
        Series { name: "loss".to_owned(), points, colour: COLOURS[0], style: Style::Line }
    }

    #[test]
    fn a_falling_curve_is_drawn_falling() {
        let points = (1..=100).map(|x| (f64::from(x), 1.0 / f64::from(x))).collect();
        let picture = draw("run", "step", &[series(points)]);
        let height_at = |x: usize| {
            let is_curve = |y: &usize| picture.pixels[(y * picture.width + x) * 3..][..3] == COLOURS[0];
            (60..picture.height).find(is_curve)
        };
        let heights: Vec<_> = [150, 400, 900].into_iter().filter_map(height_at).collect();
        assert_eq!(heights.len(), 3);
        assert!(heights[0] < heights[1] && heights[1] < heights[2], "{heights:?}");
    }

    #[test]
    fn odd_series_are_drawn_without_complaint() {
        for points in [vec![], vec![(5.0, 0.1)], vec![(1.0, f64::NAN), (2.0, -1.0)], vec![(1.0, 2.0), (1.0, 2.0)]] {
            let picture = draw("", "", &[series(points.clone())]);
            assert_eq!(picture.pixels.len(), picture.width * picture.height * 3);
            for scale in [Scale::Linear, Scale::Log, Scale::Auto] {
                let panel = Panel { name: "x".to_owned(), scale, x_name: None, series: vec![series(points.clone())] };
                let chart = Chart { title: "", x_name: "", panels: &[panel], columns: 1, panel: (300.0, 200.0) };
                assert!(!chart.svg().contains("NaN"), "{points:?}");
            }
        }
        let long = (0..50_000).map(|x| (f64::from(x), 1.0 + f64::from(x % 7))).collect();
        draw("", "", &[Series { style: Style::Faint, ..series(long) }]);
    }

    #[test]
    fn many_names_take_rows_and_none_leaves_the_picture() {
        let many: Vec<Series> = (0..20)
            .map(|i| Series { name: format!("a run with a long name {i}"), ..series(vec![(1.0, 1.0)]) })
            .collect();
        let panel = Panel { name: "loss".to_owned(), scale: Scale::Log, x_name: None, series: many };
        let chart = Chart { title: "runs", x_name: "step", panels: &[panel], columns: 1, panel: (600.0, 300.0) };
        let canvas = Raster::new(0.0, 0.0);
        let legend = chart.legend(&canvas);
        let (width, height) = chart.size(&legend);
        assert_eq!(legend.names.len(), 20);
        for (at, series) in &legend.names {
            assert!(at.0 + STROKE + 8.0 + canvas.width(&series.name) <= width && at.1 + ROW <= height - 300.0 + 8.0);
        }
    }
}
