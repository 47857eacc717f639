//! A complete synthetic checkpoint for any configuration: weights by [`recipe`], both configs, a tokenizer.
//! With it every published size runs, and is measured, without a download.

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use serde_json::{Map, json};

use super::layout::{self, Expected};
use super::{Config, Heads, ModelError, clip_bpe, published, recipe, weights};

/// Writes config.json (as given), preprocessor_config.json, model.safetensors (f32) and tokenizer.json to
/// `out`, which is made if need be; weights that were not generated are not overwritten. `config` is a
/// config.json or the name of a [published](published::NAMES) size. One tensor is in memory at a time.
/// `progress` hears bytes written and bytes in all.
pub fn generate(config: &Path, out: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<(), ModelError> {
    let at = |path: &Path| {
        let path = path.to_path_buf();
        move |source| ModelError::Io { path, source }
    };
    let json = match config.to_str().and_then(published::config_json) {
        Some(json) if !config.exists() => json.into_bytes(),
        _ => std::fs::read(config).map_err(at(config))?,
    };
    let file = config.display().to_string();
    let checked = Config::parse(&file, &json, Heads::Hf)?;
    if checked.vocab_size < clip_bpe::LEAST_VOCABULARY {
        let problem = format!(
            "text_config.vocab_size: a byte-level tokenizer needs at least {} tokens, found {}",
            clip_bpe::LEAST_VOCABULARY,
            checked.vocab_size
        );
        return Err(ModelError::Settings { file, problems: vec![problem] });
    }
    refuse_other_weights(out)?;
    std::fs::create_dir_all(out).map_err(at(out))?;
    let write = |name: &str, content: &[u8]| {
        let path = out.join(name);
        std::fs::write(&path, content).map_err(at(&path))
    };
    write("config.json", &json)?;
    let side = checked.image_size;
    let preprocessor = json!({
        "image_processor_type": "VideoMAEImageProcessor",
        "do_resize": true, "size": {"shortest_edge": side}, "resample": 2,
        "do_center_crop": true, "crop_size": {"height": side, "width": side},
        "do_rescale": true, "rescale_factor": 1.0 / 255.0,
        "do_normalize": true, "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225],
    });
    write("preprocessor_config.json", format!("{preprocessor:#}\n").as_bytes())?;
    write("tokenizer.json", clip_bpe::synthetic(checked.vocab_size).to_string().as_bytes())?;

    // Under another name until it is whole: an interrupted run leaves no truncated checkpoint.
    let (partial, path): (PathBuf, PathBuf) =
        (out.join("model.safetensors.partial"), out.join("model.safetensors"));
    let mut file = BufWriter::with_capacity(1 << 20, File::create(&partial).map_err(at(&partial))?);
    write_weights(&layout::tensors(&checked), &mut file, progress).map_err(at(&partial))?;
    file.into_inner().map_err(|error| at(&partial)(error.into_error()))?;
    std::fs::rename(&partial, &path).map_err(at(&path))
}

/// Says in a file's header that it may be generated anew.
const MARK: &str = "xclip synthetic recipe";

/// Trained weights must not be lost to a mistyped folder.
fn refuse_other_weights(out: &Path) -> Result<(), ModelError> {
    let refused = |path: &Path| {
        let problem = "exists and was not generated here: choose another folder".to_string();
        Err(ModelError::Format { file: path.display().to_string(), problem })
    };
    // The first is what this writes itself; the mark below tells.
    for name in &weights::NAMES[1..] {
        let path = out.join(name);
        if path.exists() {
            return refused(&path);
        }
    }
    let path = &out.join("model.safetensors");
    let Ok(file) = File::open(path) else { return Ok(()) };
    let mut start = Vec::new();
    let io = |source| ModelError::Io { path: path.to_path_buf(), source };
    file.take(1024).read_to_end(&mut start).map_err(io)?;
    if start.windows(MARK.len()).any(|part| part == MARK.as_bytes()) {
        return Ok(());
    }
    refused(path)
}

fn write_weights(
    tensors: &[Expected],
    to: &mut impl Write,
    progress: &mut dyn FnMut(u64, u64),
) -> std::io::Result<()> {
    let mut header = Map::new();
    header.insert("__metadata__".into(), json!({"format": "pt", "source": MARK}));
    let mut end = 0;
    for Expected { name, shape } in tensors {
        let start = end;
        end += 4 * shape.iter().product::<usize>();
        header.insert(name.clone(), json!({"dtype": "F32", "shape": shape, "data_offsets": [start, end]}));
    }
    let mut header = serde_json::to_vec(&header)?;
    header.resize(header.len().next_multiple_of(8), b' ');
    to.write_all(&(header.len() as u64).to_le_bytes())?;
    to.write_all(&header)?;

    let mut written = 0;
    for Expected { name, shape } in tensors {
        for values in recipe::tensor(name, shape).chunks(1 << 14) {
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            to.write_all(&bytes)?;
            written += bytes.len() as u64;
            progress(written, end as u64);
        }
    }
    to.flush()
}
