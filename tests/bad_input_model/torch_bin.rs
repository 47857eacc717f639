//! pytorch_model.bin.

use std::fs;
use std::io::{Cursor, Write};

use gstxclip::model::layout;
use safetensors::tensor::Dtype;

use super::{Checkpoint, Tensor, find};

/// What a broken .bin does differently from what torch.save writes.
#[derive(Default)]
struct Bin {
    /// Bytes of the pickle before its first tensor.
    prologue: Vec<u8>,
    /// Elements that the pickle claims for each storage, over the true number.
    surplus: u32,
    byte_order: Option<&'static str>,
    deflated: bool,
    without: Option<&'static str>,
}

impl Bin {
    fn write(&self, checkpoint: &Checkpoint) {
        let text = |out: &mut Vec<u8>, text: &str| {
            out.push(b'X');
            out.extend((text.len() as u32).to_le_bytes());
            out.extend(text.as_bytes());
        };
        let int = |out: &mut Vec<u8>, value: usize| {
            out.push(b'J');
            out.extend((value as i32).to_le_bytes());
        };
        let mut pickle = b"\x80\x02".to_vec();
        pickle.extend(&self.prologue);
        pickle.extend(b"ccollections\nOrderedDict\n)R(");
        let tensors = checkpoint.tensors();
        for (key, (name, dtype, shape, data)) in tensors.iter().enumerate() {
            let (class, width) = match dtype {
                Dtype::F16 => ("HalfStorage", 2),
                Dtype::BF16 => ("BFloat16Storage", 2),
                _ => ("FloatStorage", 4),
            };
            text(&mut pickle, name);
            pickle.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
            text(&mut pickle, "storage");
            pickle.extend(format!("ctorch\n{class}\n").bytes());
            text(&mut pickle, &key.to_string());
            text(&mut pickle, "cpu");
            int(&mut pickle, data.len() / width + self.surplus as usize);
            pickle.extend(b"tQK\x00(");
            shape.iter().for_each(|&axis| int(&mut pickle, axis));
            pickle.extend(b"t(");
            (0..shape.len()).for_each(|axis| int(&mut pickle, shape[axis + 1..].iter().product()));
            pickle.extend(b"t\x89ccollections\nOrderedDict\n)RtR");
        }
        pickle.extend(b"u.");

        let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
        let options =
            zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
        let mut add = |name: String, content: &[u8]| {
            if self.without != Some(name.as_str()) {
                zip.start_file(name, options).unwrap();
                zip.write_all(content).unwrap();
            }
        };
        add("archive/data.pkl".into(), &pickle);
        add("archive/byteorder".into(), self.byte_order.unwrap_or("little").as_bytes());
        for (key, tensor) in tensors.iter().enumerate() {
            add(format!("archive/data/{key}"), &tensor.3);
        }
        let mut bytes = zip.finish().unwrap().into_inner();
        if self.deflated {
            // Method 8 in every central directory entry.
            let at: Vec<usize> =
                (0..bytes.len() - 4).filter(|&at| bytes[at..].starts_with(b"PK\x01\x02")).collect();
            at.into_iter().for_each(|at| bytes[at + 10] = 8);
        }
        checkpoint.write("pytorch_model.bin", bytes).remove("model.safetensors");
    }
}

#[test]
fn a_pytorch_file_gives_the_same_checkpoint_as_safetensors() {
    let (safe, torch) = (Checkpoint::new(), Checkpoint::new());
    Bin::default().write(&torch);
    let (safe, torch) = (safe.open().unwrap(), torch.open().unwrap());
    assert_eq!(safe.fingerprint(), torch.fingerprint());
    for tensor in layout::tensors(&safe.config) {
        assert_eq!(safe.weights.tensor(&tensor.name).unwrap(), torch.weights.tensor(&tensor.name).unwrap());
    }
}

#[test]
fn half_precision_weights_are_read_in_both_formats() {
    for torch in [false, true] {
        let checkpoint = Checkpoint::new();
        checkpoint.edit_tensors(|tensors| {
            halve(
                find(tensors, "text_projection.weight"),
                |v| half::f16::from_f32(v).to_le_bytes(),
                Dtype::F16,
            );
            halve(
                find(tensors, "visual_projection.weight"),
                |v| half::bf16::from_f32(v).to_le_bytes(),
                Dtype::BF16,
            );
        });
        let exact = Checkpoint::new().open().unwrap();
        if torch {
            Bin::default().write(&checkpoint);
        }
        let rounded = checkpoint.open().unwrap();
        for (name, bound) in
            [("text_projection.weight", 2f32.powi(-11)), ("visual_projection.weight", 2f32.powi(-8))]
        {
            let (a, b) = (exact.weights.tensor(name).unwrap(), rounded.weights.tensor(name).unwrap());
            assert_ne!(a, b);
            assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() <= bound * a.abs().max(1e-4)), "{name}");
        }
    }
}

#[test]
fn a_hostile_pickle_is_refused_by_name_and_runs_nothing() {
    let broken = Checkpoint::new();
    let proof = broken.path.join("proof");
    let command = format!("touch {}", proof.display());
    let mut prologue = b"cposix\nsystem\n(X".to_vec();
    prologue.extend((command.len() as u32).to_le_bytes());
    prologue.extend(command.bytes());
    prologue.extend(b"tR");
    Bin { prologue, ..Bin::default() }.write(&broken);
    broken.fails_with(&["pytorch_model.bin", "data.pkl, byte 2", "`posix.system`", "refused", "safetensors"]);
    assert!(!proof.exists());
}

#[test]
fn damaged_pytorch_files_say_what_is_wrong() {
    let cases: [(Bin, &[&str]); 4] = [
        (Bin { surplus: 1, ..Bin::default() }, &["tensor `", "storage has", "bytes, expected"]),
        (Bin { byte_order: Some("big"), ..Bin::default() }, &["byteorder: expected little, found big"]),
        (Bin { deflated: true, ..Bin::default() }, &["compressed", "expected stored"]),
        (
            Bin { without: Some("archive/data/3"), ..Bin::default() },
            &["storage `archive/data/3` is not in the file"],
        ),
    ];
    for (bin, parts) in cases {
        let broken = Checkpoint::new();
        bin.write(&broken);
        broken.fails_with(&[&["pytorch_model.bin"], parts].concat());
    }
    let broken = Checkpoint::new();
    Bin { without: Some("archive/data.pkl"), ..Bin::default() }.write(&broken);
    broken.fails_with(&["has no data.pkl"]);

    let whole = Checkpoint::new();
    Bin::default().write(&whole);
    let bytes = fs::read(whole.path.join("pytorch_model.bin")).unwrap();
    whole.write("pytorch_model.bin", &bytes[..bytes.len() / 2]).fails_with(&["truncated or damaged"]);
    whole
        .write("pytorch_model.bin", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.rest")
        .fails_with(&["before 1.6", "torch.save"]);
    whole.write("pytorch_model.bin", b"hello world").fails_with(&["not a PyTorch file"]);
}

fn halve(tensor: &mut Tensor, to: impl Fn(f32) -> [u8; 2], dtype: Dtype) {
    let values = tensor.3.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b));
    tensor.3 = values.flat_map(to).collect();
    tensor.1 = dtype;
}
