//! Plain text tables: columns as wide as their widest cell, two spaces between.

use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    Left,
    Right,
}

pub struct Table {
    align: Vec<Align>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A column per heading.
    pub fn new<const N: usize>(columns: [(&str, Align); N]) -> Self {
        Self {
            align: columns.iter().map(|(_, align)| *align).collect(),
            rows: vec![columns.iter().map(|(name, _)| name.to_string()).collect()],
        }
    }

    pub fn row<const N: usize>(&mut self, cells: [String; N]) -> &mut Self {
        debug_assert_eq!(N, self.align.len());
        self.rows.push(cells.into());
        self
    }

    /// No row but the headings.
    pub fn is_empty(&self) -> bool {
        self.rows.len() == 1
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |column: usize| {
            self.rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.align.len()).map(width).collect();
        for (number, row) in self.rows.iter().enumerate() {
            let mut line = String::new();
            for ((cell, width), align) in row.iter().zip(&widths).zip(&self.align) {
                match align {
                    Align::Left => line += &format!("{cell:<width$}  "),
                    Align::Right => line += &format!("{cell:>width$}  "),
                }
            }
            let separator = if number == 0 { "" } else { "\n" };
            write!(f, "{separator}{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Seconds as minutes and seconds, with hours when there are any: `01:02.5`, `1:00:02.5`.
pub fn clock(seconds: f64) -> String {
    let tenths = (seconds.max(0.0) * 10.0).round() as u64;
    let (minutes, rest) = (tenths / 600, tenths % 600);
    let seconds = format!("{:02}.{}", rest / 10, rest % 10);
    match minutes / 60 {
        0 => format!("{minutes:02}:{seconds}"),
        hours => format!("{hours}:{:02}:{seconds}", minutes % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new([("label", Align::Left), ("peak", Align::Right)]);
        assert!(table.is_empty());
        table.row(["a person falling".into(), "0.9".into()]).row(["öl".into(), "10.25".into()]);
        assert_eq!(
            table.to_string(),
            "label              peak\na person falling    0.9\nöl                10.25"
        );
    }

    #[test]
    fn times_carry_into_minutes_and_hours() {
        assert_eq!(clock(-1.0), "00:00.0");
        assert_eq!(clock(59.96), "01:00.0");
        assert_eq!(clock(3599.99), "1:00:00.0");
        assert_eq!(clock(7262.31), "2:01:02.3");
    }
}
