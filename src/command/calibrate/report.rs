//! What was fitted, as tables and plots.

use std::path::Path;

use plotters::prelude::*;

use super::fit::Fit;
use super::footage::Footage;
use crate::command::table::{Align, Table};
use crate::command::{CommandError, plot, say};

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

/// `precision-recall.svg` and, with truth, `reliability.svg`.
pub fn draw(fit: &Fit, folder: &Path) -> Result<(), CommandError> {
    std::fs::create_dir_all(folder)
        .map_err(|source| CommandError::Io { path: folder.to_path_buf(), source })?;
    let path = folder.join("precision-recall.svg");
    precision_recall(fit, &path)?;
    say!("written: {}", path.display());
    if let Some((_, old, new)) = &fit.reliability {
        let path = folder.join("reliability.svg");
        plot::reliability(&path, &[("before", old), ("after", new)])?;
        say!("written: {}", path.display());
    }
    Ok(())
}

/// A line for each label with truth; the chosen onset is the large point.
fn precision_recall(fit: &Fit, path: &Path) -> Result<(), CommandError> {
    plot::svg(path, (720 + plot::LEGEND, 540), |root| {
        let (left, right) = root.split_horizontally(720);
        let title = "events: precision over recall, by onset";
        let mut chart = plot::axes(&left, title, ("recall", -0.02..1.02), ("precision", -0.02..1.02))?;
        let mut names = Vec::new();
        for (index, threshold) in fit.thresholds.iter().filter(|threshold| threshold.known).enumerate() {
            let colour = Palette99::pick(index).to_rgba();
            let points = threshold.curve.iter().filter(|(_, figures)| figures.events > 0);
            let line = points.map(|(_, figures)| (figures.recall(), figures.precision()));
            chart.draw_series(LineSeries::new(line, colour.stroke_width(2)).point_size(2))?;
            let place = (threshold.after.recall(), threshold.after.precision());
            chart.draw_series([Circle::new(place, 6, colour.filled())])?;
            names.push((format!("{} ({:.2})", threshold.label, threshold.onset), colour));
        }
        plot::legend(&right, &names)
    })
}
