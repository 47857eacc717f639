//! Pictures that commands draw: files, axes and legends that all of them share.

use std::ops::Range;
use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;

use super::CommandError;
use super::reliability::Reliability;

/// Whatever a drawing stumbles over.
pub type Fault = Box<dyn std::error::Error>;
/// A part of a picture.
pub type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
/// A chart with an x and a y axis in it.
pub type Chart<'a, 'b> = ChartContext<
    'a,
    SVGBackend<'b>,
    Cartesian2d<plotters::coord::types::RangedCoordf64, plotters::coord::types::RangedCoordf64>,
>;

/// Pixels that a legend takes beside its chart.
pub const LEGEND: u32 = 180;

/// A white picture of so many pixels, with what `draw` puts on it.
///
/// # Errors
/// The file cannot be written, or what was drawn has no place on it.
pub fn svg(
    path: &Path,
    size: (u32, u32),
    draw: impl FnOnce(&Area<'_>) -> Result<(), Fault>,
) -> Result<(), CommandError> {
    let root = SVGBackend::new(path, size).into_drawing_area();
    let all = || {
        root.fill(&WHITE)?;
        draw(&root)?;
        root.present()?;
        Ok(())
    };
    all().map_err(|fault: Fault| CommandError::unusable(path.display().to_string(), fault.to_string(), ""))
}

/// Axes, and lines for a grid.
pub fn axes<'a, 'b>(
    area: &'a Area<'b>,
    title: &str,
    (x_name, x): (&str, Range<f64>),
    (y_name, y): (&str, Range<f64>),
) -> Result<Chart<'a, 'b>, Fault> {
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 14))
        .margin(10)
        .x_label_area_size(if x_name.is_empty() { 24 } else { 36 })
        .y_label_area_size(48)
        .build_cartesian_2d(x, y)?;
    chart.configure_mesh().light_line_style(TRANSPARENT).x_desc(x_name).y_desc(y_name).draw()?;
    Ok(chart)
}

/// Names beside their colours, one below the other: in an area of its own, where it covers no line.
pub fn legend(area: &Area<'_>, names: &[(String, RGBAColor)]) -> Result<(), Fault> {
    for ((name, colour), y) in names.iter().zip((40..).step_by(20)) {
        area.draw(&PathElement::new([(4, y), (22, y)], colour.stroke_width(3)))?;
        area.draw(&Text::new(name.clone(), (28, y - 6), ("sans-serif", 12)))?;
    }
    Ok(())
}

/// From the least to the greatest value, with a margin.
pub fn span(values: impl Iterator<Item = f64>) -> Range<f64> {
    let (low, high) = values
        .filter(|value| value.is_finite())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
    if low > high {
        return 0.0..1.0;
    }
    let margin = ((high - low) * 0.08).max(0.01);
    low - margin..high + margin
}

/// How often a score was true over the score; the diagonal is honest.
pub fn reliability(path: &Path, curves: &[(&str, &Reliability)]) -> Result<(), CommandError> {
    svg(path, (520 + LEGEND, 520), |root| {
        let (left, right) = root.split_horizontally(520);
        let title = "windows: how often a score was true";
        let mut chart = axes(&left, title, ("score", 0.0..1.0), ("share that was true", 0.0..1.0))?;
        chart.draw_series([PathElement::new([(0.0, 0.0), (1.0, 1.0)], BLACK.mix(0.4))])?;
        let mut names = Vec::new();
        for (index, (name, curve)) in curves.iter().enumerate() {
            let colour = Palette99::pick(index).to_rgba();
            chart.draw_series(LineSeries::new(curve.points(), colour.stroke_width(2)).point_size(3))?;
            names.push((format!("{name} ({:.3})", curve.error()), colour));
        }
        legend(&right, &names)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_leaves_room_on_both_sides_and_ignores_what_is_no_number() {
        assert_eq!(span([1.0, f64::NAN, 2.0].into_iter()), 0.92..2.08);
        assert_eq!(span(std::iter::empty()), 0.0..1.0);
    }

    #[test]
    fn a_picture_that_cannot_be_written_names_its_file() {
        let path = Path::new("/nowhere/at/all.svg");
        let error = svg(path, (10, 10), |_| Ok(())).unwrap_err().to_string();
        assert!(error.contains("/nowhere/at/all.svg"), "{error}");
    }
}
