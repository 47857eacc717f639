//! The text tower: token ids → one vector per prompt.
//!
//! Prompts of any lengths run together as rows one after another: no padding exists, so none is computed.
//! What follows the end token cannot reach it (causal), so it is cut off. Labels are encoded once, so these
//! are single launches, not graphs.

use half::f16;

use super::CudaError;
use super::block::{Block, Scratch, Spans};
use super::launcher::{Lane, Launcher};
use super::memory::Buffer;
use super::product::Into;
use super::shape::TEXT_ROWS;
use super::trace::Tracer;
use super::weights::{Linear, Loader, Norm};
use crate::backend::BackendError;
use crate::backend::source::{batches, until_end};
use crate::model::Config;

pub(super) struct Text {
    vocab: usize,
    context: usize,
    /// [vocab, width]
    tokens: Buffer<f16>,
    /// [context, width]
    positions: Buffer<f32>,
    blocks: Vec<Block>,
    norm: Norm,
    projection: Linear,
}

pub(super) struct TextWork {
    /// Token ids, their positions, first rows of the prompts, last rows.
    numbers: [Buffer<i32>; 4],
    x: Buffer<f16>,
    ends: Buffer<f16>,
    features: Buffer<f32>,
    scratch: Scratch,
}

impl TextWork {
    pub fn new(launcher: &Launcher, config: &Config) -> Result<Self, CudaError> {
        let (rows, tower) = (TEXT_ROWS.max(config.context), &config.text);
        let what = "prompts in work";
        let numbers = || Buffer::new(&launcher.context, what, rows + 1);
        Ok(Self {
            numbers: [numbers()?, numbers()?, numbers()?, numbers()?],
            x: Buffer::new(&launcher.context, what, rows * tower.width)?,
            ends: Buffer::new(&launcher.context, what, rows * tower.width)?,
            features: Buffer::new(&launcher.context, what, rows * config.projection)?,
            scratch: Scratch::new(launcher, rows, tower.width, tower.mlp.max(3 * tower.width))?,
        })
    }
}

impl Text {
    pub fn load(loader: &mut Loader<'_, '_>, config: &Config) -> Result<Self, BackendError> {
        let (tower, vocab, context) = (&config.text, config.vocab_size, config.context);
        let (width, name) = (tower.width, "text_model.embeddings");
        let tokens = loader.tensor(&format!("{name}.token_embedding.weight"), &[vocab, width])?;
        let tokens = loader.upload_f16(&tokens)?;
        let positions = loader.tensor(&format!("{name}.position_embedding.weight"), &[context, width])?;
        Ok(Self {
            vocab,
            context,
            tokens,
            positions: loader.upload_f32(&positions)?,
            blocks: (0..tower.layers)
                .map(|i| Block::load(loader, &format!("text_model.encoder.layers.{i}"), tower))
                .collect::<Result<_, _>>()?,
            norm: loader.norm("text_model.final_layer_norm", width)?,
            projection: loader.linear("text_projection", config.projection, width, false)?,
        })
    }

    /// Each prompt's ids → its E values.
    pub fn forward(
        &self,
        launcher: &Launcher,
        work: &TextWork,
        prompts: &[Vec<u32>],
        tracer: &mut Tracer<'_>,
    ) -> Result<Vec<Vec<f32>>, BackendError> {
        let (context, vocab) = (self.context, self.vocab);
        let prompts =
            prompts.iter().map(|ids| until_end(ids, context, vocab)).collect::<Result<Vec<_>, _>>()?;
        let mut features = Vec::with_capacity(prompts.len());
        for batch in batches(&prompts, TEXT_ROWS) {
            self.batch(launcher, work, batch, tracer, &mut features)?;
        }
        Ok(features)
    }

    fn batch(
        &self,
        launcher: &Launcher,
        work: &TextWork,
        prompts: &[&[u32]],
        tracer: &mut Tracer<'_>,
        features: &mut Vec<Vec<f32>>,
    ) -> Result<(), CudaError> {
        let (main, width) = (Lane::Main, self.projection.ins);
        let (mut ids, mut places, mut starts, mut ends) = (Vec::new(), Vec::new(), vec![0], Vec::new());
        for prompt in prompts {
            ids.extend(prompt.iter().map(|id| *id as i32));
            places.extend(0..prompt.len() as i32);
            starts.push(ids.len() as i32);
            ends.push(ids.len() as i32 - 1);
        }
        let longest = prompts.iter().map(|prompt| prompt.len()).max().unwrap_or(1);
        let [at_ids, at_places, at_starts, at_ends] = &work.numbers;
        for (buffer, numbers) in
            [(at_ids, &ids), (at_places, &places), (at_starts, &starts), (at_ends, &ends)]
        {
            launcher.upload(buffer.at(), numbers)?;
        }
        let (x, rows) = (work.x.at(), ids.len());
        let (tokens, positions) = (self.tokens.at(), self.positions.at());
        launcher.embed_tokens(at_ids.at(), at_places.at(), tokens, positions, x, rows, width)?;
        let spans = Spans::Starts(at_starts.at(), prompts.len(), longest);
        for (i, block) in self.blocks.iter().enumerate() {
            block.forward(launcher, &work.scratch, x, rows, spans, true)?;
            if tracer.is_on() {
                let values = tracer.values(x, rows * width)?;
                for span in starts.windows(2) {
                    let span = span[0] as usize * width..span[1] as usize * width;
                    tracer.emit(&format!("text_hidden_{i}"), &values[span]);
                }
            }
        }
        let (count, outs, narrow) = (prompts.len(), self.projection.outs, work.scratch.narrow());
        launcher.gather_rows(x, at_ends.at(), work.ends.at(), count, width)?;
        launcher.layer_norm(main, work.ends.at(), width, narrow, self.norm.at(), count)?;
        let out = work.features.at();
        launcher.product(main, narrow, width, count, self.projection.at(), out, Into::Replace)?;
        for row in launcher.download(out, count * outs)?.chunks(outs) {
            tracer.emit("text_features_before_prompts", row);
            features.push(row.to_vec());
        }
        Ok(())
    }
}
