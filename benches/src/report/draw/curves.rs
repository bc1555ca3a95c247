//! Curves and dots: one figure over another, a line for each system.

use anyhow::Result;
use plotters::style::RGBColor;

use super::scale::Scale;
use super::{At, Canvas, DIM, GRID, INK, WIDTH, svg, text_width};
use crate::report::units::float_len;

/// A picture of curves.
#[derive(Debug, Clone)]
pub struct Curves {
    /// What it shows.
    pub title: String,
    /// What is to be known besides.
    pub note: String,
    /// To the right.
    pub x: Axis,
    /// Upwards.
    pub y: Axis,
    /// In the order of their names.
    pub series: Vec<Series>,
    /// Rings with what is written at them.
    pub marks: Vec<(f64, f64, String)>,
}

/// One direction.
#[derive(Debug, Clone, Copy)]
pub struct Axis {
    /// What it counts.
    pub name: &'static str,
    /// Whether it is logarithmic.
    pub logarithmic: bool,
    /// How a value is written at it.
    pub write: fn(f64) -> String,
}

/// One system's.
#[derive(Debug, Clone)]
pub struct Series {
    /// What is written at it.
    pub name: String,
    /// Its colour.
    pub colour: RGBColor,
    /// By x.
    pub points: Vec<Point>,
    /// Whether a line joins the points; else they are dots of their own, as hollow rings.
    pub joined: bool,
}

/// A median with its repeats.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// To the right.
    pub x: f64,
    /// Upwards: the median.
    pub y: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
}

const HEIGHT: u32 = 430;
const LEFT: f64 = 74.0;
const TOP: f64 = 74.0;
const BOTTOM: f64 = 380.0;
const SMALL: f64 = 11.0;
/// Between the middles of two lines of text.
const LINE: f64 = 14.0;

/// Draws curves.
///
/// # Errors
/// See [`svg`].
pub fn draw(what: &Curves) -> Result<String> {
    let widest = what.series.iter().map(|series| text_width(&series.name, SMALL)).fold(0.0, f64::max);
    let right = f64::from(WIDTH) - widest - 24.0;
    let points = || what.series.iter().flat_map(|series| &series.points);
    let scale = |axis: Axis, values: Vec<f64>, pixels| {
        if axis.logarithmic {
            return Scale::logarithmic(values, pixels);
        }
        Scale::linear(values.into_iter().fold(0.0, f64::max), pixels)
    };
    let x = scale(what.x, points().map(|point| point.x).collect(), (LEFT, right));
    let y = scale(what.y, points().flat_map(|point| [point.min, point.max]).collect(), (BOTTOM, TOP));
    svg(&what.title, HEIGHT, |canvas| {
        canvas.bold((8.0, 16.0), &what.title, 14.0)?;
        canvas.text((8.0, 36.0), &what.note, SMALL, DIM, At::Left)?;
        axes(canvas, what, (&x, &y), right)?;
        for series in &what.series {
            draw_series(canvas, series, (&x, &y))?;
        }
        names(canvas, what, &y, right)?;
        for (at, (x_value, y_value, says)) in what.marks.iter().enumerate() {
            let place = (x.at(*x_value), y.at(*y_value));
            canvas.dot(place, 6, INK, false)?;
            // Neighbours write above and below in turn.
            let up = if at % 2 == 0 { -16.0 } else { 18.0 };
            canvas.text((place.0, place.1 + up), says, SMALL, INK, At::Middle)?;
        }
        Ok(())
    })
}

fn axes(canvas: &Canvas<'_>, what: &Curves, (x, y): (&Scale, &Scale), right: f64) -> Result<()> {
    for tick in y.ticks() {
        let at = y.at(tick);
        canvas.line(&[(LEFT, at), (right, at)], GRID, 1)?;
        canvas.text((LEFT - 8.0, at), &(what.y.write)(tick), SMALL, DIM, At::Right)?;
    }
    for tick in x.ticks() {
        let at = x.at(tick);
        canvas.line(&[(at, BOTTOM), (at, BOTTOM + 5.0)], DIM, 1)?;
        canvas.text((at, BOTTOM + 16.0), &(what.x.write)(tick), SMALL, DIM, At::Middle)?;
    }
    canvas.line(&[(LEFT, BOTTOM), (right, BOTTOM)], DIM, 1)?;
    canvas.text((8.0, TOP - 18.0), what.y.name, SMALL, DIM, At::Left)?;
    canvas.text((f64::midpoint(LEFT, right), BOTTOM + 36.0), what.x.name, SMALL, DIM, At::Middle)
}

fn draw_series(canvas: &Canvas<'_>, series: &Series, (x, y): (&Scale, &Scale)) -> Result<()> {
    let place = |point: &Point| (x.at(point.x), y.at(point.y));
    if series.joined && series.points.len() > 1 {
        let places: Vec<_> = series.points.iter().map(place).collect();
        canvas.line(&places, series.colour, 2)?;
    }
    for point in &series.points {
        let (across, up) = place(point);
        if point.max > point.min {
            canvas.line(&[(across, y.at(point.min)), (across, y.at(point.max))], series.colour, 1)?;
        }
        canvas.dot((across, up), if series.joined { 3 } else { 4 }, series.colour, series.joined)?;
    }
    Ok(())
}

/// Writes each series' name at the right, beside its last point as far as the others leave room.
fn names(canvas: &Canvas<'_>, what: &Curves, y: &Scale, right: f64) -> Result<()> {
    let ends = what.series.iter().enumerate().filter_map(|(at, series)| {
        let last = y.at(series.points.last()?.y);
        // Dots end nowhere: their names stand at the top.
        Some((if series.joined { last } else { TOP + float_len(at) * LINE }, series))
    });
    let mut ends: Vec<_> = ends.collect();
    ends.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    let heights = spread_out(&ends.iter().map(|(end, _)| *end).collect::<Vec<_>>());
    for ((_, series), at) in std::iter::zip(ends, heights) {
        canvas.dot((right + 10.0, at), if series.joined { 3 } else { 4 }, series.colour, series.joined)?;
        canvas.text((right + 18.0, at), &series.name, SMALL, INK, At::Left)?;
    }
    Ok(())
}

/// Heights, each at least a line below the one before and none far below the picture, as near as may be to what is
/// wished for (in order).
fn spread_out(wished: &[f64]) -> Vec<f64> {
    let mut heights = Vec::with_capacity(wished.len());
    let mut free = f64::MIN;
    for wish in wished {
        let at = wish.max(free);
        heights.push(at);
        free = at + LINE;
    }
    let mut limit = BOTTOM;
    for height in heights.iter_mut().rev() {
        *height = height.min(limit);
        limit = *height - LINE;
    }
    heights
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_never_overlap() {
        for wished in [vec![], vec![100.0, 101.0, 102.0], vec![379.0, 380.0, 380.0, 380.0], vec![90.0, 300.0]]
        {
            let heights = spread_out(&wished);
            assert!(heights.windows(2).all(|pair| pair[1] - pair[0] >= LINE), "{wished:?}: {heights:?}");
            assert!(heights.iter().all(|height| *height <= BOTTOM));
        }
        assert_eq!(spread_out(&[90.0, 300.0]), [90.0, 300.0]);
    }
}
