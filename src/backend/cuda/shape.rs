//! Which checkpoints the kernels take, and how much runs at once.

use super::CudaError;
use super::functions::HEADS;
use crate::model::Config;

/// Widest row that a warp holds in registers.
const WIDEST: usize = 1280;
/// Windows of one call, at most.
const MOST_WINDOWS: usize = 64;
/// Frames of one window, at most.
const LONGEST: usize = 64;
/// Rows that make products large enough even where the cache is small.
const LEAST_ROWS: usize = 2048;
/// Prompts compared in one launch; more are taken in turns.
pub(super) const MOST_PROMPTS: usize = 512;
/// Rows of labels (windows × prompts) and of patches (windows × P) that pass prompting together.
const COMPARED_ROWS: usize = 8192;
/// Token rows that pass the text tower together.
pub(super) const TEXT_ROWS: usize = 512;

/// Windows of which all rows that a block touches lie in the L2 cache beside the block's weights, a power of
/// two: x, its normalised rows, and the wider of q, k, v and the MLP's rows. With the blocks' weights come those of
/// the messages, which run beside them.
fn cached_windows(config: &Config, l2_bytes: usize) -> usize {
    let (width, mlp) = (config.vision.width, config.vision.mlp);
    let row = 2 * (2 * width + mlp.max(3 * width));
    let weights = 2 * (4 * width * width + 2 * width * mlp + 5 * width * width);
    let rows = (l2_bytes.saturating_sub(weights) / row).max(LEAST_ROWS);
    let fitting = (rows / (config.num_frames * (config.patches() + 1))).max(1);
    1 << fitting.ilog2()
}

/// All problems at once, in the words of config.json.
pub(super) fn check(config: &Config) -> Result<(), CudaError> {
    let mut problems = Vec::new();
    let towers =
        [("vision_config", config.vision), ("vision_config.mit", config.mit), ("text_config", config.text)];
    for (name, tower) in towers {
        if !tower.width.is_multiple_of(8) || tower.width > WIDEST {
            problems.push(format!("{name}: width {} (taken: multiples of 8 up to {WIDEST})", tower.width));
        }
        if !tower.mlp.is_multiple_of(8) {
            problems.push(format!("{name}: intermediate size {} (taken: multiples of 8)", tower.mlp));
        }
    }
    let heads = [
        ("vision_config", config.vision.width / config.vision.heads),
        ("vision_config.mit", config.mit.width / config.mit.heads),
        ("text_config", config.text.width / config.text.heads),
        ("prompts", config.projection / config.prompt_heads),
    ];
    let most = HEADS[HEADS.len() - 1];
    for (name, head) in heads {
        if !head.is_multiple_of(8) || head > most {
            problems.push(format!("{name}: heads of {head} values (taken: multiples of 8 up to {most})"));
        }
    }
    // So that every count of values of one launch fits the kernels' 32-bit numbers.
    let rows = LONGEST * (config.patches() + 1);
    let widest = config.vision.mlp.max(3 * config.vision.width).max(columns(config));
    if config.num_frames > LONGEST || rows * widest > i32::MAX as usize / 2 {
        problems.push(format!(
            "{} frames of {} patches (taken: up to {LONGEST} frames, and windows of up to 10⁹ values)",
            config.num_frames,
            config.patches()
        ));
    }
    if problems.is_empty() { Ok(()) } else { Err(CudaError::Refused(problems.join("; "))) }
}

/// Values of a patch row: 3·p², rounded up to what 16-byte loads take.
pub(super) fn columns(config: &Config) -> usize {
    (3 * config.patch_size.pow(2)).next_multiple_of(8)
}

/// How much runs at once; buffers have these sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sizes {
    /// Windows of one call.
    pub windows: usize,
    /// Windows that pass the blocks together: as many as `cached_windows`, where nobody says otherwise.
    pub micro: usize,
    /// Frames of one preparing call: four new ones of each window, so that two calls prepare a batch of windows of 8
    /// that share nothing.
    pub frames: usize,
    /// Frames that pass block 0 together.
    pub frame_step: usize,
    /// Windows that pass prompting together.
    pub compared: usize,
}

impl Sizes {
    /// `windows`: a power of two. `micro`: any number, or none.
    pub fn new(config: &Config, l2_bytes: usize, windows: usize, micro: Option<usize>) -> Self {
        let micro = micro.unwrap_or_else(|| cached_windows(config, l2_bytes)).clamp(1, windows);
        let frames = (4 * windows).max(config.num_frames);
        let frame_step = (1 << (micro * config.num_frames).ilog2()).min(frames);
        let compared = (COMPARED_ROWS / config.patches()).clamp(1, windows);
        Self { windows, micro, frames, frame_step, compared: 1 << compared.ilog2() }
    }

    /// From the most on, each half of the one before.
    pub fn choices(config: &Config, l2_bytes: usize, micro: Option<usize>) -> impl Iterator<Item = Self> {
        let windows = std::iter::successors(Some(MOST_WINDOWS), |n| (*n > 1).then_some(n / 2));
        windows.map(move |windows| Self::new(config, l2_bytes, windows, micro))
    }

