//! The sweeps as pictures.

use std::ops::Range;
use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;

use super::KINDS;
use crate::command::CommandError;
use crate::command::figures::{Figures, quantile};

/// One setting's values with the figures of each kind of stream.
pub struct Curve {
    pub name: &'static str,
    pub default: f64,
    pub points: Vec<(f64, Vec<Figures>)>,
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Fault = Box<dyn std::error::Error>;

const COLOURS: [RGBColor; 4] =
    [RGBColor(31, 119, 180), RGBColor(44, 160, 44), RGBColor(214, 39, 40), RGBColor(127, 127, 127)];

fn written(path: &Path, result: Result<(), Fault>) -> Result<(), CommandError> {
    result.map_err(|fault| CommandError::unusable(path.display().to_string(), fault.to_string(), ""))
}

/// F1 over each setting (left) and the start delay (right), a row for each.
pub fn sweep(path: &Path, curves: &[Curve]) -> Result<(), CommandError> {
    let draw = || -> Result<(), Fault> {
        let root = SVGBackend::new(path, (1000, 240 * curves.len() as u32)).into_drawing_area();
        root.fill(&WHITE)?;
        for (row, curve) in root.split_evenly((curves.len(), 1)).iter().zip(curves) {
            let (left, right) = row.split_horizontally(500);
            lines(&left, curve, "event F1", |figures| figures.f1())?;
            lines(&right, curve, "start delay, median (s)", |figures| quantile(&figures.start_delays, 0.5))?;
        }
        root.present()?;
        Ok(())
    };
    written(path, draw())
}

/// Precision over recall, a point for each onset.
pub fn precision_recall(path: &Path, onset: &Curve) -> Result<(), CommandError> {
    let draw = || -> Result<(), Fault> {
        let root = SVGBackend::new(path, (640, 480)).into_drawing_area();
        root.fill(&WHITE)?;
        let points = |kind: usize| {
            onset.points.iter().map(move |(_, all)| (all[kind].recall(), all[kind].precision()))
        };
        let kinds = || 0..KINDS.len() - 1;
        let low = |of: fn((f64, f64)) -> f64| kinds().flat_map(points).map(of).fold(0.95, f64::min) - 0.02;
        let mut chart = ChartBuilder::on(&root)
            .caption("events: precision over recall, by onset", ("sans-serif", 16))
            .margin(12)
            .x_label_area_size(36)
            .y_label_area_size(48)
            .build_cartesian_2d(low(|p| p.0)..1.0, low(|p| p.1)..1.0)?;
        chart.configure_mesh().light_line_style(TRANSPARENT).x_desc("recall").y_desc("precision").draw()?;
        for kind in kinds() {
            let colour = COLOURS[kind];
            chart
                .draw_series(LineSeries::new(points(kind), colour.stroke_width(2)).point_size(3))?
                .label(KINDS[kind].name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour));
        }
        for (value, all) in &onset.points {
            let place = (all[0].recall(), all[0].precision());
            chart.draw_series([Text::new(format!("{value}"), place, ("sans-serif", 11))])?;
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::LowerLeft)
            .background_style(WHITE)
            .border_style(BLACK)
            .draw()?;
        root.present()?;
        Ok(())
    };
    written(path, draw())
}

/// One line for each kind of stream that has actions; a grey one where the default is.
fn lines(area: &Area<'_>, curve: &Curve, what: &str, of: fn(&Figures) -> f64) -> Result<(), Fault> {
    let kinds = || 0..KINDS.len() - 1;
    let values = || kinds().flat_map(|kind| curve.points.iter().map(move |(_, all)| of(&all[kind])));
    let y = span(values().filter(|value| value.is_finite()));
    let x = span(curve.points.iter().map(|(value, _)| *value));
    let mut chart = ChartBuilder::on(area)
        .caption(format!("{what} over {}", curve.name), ("sans-serif", 14))
        .margin(8)
        .x_label_area_size(24)
        .y_label_area_size(44)
        .build_cartesian_2d(x, y.clone())?;
    chart.configure_mesh().light_line_style(TRANSPARENT).draw()?;
    chart.draw_series([PathElement::new(
        [(curve.default, y.start), (curve.default, y.end)],
        BLACK.mix(0.3),
    )])?;
    for kind in kinds() {
        let colour = COLOURS[kind];
        let points = curve.points.iter().map(|(value, all)| (*value, of(&all[kind])));
        let points = points.filter(|(_, value)| value.is_finite());
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(2)).point_size(2))?
            .label(KINDS[kind].name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.8))
        .draw()?;
    Ok(())
}

/// From the least to the greatest value, with a margin.
fn span(values: impl Iterator<Item = f64>) -> Range<f64> {
    let (low, high) = values
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
    if low > high {
        return 0.0..1.0;
    }
    let margin = ((high - low) * 0.08).max(0.01);
    low - margin..high + margin
}
