//! Plots that several commands draw.

use std::path::Path;

use plotters::prelude::*;

use super::reliability::Reliability;

/// How often a score was true over the score; the diagonal is honest.
///
/// # Errors
/// The file cannot be written.
pub fn reliability(path: &Path, curves: &[(&str, &Reliability)]) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::new(path, (520, 520)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption("windows: how often a score was true", ("sans-serif", 16))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(48)
        .build_cartesian_2d(0.0..1.0, 0.0..1.0)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc("score")
        .y_desc("share that was true")
        .draw()?;
    chart.draw_series([PathElement::new([(0.0, 0.0), (1.0, 1.0)], BLACK.mix(0.4))])?;
    for (index, (name, curve)) in curves.iter().enumerate() {
        let colour = Palette99::pick(index).to_rgba();
        chart
            .draw_series(LineSeries::new(curve.points(), colour.stroke_width(2)).point_size(3))?
            .label(format!("{name} (error {:.3})", curve.error()))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK)
        .draw()?;
    root.present()?;
    Ok(())
}
