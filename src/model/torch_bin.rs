//! One pytorch_model.bin: a zip archive of stored members, `ROOT/data.pkl` and `ROOT/data/KEY`.

use std::io::Cursor;

use zip::{CompressionMethod, ZipArchive};

use super::ModelError;
use super::error::shown;
use super::pickle::{self, Tensor};
use super::source::Content;
use super::weights::{Element, Stored};

/// The pickle of the largest published checkpoint has 0.2 MB. Each of its bytes may become a value of a
/// hundred.
const PICKLE_LIMIT: usize = 2 << 20;

/// First bytes of what torch.save wrote before version 1.6.
const LEGACY: &[u8] = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.";

type Archive<'a> = ZipArchive<Cursor<&'a [u8]>>;

/// Names and places of the tensors; `file` is the number that the places carry.
pub(crate) fn read(content: &Content, file: usize) -> Result<Vec<(String, Stored)>, ModelError> {
    let fault = |problem: String| ModelError::Format { file: content.file.clone(), problem };
    if content.starts_with(LEGACY) || content.starts_with(b"\x80") {
        return Err(fault(
            "is in the format of PyTorch before 1.6 (a bare pickle), which is not read: save it again with \
             `torch.save(torch.load(\"pytorch_model.bin\", weights_only=True), \"pytorch_model.bin\")`"
                .into(),
        ));
    }
    if !content.starts_with(b"PK\x03\x04") {
        return Err(fault("is not a PyTorch file: expected a zip archive (first bytes PK\\x03\\x04)".into()));
    }
    let mut archive: Archive<'_> = ZipArchive::new(Cursor::new(&content[..]))
        .map_err(|error| fault(format!("is truncated or damaged: {error}: fetch it again")))?;

    let pickle_name = archive
        .file_names()
        .filter_map(Result::ok)
        .find(|name| name.ends_with("/data.pkl"))
        .ok_or_else(|| fault("has no data.pkl; expected what torch.save writes".into()))?
        .into_owned();
    let root = &pickle_name[..pickle_name.len() - "data.pkl".len()];

    if let Some((start, size)) = member(&mut archive, content, &format!("{root}byteorder")).map_err(fault)?
        && &content[start..start + size] != b"little"
    {
        let found = String::from_utf8_lossy(&content[start..start + size.min(16)]).into_owned();
        return Err(fault(format!("byteorder: expected little, found {}", shown(&found))));
    }
    let (start, size) = member(&mut archive, content, &pickle_name).map_err(fault)?.expect("found above");
    if size > PICKLE_LIMIT {
        return Err(fault(format!("data.pkl has {size} bytes, expected at most {PICKLE_LIMIT}")));
    }
    let tensors = pickle::read(&content[start..start + size]).map_err(|refusal| ModelError::Pickle {
        file: content.file.clone(),
        offset: refusal.offset,
        problem: refusal.problem,
    })?;

    let mut found = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        let stored = place(&mut archive, content, root, file, tensor)
            .map_err(|problem| fault(format!("tensor `{}`: {problem}", shown(name))))?;
        found.push((name.to_string(), stored));
    }
    Ok(found)
}

/// Checks that the tensor lies inside its storage and the storage inside the file.
fn place(
    archive: &mut Archive<'_>,
    content: &[u8],
    root: &str,
    file: usize,
    tensor: Tensor<'_>,
) -> Result<Stored, String> {
    let Tensor { key, element, stored, offset, shape, strides } = tensor;
    let width = match element {
        Element::Other(_) => 8, // LongStorage, the only other one the pickle reader lets through
        known => known.bytes(),
    };
    let name = format!("{root}data/{key}");
    let (start, size) = member(archive, content, &name)?
        .ok_or_else(|| format!("its storage `{}` is not in the file", shown(&name)))?;
    if stored.checked_mul(width) != Some(size) {
        return Err(format!("its storage has {size} bytes, expected {stored} elements of {width}"));
    }
    let past = || {
        format!(
            "shape {shape:?} with strides {strides:?} from element {offset} leaves its storage of {stored}"
        )
    };
    if !shape.contains(&0) {
        let last = shape.iter().zip(&strides).try_fold(offset, |last, (axis, stride)| {
            (axis - 1).checked_mul(*stride).and_then(|step| last.checked_add(step))
        });
        if last.is_none_or(|last| last >= stored) {
            return Err(past());
        }
    } else if offset > stored {
        return Err(past());
    }
    let strides = (!is_row_major(&shape, &strides)).then_some(strides);
    Ok(Stored { file, element, shape, start: start + offset * width, strides })
}

fn is_row_major(shape: &[usize], strides: &[usize]) -> bool {
    let mut step: usize = 1;
    shape.iter().zip(strides).rev().all(|(&axis, &stride)| {
        let fits = axis == 1 || stride == step;
        step = step.saturating_mul(axis);
        fits
    })
}

/// Start and length of a member's bytes in the file, which must hold them as they are.
fn member(archive: &mut Archive<'_>, content: &[u8], name: &str) -> Result<Option<(usize, usize)>, String> {
    let Some(index) = archive.index_for_name(name) else { return Ok(None) };
    let damaged = |what: String| format!("its member `{}` is damaged: {what}", shown(name));
    let entry = archive.by_index_raw(index).map_err(|error| damaged(error.to_string()))?;
    if entry.compression() != CompressionMethod::Stored || entry.encrypted() {
        return Err(format!("its member `{}` is compressed or encrypted, expected stored", shown(name)));
    }
    let start = entry.data_start().ok_or_else(|| damaged("its place is unknown".into()))?;
    let range = usize::try_from(start).ok().zip(usize::try_from(entry.size()).ok());
    range
        .filter(|(start, size)| start.checked_add(*size).is_some_and(|end| end <= content.len()))
        .map(Some)
        .ok_or_else(|| damaged("it reaches past the end of the file".into()))
}
