//! The device table of label vectors: uploaded once, named by row.

use std::collections::HashMap;
use std::sync::Arc;

use super::CudaError;
use super::launcher::Launcher;
use super::memory::{At, Buffer};
use crate::backend::TextFeatures;

/// Rows of a new table.
const ROWS: usize = 1024;

pub(super) struct LabelTable {
    /// [rows, E]
    values: Buffer<f32>,
    width: usize,
    /// By address. Each entry holds its vector, so the address cannot become another's.
    known: HashMap<usize, (i32, TextFeatures)>,
    free: Vec<i32>,
    /// How often the table has moved to another address.
    moves: u64,
}

impl LabelTable {
    pub fn new(launcher: &Launcher, width: usize) -> Result<Self, CudaError> {
        let values = Buffer::new(&launcher.context, "the table of labels", ROWS * width)?;
        launcher.clear(&values)?;
        Ok(Self { values, width, known: HashMap::new(), free: (0..ROWS as i32).rev().collect(), moves: 0 })
    }

    pub fn at(&self) -> At<f32> {
        self.values.at()
    }

    pub fn moves(&self) -> u64 {
        self.moves
    }

    /// The label's row, uploaded if it is not there yet. A vector that the caller holds keeps its row.
    pub fn row(&mut self, launcher: &Launcher, features: &TextFeatures) -> Result<i32, CudaError> {
        let address = features.0.as_ptr().addr();
        if let Some((row, _)) = self.known.get(&address) {
            return Ok(*row);
        }
        if self.free.is_empty() {
            self.forget_unused();
        }
        if self.free.is_empty() {
            self.grow(launcher)?;
        }
        let row = self.free.pop().expect("rows were freed or made above");
        if let Err(error) = launcher.upload(self.values.from(row as usize * self.width), &features.0) {
            self.free.push(row);
            return Err(error);
        }
        self.known.insert(address, (row, features.clone()));
        Ok(row)
    }

    /// Rows of vectors that nobody else holds.
    fn forget_unused(&mut self) {
        let free = &mut self.free;
        self.known.retain(|_, (row, features)| {
            let used = Arc::strong_count(&features.0) > 1;
            if !used {
                free.push(*row);
            }
            used
        });
    }

    fn grow(&mut self, launcher: &Launcher) -> Result<(), CudaError> {
        let rows = self.values.len() / self.width;
        let larger = Buffer::new(&launcher.context, "the table of labels", 2 * self.values.len())?;
        launcher.clear(&larger)?;
        launcher.copy(larger.at(), self.values.at(), self.values.len())?;
        launcher.finish()?;
        self.values = larger;
        self.free.extend((rows as i32..2 * rows as i32).rev());
        self.moves += 1;
        Ok(())
    }
}
