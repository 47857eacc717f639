//! A checkpoint that is broken in any way is one message that names the place, what was expected and
//! what was found; nothing of it runs, nothing huge is allocated.

mod settings;
mod tensors;
mod tokenizer;
mod torch_bin;

use std::fs;
use std::path::{Path, PathBuf};

use gstxclip::model::{Heads, Model, ModelError, generate};
use safetensors::tensor::{Dtype, TensorView, serialize};
use serde_json::Value;

/// A whole small checkpoint in a folder of its own, to be broken.
struct Checkpoint {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

type Tensor = (String, Dtype, Vec<usize>, Vec<u8>);

impl Checkpoint {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model");
        let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/small/config.json");
        generate(&config, &path, &mut |_, _| {}).unwrap();
        Self { _dir: dir, path }
    }

    fn edit_json(&self, file: &str, edit: impl FnOnce(&mut Value)) -> &Self {
        let path = self.path.join(file);
        let mut value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        edit(&mut value);
        fs::write(path, value.to_string()).unwrap();
        self
    }

    fn write(&self, file: &str, bytes: impl AsRef<[u8]>) -> &Self {
        fs::write(self.path.join(file), bytes).unwrap();
        self
    }

    fn remove(&self, file: &str) -> &Self {
        fs::remove_file(self.path.join(file)).unwrap();
        self
    }

    fn tensors(&self) -> Vec<Tensor> {
        let bytes = fs::read(self.path.join("model.safetensors")).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let tensors =
            file.iter().map(|(name, t)| (name.to_string(), t.dtype(), t.shape().to_vec(), t.data().to_vec()));
        tensors.collect()
    }

    fn edit_tensors(&self, edit: impl FnOnce(&mut Vec<Tensor>)) -> &Self {
        let mut tensors = self.tensors();
        edit(&mut tensors);
        self.write("model.safetensors", safetensors_of(&tensors))
    }

    fn open(&self) -> Result<Model, ModelError> {
        Model::open(self.path.to_str().unwrap(), Heads::Hf)
    }

    /// The message, which must contain all of `parts`.
    #[track_caller]
    fn fails_with(&self, parts: &[&str]) -> String {
        let message = self.open().err().expect("the checkpoint is broken").to_string();
        for part in parts {
            assert!(message.contains(part), "`{part}` is not in: {message}");
        }
        message
    }
}

fn safetensors_of(tensors: &[Tensor]) -> Vec<u8> {
    let views = tensors
        .iter()
        .map(|(name, dtype, shape, data)| (name, TensorView::new(*dtype, shape.clone(), data).unwrap()));
    serialize(views, None).unwrap()
}

fn find<'a>(tensors: &'a mut [Tensor], name: &str) -> &'a mut Tensor {
    tensors.iter_mut().find(|tensor| tensor.0 == name).unwrap()
}

#[test]
fn a_folder_that_is_none_says_what_was_expected() {
    let message = |model: &str| Model::open(model, Heads::Hf).err().unwrap().to_string();
    assert!(message("/no/such/folder").contains("no such folder"), "{}", message("/no/such/folder"));
    let checkpoint = Checkpoint::new();
    let file = checkpoint.path.join("config.json").display().to_string();
    assert!(message(&file).contains("is a file; name the folder"), "{}", message(&file));
}

#[test]
fn each_missing_file_is_named() {
    for (file, parts) in [
        ("config.json", &["has no config.json"][..]),
        ("preprocessor_config.json", &["has no preprocessor_config.json"]),
        ("tokenizer.json", &["has no tokenizer", "vocab.json and merges.txt"]),
        ("model.safetensors", &["has no weights", "model.safetensors", "pytorch_model.bin"]),
    ] {
        Checkpoint::new().remove(file).fails_with(parts);
    }
}

#[test]
fn empty_files_and_lfs_pointers_are_recognised() {
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        Checkpoint::new().write(file, "").fails_with(&[file, "is empty"]);
        Checkpoint::new()
            .write(file, "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
            .fails_with(&[file, "Git LFS pointer", "git lfs pull"]);
    }
}

#[test]
fn generating_replaces_generated_weights_but_no_others() {
    let checkpoint = Checkpoint::new();
    let config = checkpoint.path.join("config.json");
    generate(&config, &checkpoint.path, &mut |_, _| {}).unwrap();
    let trained = safetensors_of(&checkpoint.tensors());
    checkpoint.write("model.safetensors", &trained);
    let message = generate(&config, &checkpoint.path, &mut |_, _| {}).unwrap_err().to_string();
    assert!(message.contains("model.safetensors: exists") && message.contains("another folder"), "{message}");
    assert_eq!(fs::read(checkpoint.path.join("model.safetensors")).unwrap(), trained);
}

#[test]
fn generating_needs_a_vocabulary_that_spells_every_byte() {
    let checkpoint = Checkpoint::new();
    checkpoint.edit_json("config.json", |c| c["text_config"]["vocab_size"] = 513.into());
    let out = checkpoint.path.join("new");
    let message =
        generate(&checkpoint.path.join("config.json"), &out, &mut |_, _| {}).unwrap_err().to_string();
    assert!(
        message.contains("vocab_size") && message.contains("514") && message.contains("513"),
        "{message}"
    );
    assert!(!out.exists());
}
