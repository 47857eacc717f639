//! What was fitted, as tables and plots.

use std::path::Path;

use plotters::prelude::*;

use super::fit::Fit;
use super::footage::Footage;
use crate::command::table::{Align, Table};
use crate::command::{CommandError, say};

pub fn print(fit: &Fit, footage: &Footage) -> Result<(), CommandError> {
    say!("{} videos, {:.2} hours", footage.videos.len(), footage.hours());
    let (before, after) = fit.temperatures;
    match &fit.reliability {
        Some((windows, old, new)) => {
            say!(
                "temperature {before} -> {after}, by {windows} windows: expected calibration error {:.3} -> {:.3}",
                old.error(),
                new.error()
            );
            if (after / before).ln().abs() > 2.0 {
                say!(
                    "so large a step means that the scores say little here; look at the labels' words first"
                );
            }
            say!("\nafter:\n{}", new.table());
        }
        None => say!("temperature {before} stays: without truth nothing says how sure the scores should be"),
    }
    let mut table = Table::new([
        ("label", Align::Left),
        ("actions", Align::Right),
        ("onset", Align::Right),
        ("offset", Align::Right),
        ("precision", Align::Right),
        ("recall", Align::Right),
        ("F1", Align::Right),
        ("false/h", Align::Right),
    ]);
    for threshold in &fit.thresholds {
        let (old, new) = (&threshold.before, &threshold.after);
        let change = |old: f64, new: f64| format!("{old:.2} -> {new:.2}");
        let chosen = |value: f32| match threshold.found {
            true => format!("{value:.2}"),
            false => format!("{value:.2} (stays)"),
        };
        let judged = |cell: String| if threshold.known { cell } else { "-".into() };
        table.row([
            threshold.label.clone(),
            new.actions.to_string(),
            chosen(threshold.onset),
            chosen(threshold.offset),
            judged(change(old.precision(), new.precision())),
            judged(change(old.recall(), new.recall())),
            judged(change(old.f1(), new.f1())),
            format!("{:.1} -> {:.1}", old.false_per_hour(), new.false_per_hour()),
        ]);
    }
    say!("{table}");
    if fit.thresholds.iter().any(|threshold| !threshold.known) {
        say!("labels without F1 are not in the truth: their onset is the lowest one that keeps quiet");
    }
    if fit.thresholds.iter().any(|threshold| !threshold.found) {
        say!("(stays): no onset finds the action, or none keeps quiet; try other words for the label");
    }
    Ok(())
}

type Fault = Box<dyn std::error::Error>;

/// `precision-recall.svg` and, with truth, `reliability.svg`.
pub fn draw(fit: &Fit, folder: &Path) -> Result<(), CommandError> {
    std::fs::create_dir_all(folder)
        .map_err(|source| CommandError::Io { path: folder.to_path_buf(), source })?;
    let file = |name: &str, draw: &dyn Fn(&Path) -> Result<(), Fault>| {
        let path = folder.join(name);
        draw(&path)
            .map_err(|fault| CommandError::unusable(path.display().to_string(), fault.to_string(), ""))?;
        say!("written: {}", path.display());
        Ok::<(), CommandError>(())
    };
    file("precision-recall.svg", &|path| precision_recall(fit, path))?;
    if fit.reliability.is_some() {
        file("reliability.svg", &|path| reliability(fit, path))?;
    }
    Ok(())
}

/// A line for each label with truth; the chosen onset is the large point.
fn precision_recall(fit: &Fit, path: &Path) -> Result<(), Fault> {
    let root = SVGBackend::new(path, (720, 540)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption("events: precision over recall, by onset", ("sans-serif", 16))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(48)
        .build_cartesian_2d(-0.02..1.02, -0.02..1.02)?;
    chart.configure_mesh().light_line_style(TRANSPARENT).x_desc("recall").y_desc("precision").draw()?;
    for (index, threshold) in fit.thresholds.iter().filter(|threshold| threshold.known).enumerate() {
        let colour = Palette99::pick(index).to_rgba();
        let points = threshold.curve.iter().filter(|(_, figures)| figures.events > 0);
        let line = points.map(|(_, figures)| (figures.recall(), figures.precision()));
        chart
            .draw_series(LineSeries::new(line, colour.stroke_width(2)).point_size(2))?
            .label(format!("{} ({:.2})", threshold.label, threshold.onset))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour));
        let place = (threshold.after.recall(), threshold.after.precision());
        chart.draw_series([Circle::new(place, 6, colour.filled())])?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK)
        .draw()?;
    root.present()?;
    Ok(())
}

/// How often a score was true, before and after.
fn reliability(fit: &Fit, path: &Path) -> Result<(), Fault> {
    let Some((_, old, new)) = &fit.reliability else { return Ok(()) };
    crate::command::plot::reliability(path, &[("before", old), ("after", new)])
}
