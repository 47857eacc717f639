//! What the backends read alike before their arithmetic parts: tensors by name, and prompts' token ids.

use crate::backend::BackendError;
use crate::model::ModelError;

/// Where weights come from: Hugging Face name and shape → row-major values.
pub type Source<'a> = dyn FnMut(&str, &[usize]) -> Result<Vec<f32>, ModelError> + 'a;

/// The tensor's values, as many as `shape` says.
pub fn tensor(source: &mut Source<'_>, name: &str, shape: &[usize]) -> Result<Vec<f32>, BackendError> {
    let values = source(name, shape)?;
    if values.len() != shape.iter().product::<usize>() {
        return Err(BackendError::Shape {
            what: format!("tensor `{name}`"),
            expected: format!("shape {shape:?}"),
            found: format!("{} values", values.len()),
        });
    }
    Ok(values)
}

/// The projections of one self-attention with their factors; the queries' scale hd^-0.5 is folded in.
pub fn qkv_parts(prefix: &str, width: usize, heads: usize) -> [(String, f32); 3] {
    let scale = ((width / heads) as f32).powf(-0.5);
    [("q", scale), ("k", 1.0), ("v", 1.0)].map(|(name, factor)| (format!("{prefix}.{name}_proj"), factor))
}

/// Ids up to the first position of the largest one, which is the end token by the model's rule.
pub fn until_end(ids: &[u32], context: usize, vocab: usize) -> Result<&[u32], BackendError> {
    let fault =
        |expected: String, found: String| BackendError::Shape { what: "prompt".into(), expected, found };
    if ids.is_empty() || ids.len() > context {
        return Err(fault(format!("1 to {context} token ids"), ids.len().to_string()));
    }
    if let Some(id) = ids.iter().find(|id| **id as usize >= vocab) {
        return Err(fault(format!("token ids below {vocab}"), format!("id {id}")));
    }
    let largest = ids.iter().max().expect("not empty");
    let end = ids.iter().position(|id| id == largest).expect("the maximum is among them");
    Ok(&ids[..=end])
}

/// Prompts in their order, as many at a time as have `most_rows` tokens together; one longer than that alone.
pub fn batches<'a, 'b>(mut rest: &'a [&'b [u32]], most_rows: usize) -> impl Iterator<Item = &'a [&'b [u32]]> {
    std::iter::from_fn(move || {
        let mut rows = 0;
        let fits = rest.iter().take_while(|ids| {
            rows += ids.len();
            rows <= most_rows
        });
        let (batch, later) = rest.split_at(fits.count().max(1).min(rest.len()));
        rest = later;
        (!batch.is_empty()).then_some(batch)
    })
}
