//! The sweeps as pictures.

use std::path::Path;

use plotters::prelude::*;

use super::grid::Point;
use super::stream::KINDS;
use crate::command::CommandError;
use crate::command::figures::{Figures, quantile};
use crate::command::plot::{Area, Fault, LEGEND, axes, legend, span, svg};

/// One setting's values with the figures of each kind of stream.
pub struct Curve {
    pub name: &'static str,
    pub default: f64,
    pub points: Vec<(f64, Vec<Figures>)>,
}

const COLOURS: [RGBColor; 4] =
    [RGBColor(31, 119, 180), RGBColor(44, 160, 44), RGBColor(214, 39, 40), RGBColor(127, 127, 127)];

/// Kinds of stream that have actions.
fn kinds() -> impl Iterator<Item = usize> {
    (0..KINDS.len()).filter(|&kind| KINDS[kind].listed)
}

fn names() -> Vec<(String, RGBAColor)> {
    kinds().map(|kind| (KINDS[kind].name.to_string(), COLOURS[kind].to_rgba())).collect()
}

/// F1 over each setting (left) and the start delay (right), a row for each.
pub fn sweep(path: &Path, curves: &[Curve]) -> Result<(), CommandError> {
    svg(path, (1000 + LEGEND, 240 * curves.len() as u32), |root| {
        let (charts, right) = root.split_horizontally(1000);
        for (row, curve) in charts.split_evenly((curves.len(), 1)).iter().zip(curves) {
            let (left, right) = row.split_horizontally(500);
            lines(&left, curve, "event F1", |figures| figures.f1())?;
            lines(&right, curve, "start delay, median (s)", |figures| quantile(&figures.start_delays, 0.5))?;
        }
        legend(&right, &names())
    })
}

/// Precision over recall, a point for each onset.
pub fn precision_recall(path: &Path, onset: &Curve) -> Result<(), CommandError> {
    svg(path, (640 + LEGEND, 480), |root| {
        let (left, right) = root.split_horizontally(640);
        let points = |kind: usize| {
            onset.points.iter().map(move |(_, all)| (all[kind].recall(), all[kind].precision()))
        };
        let low = |of: fn((f64, f64)) -> f64| kinds().flat_map(points).map(of).fold(0.95, f64::min) - 0.02;
        let title = "events: precision over recall, by onset";
        let (x, y) = (low(|p| p.0)..1.0, low(|p| p.1)..1.0);
        let mut chart = axes(&left, title, ("recall", x), ("precision", y))?;
        for kind in kinds() {
            let line = LineSeries::new(points(kind), COLOURS[kind].stroke_width(2)).point_size(3);
            chart.draw_series(line)?;
        }
        for (value, all) in &onset.points {
            let place = (all[0].recall(), all[0].precision());
            chart.draw_series([Text::new(format!("{value}"), place, ("sans-serif", 11))])?;
        }
        legend(&right, &names())
    })
}

/// F1 over the start delay, a point for each setting; those with many false events are pale.
pub fn grid(path: &Path, points: &[Point], front: &[Point], default: &Point) -> Result<(), CommandError> {
    svg(path, (640 + LEGEND, 480), |root| {
        let (left, right) = root.split_horizontally(640);
        let x = span(points.iter().map(|point| point.delay_p50));
        // What finds next to nothing would press the rest together.
        let y = span(points.iter().map(|point| point.f1).filter(|f1| *f1 > 0.6));
        let title = "settings of the gate: event F1 over start delay, whole world";
        let mut chart = axes(&left, title, ("start delay, median (s)", x), ("event F1", y.clone()))?;
        let shades: [(&str, f64, RGBAColor); 4] = [
            ("2 false/h at most", 2.0, COLOURS[1].to_rgba()),
            ("5", 5.0, COLOURS[0].to_rgba()),
            ("15", 15.0, RGBColor(255, 160, 60).to_rgba()),
            ("more", f64::INFINITY, COLOURS[3].mix(0.4)),
        ];
        let shade = |point: &Point| {
            let mut shades = shades.iter();
            shades.find(|(_, most, _)| point.false_per_hour <= *most).map_or(TRANSPARENT, |shade| shade.2)
        };
        let seen = |point: &&Point| point.delay_p50.is_finite() && y.contains(&point.f1);
        for point in points.iter().filter(seen) {
            chart.draw_series([Circle::new((point.delay_p50, point.f1), 2, shade(point).filled())])?;
        }
        for point in front.iter().filter(seen) {
            chart.draw_series([Circle::new((point.delay_p50, point.f1), 5, BLACK)])?;
        }
        if seen(&default) {
            chart.draw_series([TriangleMarker::new((default.delay_p50, default.f1), 7, BLACK.filled())])?;
        }
        let mut names: Vec<_> = shades.iter().map(|(name, _, colour)| (name.to_string(), *colour)).collect();
        names.push(("ring: on the front".into(), TRANSPARENT));
        names.push(("triangle: default".into(), TRANSPARENT));
        legend(&right, &names)
    })
}

/// One line for each kind of stream that has actions; a grey one where the default is.
fn lines(area: &Area<'_>, curve: &Curve, what: &str, of: fn(&Figures) -> f64) -> Result<(), Fault> {
    let y = span(kinds().flat_map(|kind| curve.points.iter().map(move |(_, all)| of(&all[kind]))));
    let x = span(curve.points.iter().map(|(value, _)| *value));
    let mut chart = axes(area, &format!("{what} over {}", curve.name), ("", x), ("", y.clone()))?;
    let at_default = [(curve.default, y.start), (curve.default, y.end)];
    chart.draw_series([PathElement::new(at_default, BLACK.mix(0.3))])?;
    for kind in kinds() {
        let points = curve.points.iter().map(|(value, all)| (*value, of(&all[kind])));
        let points = points.filter(|(_, value)| value.is_finite());
        chart.draw_series(LineSeries::new(points, COLOURS[kind].stroke_width(2)).point_size(2))?;
    }
    Ok(())
}
