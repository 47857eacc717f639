//! What can be wrong with a checkpoint: which file, which tensor or key, expected, found, and the mend.

use std::fmt::Write as _;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    /// The folder itself, or a file it must have.
    #[error("model `{model}`: {problem}")]
    Folder { model: String, problem: String },
    #[error("{file}: not valid JSON for this file: {source}")]
    Json { file: String, source: serde_json::Error },
    /// Settings of a JSON file that are missing, impossible or contradict each other.
    #[error("{file}: {}", lines(.problems))]
    Settings { file: String, problems: Vec<String> },
    /// A file that is damaged, truncated or of another format.
    #[error("{file}: {problem}")]
    Format { file: String, problem: String },
    /// Tensors that contradict the configuration; all of a checkpoint at once.
    #[error("{file}: {}{}", lines(.problems), .mend.as_deref().unwrap_or(""))]
    Tensors { file: String, problems: Vec<TensorProblem>, mend: Option<String> },
    #[error(
        "{file}: tensor `{tensor}`: element {index} is {value}, expected finite values; the file is damaged or \
         its training diverged: fetch it again"
    )]
    NotFinite { file: String, tensor: String, index: usize, value: f32 },
    #[error("tensor `{0}` is not part of this checkpoint's configuration")]
    NoSuchTensor(String),
    /// A data.pkl that asks for more than a state dict needs. Nothing of it was run.
    #[error("{file}: data.pkl, byte {offset}: {problem}")]
    Pickle { file: String, offset: usize, problem: String },
    #[error(
        "prompt `{prompt}` is {tokens} tokens long, this checkpoint reads at most {context} (start and end token included): shorten it"
    )]
    PromptTooLong { prompt: String, tokens: usize, context: usize },
    #[error("prompt `{prompt}`: {problem}")]
    Prompt { prompt: String, problem: String },
}

/// One tensor that is not as the configuration says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TensorProblem {
    #[error("tensor `{name}`: missing, expected shape {expected:?}")]
    Missing { name: String, expected: Vec<usize> },
    #[error("tensor `{name}`: expected shape {expected:?}{because}, file has {found:?}")]
    Shape { name: String, expected: Vec<usize>, found: Vec<usize>, because: String },
    #[error("tensor `{name}`: expected F32, F16 or BF16, file has {found}")]
    Type { name: String, found: String },
    #[error("tensor `{name}` of shape {found:?} is not part of this configuration")]
    Extra { name: String, found: Vec<usize> },
    #[error("tensor `{name}`: {problem}")]
    Place { name: String, problem: String },
}

/// How many problems a message lists before it only counts.
const LISTED: usize = 12;

fn lines<T: std::fmt::Display>(problems: &[T]) -> String {
    if let [one] = problems {
        return one.to_string();
    }
    let mut out = format!("{} problems:", problems.len());
    for problem in problems.iter().take(LISTED) {
        let _ = write!(out, "\n  {problem}");
    }
    if problems.len() > LISTED {
        let _ = write!(out, "\n  … and {} more", problems.len() - LISTED);
    }
    out
}

/// A name from a file, cut so that a hostile one cannot flood a log.
pub(crate) fn shown(name: &str) -> String {
    const MOST: usize = 120;
    match name.char_indices().nth(MOST) {
        None => name.escape_debug().to_string(),
        Some((end, _)) => format!("{}…", name[..end].escape_debug()),
    }
}
