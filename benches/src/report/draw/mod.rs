//! Pictures: SVG by plotters, readable in light and dark.
//!
//! This file is paper and pens: text stays text in a generic font, and a style sheet in the file turns ink and paper
//! round where the reader prefers dark. The paper is painted, so that ink is never on another's background. `scale` is
//! where values go, `panels` and `curves` are the two kinds of picture.

pub mod curves;
pub mod panels;
pub mod scale;

use anyhow::{Context as _, Result, bail};
use plotters::coord::Shift;
use plotters::element::{Circle, PathElement, Rectangle, Text};
use plotters::prelude::{DrawingArea, IntoDrawingArea as _, IntoFont as _, SVGBackend};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color as _, FontStyle, RGBAColor, RGBColor, ShapeStyle, TextStyle};

/// Text and marks.
pub const INK: RGBColor = RGBColor(0x1F, 0x23, 0x28);
/// Text that explains.
pub const DIM: RGBColor = RGBColor(0x59, 0x63, 0x6E);
/// Lines behind the data.
pub const GRID: RGBColor = RGBColor(0xD1, 0xD9, 0xE0);
const PAPER: RGBColor = RGBColor(0xFE, 0xFE, 0xFE);

/// What each becomes in the dark. Colours of systems stay: they stand out on both.
const DARK: [(RGBColor, &str); 4] =
    [(INK, "#E6EDF3"), (DIM, "#9198A1"), (GRID, "#3D444D"), (PAPER, "#0D1117")];

/// Width of every picture in pixels; a page of markdown is about as wide.
pub const WIDTH: u32 = 860;

/// What marks a file as made here.
pub const MARK: &str = "<!-- made by `report` from the results of a benchmark run -->";

/// How wide a character of a generic sans-serif is, in parts of its size: measured over digits and lower case of DejaVu
/// Sans, which is wider than most.
const CHARACTER: f64 = 0.61;

/// A picture being drawn; places are pixels from the top left.
pub struct Canvas<'a> {
    area: DrawingArea<SVGBackend<'a>, Shift>,
}

impl std::fmt::Debug for Canvas<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Canvas").finish_non_exhaustive()
    }
}

/// Where text stands, seen from its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// It begins there.
    Left,
    /// Its middle is there.
    Middle,
    /// It ends there.
    Right,
}

/// Draws a picture of this height; `title` is what a pointer and a screen reader get.
///
/// # Errors
/// When plotters can't, or what it wrote isn't the SVG that it always writes.
pub fn svg(title: &str, height: u32, draw: impl FnOnce(&Canvas<'_>) -> Result<()>) -> Result<String> {
    let mut text = String::new();
    {
        let canvas = Canvas { area: SVGBackend::with_string(&mut text, (WIDTH, height)).into_drawing_area() };
        canvas.rectangle((0.0, 0.0), (f64::from(WIDTH), f64::from(height)), PAPER.to_rgba())?;
        draw(&canvas)?;
        canvas.area.present().context("can't draw")?;
    }
    let Some((open, rest)) = text.split_once(">\n") else { bail!("plotters wrote no SVG") };
    let escaped = title.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    Ok(format!(
        "{open} role=\"img\">\n{MARK}\n<title>{escaped}</title>\n{}\n{}\n",
        dark_style(),
        rest.trim_end()
    ))
}

/// How wide text of this size is at most, about.
pub fn text_width(text: &str, size: f64) -> f64 {
    super::units::float_len(text.chars().count()) * size * CHARACTER
}

fn dark_style() -> String {
    let rules: Vec<String> = DARK
        .iter()
        .map(|(RGBColor(red, green, blue), dark)| {
            let light = format!("#{red:02X}{green:02X}{blue:02X}");
            format!("[fill=\"{light}\"]{{fill:{dark}}}[stroke=\"{light}\"]{{stroke:{dark}}}")
        })
        .collect();
    format!("<style>@media (prefers-color-scheme: dark){{{}}}</style>", rules.concat())
}

impl Canvas<'_> {
    /// A filled rectangle.
    ///
    /// # Errors
    /// When plotters can't draw, here and below.
    pub fn rectangle(&self, from: (f64, f64), to: (f64, f64), colour: RGBAColor) -> Result<()> {
        self.area.draw(&Rectangle::new([pixel(from), pixel(to)], colour.filled())).context("can't draw")
    }

    /// A line through points.
    ///
    /// # Errors
    /// See above.
    pub fn line(&self, points: &[(f64, f64)], colour: RGBColor, width: u32) -> Result<()> {
        let points: Vec<_> = points.iter().copied().map(pixel).collect();
        self.area.draw(&PathElement::new(points, stroke(colour, width))).context("can't draw")
    }

    /// A dot, or a ring when it isn't `filled`.
    ///
    /// # Errors
    /// See above.
    pub fn dot(&self, at: (f64, f64), radius: u32, colour: RGBColor, filled: bool) -> Result<()> {
        let style = if filled { colour.filled() } else { stroke(colour, 2) };
        self.area.draw(&Circle::new(pixel(at), radius, style)).context("can't draw")
    }

    /// A line of text whose middle is at this height.
    ///
    /// # Errors
    /// See above.
    pub fn text(&self, at: (f64, f64), text: &str, size: f64, colour: RGBColor, side: At) -> Result<()> {
        self.write(at, text, size, colour, side, FontStyle::Normal)
    }

    /// Likewise, in bold.
    ///
    /// # Errors
    /// See above.
    pub fn bold(&self, at: (f64, f64), text: &str, size: f64) -> Result<()> {
        self.write(at, text, size, INK, At::Left, FontStyle::Bold)
    }

    fn write(
        &self,
        at: (f64, f64),
        text: &str,
        size: f64,
        colour: RGBColor,
        side: At,
        weight: FontStyle,
    ) -> Result<()> {
        // plotters' size is that of the line, and it divides by this to have the font's.
        const LINE: f64 = 1.24;
        let side = match side {
            At::Left => HPos::Left,
            At::Middle => HPos::Center,
            At::Right => HPos::Right,
        };
        let font = ("sans-serif", size * LINE).into_font().style(weight);
        let style = TextStyle::from(font).color(&colour).pos(Pos::new(side, VPos::Center));
        self.area.draw(&Text::new(text.to_owned(), pixel(at), style)).context("can't draw")
    }
}

fn stroke(colour: RGBColor, width: u32) -> ShapeStyle {
    ShapeStyle { color: colour.to_rgba(), filled: false, stroke_width: width }
}

/// The nearest pixel. Not a number and what lies beyond any picture become its edge.
#[expect(
    clippy::cast_possible_truncation,
    reason = "clamped just before; `as` makes 0 of what is not a number"
)]
fn pixel((x, y): (f64, f64)) -> (i32, i32) {
    const FAR: f64 = 100_000.0;
    (x.clamp(-FAR, FAR).round() as i32, y.clamp(-FAR, FAR).round() as i32)
}
