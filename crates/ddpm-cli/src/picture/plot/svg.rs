//! Charts as SVG: sharp at every size, with text that can be searched.

use std::fmt::Write as _;

use super::{Anchor, Canvas, Ink, Pen, Point, axes::Axes, raster::DASH};

/// Height of letters.
const FONT: f64 = 15.0;
/// What letters and the lines behind curves look like where no page says so.
const STYLE: &str = "<style>.text{fill:#282828}.axis{stroke:#282828}.grid{stroke:#e2e2e2}</style>";

/// An element that grows.
pub(super) struct Svg {
    width: f64,
    height: f64,
    body: String,
}

impl Svg {
    pub(super) fn new(width: f64, height: f64) -> Self {
        Self { width, height, body: String::new() }
    }

    /// The element, for a page that says what its classes look like.
    pub(super) fn element(&self) -> String {
        self.with("")
    }

    /// A document of its own, on white.
    pub(super) fn alone(&self) -> String {
        self.with(&format!("{STYLE}<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>"))
    }

    fn with(&self, first: &str) -> String {
        let Self { width, height, body } = self;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" \
             height=\"{height:.0}\" font-family=\"system-ui, sans-serif\" font-size=\"{FONT}\" fill=\"none\" \
             stroke-linejoin=\"round\" stroke-linecap=\"round\">{first}\n{body}</svg>\n"
        )
    }
}

impl Canvas for Svg {
    fn lines(&mut self, points: &[Point], pen: Pen<'_>) {
        let Some((first, rest)) = points.split_first() else { return };
        let _ = write!(self.body, "<path d=\"M{:.1} {:.1}", first.0, first.1);
        for (x, y) in rest {
            let _ = write!(self.body, "L{x:.1} {y:.1}");
        }
        let _ = match pen.ink {
            Ink::Text => write!(self.body, "\" class=\"axis\""),
            Ink::Grid => write!(self.body, "\" class=\"grid\""),
            Ink::Colour(colour) => write!(self.body, "\" stroke=\"{}\"", hex(colour)),
        };
        if !pen.name.is_empty() {
            let _ = write!(self.body, " class=\"curve\" data-name=\"{}\"", escaped(pen.name));
        }
        if pen.width != 1.0 {
            let _ = write!(self.body, " stroke-width=\"{}\"", pen.width);
        }
        if pen.opacity != 1.0 {
            let _ = write!(self.body, " opacity=\"{}\"", pen.opacity);
        }
        if pen.dashed {
            let _ = write!(self.body, " stroke-dasharray=\"{} {}\"", DASH.0, DASH.1 - DASH.0);
        }
        self.body.push_str("/>\n");
    }

    fn dot(&mut self, (x, y): Point, colour: [u8; 3]) {
        let _ = writeln!(self.body, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{}\"/>", hex(colour));
    }

    fn text(&mut self, text: &str, (x, y): Point, anchor: Anchor) {
        if text.is_empty() {
            return;
        }
        let anchor = match anchor {
            Anchor::Start => "",
            Anchor::Middle => " text-anchor=\"middle\"",
            Anchor::End => " text-anchor=\"end\"",
        };
        // From the upper edge to the line on which letters stand.
        let y = y + 0.8 * FONT;
        let _ = writeln!(self.body, "<text class=\"text\" x=\"{x:.1}\" y=\"{y:.1}\"{anchor}>{}</text>", escaped(text));
    }

    fn width(&self, text: &str) -> f64 {
        // Fonts differ; most letters are narrower.
        0.6 * FONT * text.chars().count() as f64
    }

    fn frame(&mut self, [left, top, right, bottom]: [f64; 4], axes: &Axes) {
        // For a page's script: where the frame is, and what it spans.
        let ((x0, x1), (y0, y1)) = (axes.x, axes.y);
        let (width, height) = (right - left, bottom - top);
        let _ = writeln!(
            self.body,
            "<rect class=\"frame\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" \
             data-x=\"{x0:e} {x1:e}\" data-y=\"{y0:e} {y1:e}\" data-log=\"{}\"/>",
            u8::from(axes.log)
        );
    }
}

fn hex([red, green, blue]: [u8; 3]) -> String {
    format!("#{red:02x}{green:02x}{blue:02x}")
}

/// A text as it stands in XML and HTML.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // Control characters are not allowed in XML.
            c if c.is_control() && !matches!(c, '\n' | '\t') => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_do_not_break_the_document() {
        let mut svg = Svg::new(10.0, 10.0);
        svg.text("a<b> & \"c\"\u{1}", (0.0, 0.0), Anchor::Start);
        assert!(svg.alone().contains(">a&lt;b&gt; &amp; &quot;c&quot;</text>"));
    }
}
