//! Stages on their way to the trace: read from the device as soon as they are computed, shown as f32.

use half::f16;

use super::CudaError;
use super::launcher::Launcher;
use super::memory::At;
use crate::backend::{Trace, emit};

/// Nothing is copied, nor waited for, without a trace.
pub(super) struct Tracer<'a> {
    pub launcher: &'a Launcher,
    pub trace: &'a mut Option<Trace>,
}

impl Tracer<'_> {
    pub fn is_on(&self) -> bool {
        self.trace.is_some()
    }

    /// `items` items of `size` values each, one after another.
    pub fn show(&mut self, stage: &str, at: At<f16>, items: usize, size: usize) -> Result<(), CudaError> {
        if self.is_on() {
            let values = self.values(at, items * size)?;
            values.chunks(size).for_each(|item| self.emit(stage, item));
        }
        Ok(())
    }

    pub fn show_f32(&mut self, stage: &str, at: At<f32>, items: usize, size: usize) -> Result<(), CudaError> {
        if self.is_on() {
            let values = self.launcher.download(at, items * size)?;
            values.chunks(size).for_each(|item| self.emit(stage, item));
        }
        Ok(())
    }

    pub fn values(&self, at: At<f16>, len: usize) -> Result<Vec<f32>, CudaError> {
        Ok(self.launcher.download(at, len)?.into_iter().map(f16::to_f32).collect())
    }

    pub fn emit(&mut self, stage: &str, values: &[f32]) {
        emit(self.trace, stage, values);
    }
}
