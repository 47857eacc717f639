//! One .safetensors file: its header, checked against the file's size.

use safetensors::Dtype;
use safetensors::tensor::Metadata;

use super::ModelError;
use super::source::Content;
use super::weights::{Element, Stored};

/// The format's own bound on the header.
const HEADER_LIMIT: usize = 100_000_000;

/// Names and places of the tensors; `file` is the number that the places carry.
pub(crate) fn read(content: &Content, file: usize) -> Result<Vec<(String, Stored)>, ModelError> {
    let fault = |problem: String| ModelError::Format { file: content.file.clone(), problem };
    let (size, rest) = content.split_first_chunk::<8>().ok_or_else(|| {
        fault(format!("has {} bytes, too short for a safetensors file: fetch it again", content.len()))
    })?;
    let header = usize::try_from(u64::from_le_bytes(*size)).unwrap_or(usize::MAX);
    if header > HEADER_LIMIT {
        return Err(fault(format!(
            "is not a safetensors file: its header would have {header} bytes, expected at most {HEADER_LIMIT}"
        )));
    }
    let json = rest.get(..header).ok_or_else(|| {
        fault(format!(
            "is truncated: expected a header of {header} bytes, found {}: fetch it again",
            rest.len()
        ))
    })?;
    // Checks that offsets are contiguous and agree with shapes and types, without overflow.
    let metadata: Metadata = serde_json::from_slice(json)
        .map_err(|error| fault(format!("has a damaged safetensors header: {error}")))?;
    let (expected, found) = (metadata.data_len(), rest.len() - header);
    if expected != found {
        let what = if found < expected { "is truncated" } else { "has bytes after its last tensor" };
        return Err(fault(format!(
            "{what}: expected {expected} bytes of tensors, found {found}: fetch it again"
        )));
    }
    let stored = |name: String| {
        let info = metadata.info(&name).expect("the name comes from the same header");
        let element = match info.dtype {
            Dtype::F32 => Element::F32,
            Dtype::F16 => Element::F16,
            Dtype::BF16 => Element::BF16,
            Dtype::F64 => Element::Other("F64"),
            Dtype::I64 => Element::Other("I64"),
            Dtype::I32 => Element::Other("I32"),
            Dtype::I8 => Element::Other("I8"),
            Dtype::U8 => Element::Other("U8"),
            Dtype::BOOL => Element::Other("BOOL"),
            _ => Element::Other("another type"),
        };
        let start = 8 + header + info.data_offsets.0;
        (name, Stored { file, element, shape: info.shape.clone(), start, strides: None })
    };
    Ok(metadata.offset_keys().into_iter().map(stored).collect())
}