    /// What `count` windows run as.
    pub fn bucket(&self, count: usize) -> usize {
        bucket(count, self.micro, self.windows)
    }

    /// What `count` new frames run as.
    pub fn frame_bucket(&self, count: usize) -> usize {
        bucket(count, self.frame_step, self.frames)
    }

    /// Windows of one comparing step with so many prompts each.
    pub fn compared_with(&self, prompts: usize) -> usize {
        let fitting = (COMPARED_ROWS / prompts).max(1);
        self.compared.min(1 << fitting.ilog2())
    }

    /// Most rows of labels in one comparing step.
    pub fn label_rows(&self) -> usize {
        COMPARED_ROWS.min(self.compared * MOST_PROMPTS)
    }
}

/// The next power of two, at most `step`; beyond that its multiples, at most `most`.
fn bucket(count: usize, step: usize, most: usize) -> usize {
    let bucket = match count <= step {
        true => count.next_power_of_two().min(step),
        false => count.next_multiple_of(step),
    };
    bucket.min(most)
}

/// What `count` prompts run as.
pub(super) fn prompt_bucket(count: usize) -> usize {
    count.next_power_of_two().clamp(8, MOST_PROMPTS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Heads, published};

    fn config(name: &str) -> Config {
        Config::parse(name, published::config_json(name).unwrap().as_bytes(), Heads::Hf).unwrap()
    }

    #[test]
    fn every_published_size_is_taken_and_fits_the_cache() {
        for name in published::NAMES {
            let config = config(name);
            check(&config).unwrap();
            let sizes = Sizes::new(&config, 50 << 20, 64, None);
            assert!(sizes.micro >= 1 && sizes.frame_step >= 1 && sizes.compared >= 1, "{name} {sizes:?}");
        }
        // (windows, megabytes of their rows and of weights): twice as many would not fit 52.4 MB.
        for (name, micro, rows, weights) in [("base-patch32", 8, 29.5, 20.1), ("base-patch16", 2, 29.1, 20.1)]
        {
            let config = config(name);
            assert_eq!(Sizes::new(&config, 50 << 20, 64, None).micro, micro, "{name}");
            let tokens = micro * config.num_frames * (config.patches() + 1);
            let (x, normalised, mlp) = (2 * 768 * tokens, 2 * 768 * tokens, 2 * 3072 * tokens);
            assert!(((x + normalised + mlp) as f64 / 1e6 - rows).abs() < 0.1, "{name}");
            assert!(rows + weights < 52.4 && 2.0 * rows + weights > 52.4, "{name}");
        }
        let sizes = Sizes::new(&config("base-patch32"), 50 << 20, 64, None);
        assert_eq!(
            (8 * 64usize).div_ceil(sizes.frames),
            2,
            "launches that prepare 64 windows of 8 new frames"
        );
        // However small the cache is, products are of some size.
        assert_eq!(Sizes::new(&config("base-patch32"), 4 << 20, 64, None).micro, 4);
    }

    #[test]
    fn any_number_of_windows_may_pass_together() {
        let config = config("base-patch32");
        for micro in 1..=64 {
            let sizes = Sizes::new(&config, 50 << 20, 64, Some(micro));
            assert_eq!(sizes.micro, micro);
            assert!(sizes.frame_step <= micro * config.num_frames && sizes.frame_step <= sizes.frames);
            for count in 1..=64 {
                let bucket = sizes.bucket(count);
                assert!((count..=64).contains(&bucket) && bucket < 2 * count, "{micro}: {count} {bucket}");
                // A part is never more than its buffers hold.
                assert!(bucket <= micro || bucket.is_multiple_of(micro) || bucket == 64, "{micro}: {bucket}");
            }
        }
        assert_eq!(Sizes::new(&config, 50 << 20, 8, Some(20)).micro, 8);
    }

    #[test]
    fn a_bucket_holds_its_windows_and_wastes_less_than_half() {
        let sizes = Sizes { windows: 64, micro: 16, frames: 128, frame_step: 128, compared: 64 };
        for count in 1..=64 {
            let bucket = sizes.bucket(count);
            assert!(bucket >= count && bucket < 2 * count && bucket <= 64, "{count} {bucket}");
        }
        assert_eq!(sizes.bucket(33), 48);
        let sizes = Sizes { frames: 100, frame_step: 40, ..sizes };
        for count in 1..=100 {
            assert!((count..=100).contains(&sizes.frame_bucket(count)), "{count}");
        }
    }

    #[test]
    fn comparing_steps_fit_their_buffers() {
        for compared in [1, 8, 64] {
            let sizes = Sizes { windows: 64, micro: 16, frames: 128, frame_step: 128, compared };
            for prompts in 1..=MOST_PROMPTS {
                let windows = sizes.compared_with(prompts);
                assert!(windows >= 1 && windows * prompts <= sizes.label_rows(), "{compared} {prompts}");
            }
        }
    }

    #[test]
    fn what_is_not_taken_is_told_at_once() {
        let mut config = config("base-patch32");
        config.text.width = 516;
        config.mit.heads = 4;
        let text = check(&config).unwrap_err().to_string();
        assert!(
            text.contains("width 516") && text.contains("heads of 128") && text.contains("device=cpu"),
            "{text}"
        );
    }
}
