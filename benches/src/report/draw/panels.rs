//! Bars in panels: one panel for each workload with a scale of its own, one bar for each system.
//!
//! Workloads differ by a hundred times, so a common scale would leave most bars a pixel long; who reads such a picture
//! compares systems within a workload.

use anyhow::Result;
use plotters::style::{Color as _, RGBColor};

use super::scale::Scale;
use super::{At, Canvas, DIM, GRID, INK, WIDTH, svg, text_width};
use crate::report::stats::Stat;
use crate::report::units::{float, float_len};

/// A picture of bars.
#[derive(Debug, Clone)]
pub struct Panels {
    /// What it shows.
    pub title: String,
    /// What the full and the pale part of a bar are.
    pub parts: [&'static str; 2],
    /// What else is to be known.
    pub note: String,
    /// From the top.
    pub panels: Vec<Panel>,
}

/// One workload.
#[derive(Debug, Clone)]
pub struct Panel {
    /// Its name.
    pub name: String,
    /// What it is, behind the name.
    pub about: String,
    /// From the top.
    pub bars: Vec<Bar>,
    /// Where a line crosses all bars.
    pub line: Option<f64>,
}

/// One system's.
#[derive(Debug, Clone)]
pub struct Bar {
    /// Its name.
    pub name: String,
    /// Its colour.
    pub colour: RGBColor,
    /// The full and the pale part; `None` when there is no figure.
    pub parts: Option<[f64; 2]>,
    /// Least and greatest of what the whole bar's end is the median of.
    pub spread: Option<Stat>,
    /// What is written behind it.
    pub says: String,
}

const TOP: f64 = 64.0;
const LEFT: f64 = 132.0;
const BAR: f64 = 11.0;
const PITCH: f64 = 15.0;
const HEAD: f64 = 21.0;
const GAP: f64 = 12.0;
const SMALL: f64 = 10.5;

/// Draws bars.
///
/// # Errors
/// See [`svg`].
pub fn draw(what: &Panels) -> Result<String> {
    let bars: usize = what.panels.iter().map(|panel| panel.bars.len()).sum();
    let height = TOP + float_len(what.panels.len()) * (HEAD + GAP) + float_len(bars) * PITCH;
    // The longest text stands behind the longest bar.
    let widest = what.panels.iter().flat_map(|panel| &panel.bars).map(|bar| text_width(&bar.says, SMALL));
    let right = f64::from(WIDTH) - widest.fold(0.0, f64::max) - 16.0;
    svg(&what.title, rounded(height), |canvas| {
        head(canvas, what)?;
        let mut y = TOP;
        for panel in &what.panels {
            canvas.bold((8.0, y + HEAD / 2.0), &panel.name, 12.5)?;
            let behind = 8.0 + text_width(&panel.name, 12.5) * 1.1 + 10.0;
            canvas.text((behind, y + HEAD / 2.0), &panel.about, SMALL, DIM, At::Left)?;
            y += HEAD;
            draw_panel(canvas, panel, y, right)?;
            y += float_len(panel.bars.len()) * PITCH + GAP;
        }
        Ok(())
    })
}

fn head(canvas: &Canvas<'_>, what: &Panels) -> Result<()> {
    canvas.bold((8.0, 16.0), &what.title, 14.0)?;
    let mut x = 8.0;
    for (name, opacity) in std::iter::zip(what.parts, OPACITY) {
        canvas.rectangle((x, 34.0), (x + 18.0, 34.0 + BAR), DIM.mix(opacity))?;
        canvas.text((x + 24.0, 40.0), name, SMALL, INK, At::Left)?;
        x += 24.0 + text_width(name, SMALL) + 18.0;
    }
    canvas.text((x, 40.0), &what.note, SMALL, DIM, At::Left)
}

/// Of the full and of the pale part.
const OPACITY: [f64; 2] = [1.0, 0.5];

fn draw_panel(canvas: &Canvas<'_>, panel: &Panel, top: f64, right: f64) -> Result<()> {
    let ends = panel.bars.iter().flat_map(|bar| {
        let whole = bar.parts.map(|parts| parts[0] + parts[1]);
        [whole, bar.spread.map(|spread| spread.max)]
    });
    let max = ends.chain([panel.line]).flatten().fold(0.0, f64::max);
    let scale = Scale::exact(max, (LEFT, right));
    let bottom = top + float_len(panel.bars.len()) * PITCH;
    canvas.line(&[(LEFT, top - 1.0), (LEFT, bottom - 2.0)], GRID, 1)?;
    for (at, bar) in panel.bars.iter().enumerate() {
        let y = top + float_len(at) * PITCH;
        let middle = y + BAR / 2.0;
        canvas.text((LEFT - 8.0, middle), &bar.name, SMALL, INK, At::Right)?;
        let mut end = LEFT;
        if let Some([full, pale]) = bar.parts {
            let (seam, whole) = (scale.at(full), scale.at(full + pale));
            // A bar that is there is seen, however short.
            let whole = whole.max(LEFT + 1.0);
            canvas.rectangle((LEFT, y), (seam, y + BAR), bar.colour.mix(OPACITY[0]))?;
            canvas.rectangle((seam, y), (whole, y + BAR), bar.colour.mix(OPACITY[1]))?;
            end = whole;
        }
        if let Some(spread) = bar.spread.filter(|spread| spread.count > 1) {
            let (from, to) = (scale.at(spread.min), scale.at(spread.max));
            canvas.line(&[(from, middle), (to, middle)], INK, 1)?;
            for x in [from, to] {
                canvas.line(&[(x, middle - 3.0), (x, middle + 3.0)], INK, 1)?;
            }
            end = end.max(to);
        }
        // Nor may text stand on the line.
        if let Some(line) = panel.line.map(|line| scale.at(line))
            && (end..end + text_width(&bar.says, SMALL) + 10.0).contains(&line)
        {
            end = line;
        }
        canvas.text((end + 6.0, middle), &bar.says, SMALL, INK, At::Left)?;
    }
    if let Some(line) = panel.line {
        let x = scale.at(line);
        canvas.line(&[(x, top - 3.0), (x, bottom - 1.0)], INK, 1)?;
    }
    Ok(())
}

/// Height in whole pixels.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped just before")]
fn rounded(height: f64) -> u32 {
    // Far more than there are workloads and systems for.
    const MAX: u64 = 30_000;
    height.clamp(1.0, float(MAX)).ceil() as u32
}
