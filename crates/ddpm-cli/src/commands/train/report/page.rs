//! Pieces of HTML.

use std::fmt::Write as _;

use crate::picture::plot::escaped;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");
/// The page may use what is in it and nothing else.
const POLICY: &str = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'";

/// A page that grows from top to bottom.
#[derive(Debug)]
pub(super) struct Page {
    html: String,
}

impl Page {
    /// The page's head and first lines.
    pub(super) fn new(title: &str, lines: &[String]) -> Self {
        let title = escaped(title);
        let mut html = format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n\
             <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n<header>\n<h1>{title}</h1>\n"
        );
        for line in lines {
            let _ = writeln!(html, "<p class=\"soft\">{}</p>", escaped(line));
        }
        html.push_str("</header>\n");
        Self { html }
    }

    /// A few numbers, large.
    pub(super) fn numbers(&mut self, numbers: &[(&str, String)]) {
        self.html.push_str("<dl class=\"numbers\">\n");
        for (name, value) in numbers {
            let _ =
                writeln!(self.html, "<div class=\"card\"><dt>{}</dt><dd>{}</dd></div>", escaped(name), escaped(value));
        }
        self.html.push_str("</dl>\n");
    }

    /// A heading.
    pub(super) fn heading(&mut self, text: &str) {
        let _ = writeln!(self.html, "<h2>{}</h2>", escaped(text));
    }

    /// A paragraph.
    pub(super) fn paragraph(&mut self, text: &str) {
        let _ = writeln!(self.html, "<p>{}</p>", escaped(text));
    }

    /// What is HTML already.
    pub(super) fn raw(&mut self, html: &str) {
        self.html.push_str(html);
    }

    /// A table with a row for each pair, or triple.
    pub(super) fn table(&mut self, head: &[&str], rows: &[Vec<String>]) {
        self.html.push_str("<div class=\"card scroll\"><table>\n");
        if !head.is_empty() {
            self.row(head, true);
        }
        for row in rows {
            self.row(row, false);
        }
        self.html.push_str("</table></div>\n");
    }

    /// A row whose first cell is a heading, or all are.
    fn row(&mut self, cells: &[impl AsRef<str>], heading: bool) {
        self.html.push_str("<tr>");
        for (i, cell) in cells.iter().enumerate() {
            let tag = if heading || i == 0 { "th" } else { "td" };
            let _ = write!(self.html, "<{tag}>{}</{tag}>", escaped(cell.as_ref()));
        }
        self.html.push_str("</tr>\n");
    }

    /// Text that is only seen when it is asked for.
    pub(super) fn details(&mut self, summary: &str, text: &str) {
        let (summary, text) = (escaped(summary), escaped(text));
        let _ = writeln!(self.html, "<details class=\"card\"><summary>{summary}</summary><pre>{text}</pre></details>");
    }

    /// The whole page.
    pub(super) fn finish(mut self, last: &str) -> String {
        let _ = write!(
            self.html,
            "<footer class=\"soft\">{}</footer>\n</main>\n<script>\n{SCRIPT}</script>\n</body>\n</html>\n",
            escaped(last)
        );
        self.html
    }
}
