//! What can be wrong with a model's vocabulary or template.

/// Why text cannot be handled as the model file says.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A key is missing or of another type.
    #[error(transparent)]
    Gguf(#[from] plumb_gguf::Error),
    /// `tokenizer.ggml.model` is neither `gpt2` nor `llama`.
    #[error("tokenizer `{0}` is not supported (`gpt2` and `llama` are)")]
    Model(String),
    /// `tokenizer.ggml.pre` is one that we do not know.
    #[error("pre-tokenizer `{0}` is not supported: its tokens would be wrong")]
    PreTokenizer(String),
    /// The vocabulary contradicts itself.
    #[error("damaged vocabulary: {0}")]
    Vocabulary(String),
    /// The chat template does not parse.
    #[error("the model's chat template cannot be read: {0}")]
    TemplateSyntax(String),
    /// The template called `raise_exception`: the messages are not what the model takes.
    #[error("the model's chat template refuses these messages: {0}")]
    Refused(String),
    /// Rendering failed for another reason, such as a field that a message lacks.
    #[error("the model's chat template failed on these messages: {0}")]
    Template(String),
}
