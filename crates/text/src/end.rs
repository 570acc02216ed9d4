//! Which tokens end a generation.
//!
//! Files name one end token, chat models use several. llama.cpp knows them by their texts, and so
//! does everyone who serves its files: the rules here are those of its `llama-vocab.cpp`.

use crate::vocab::{Kind, Vocab};
use plumb_gguf::Gguf;
use std::collections::BTreeSet;

const ENDS: [&str; 22] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<｜end▁of▁sentence｜>",
    "[e~[",
];

/// Fill-in-the-middle tokens after which a model only repeats itself: the file's key, and the
/// texts by which one is known where the key is missing.
const FILL_IN: [(&str, &[&str]); 3] = [
    (
        "tokenizer.ggml.fim_pad_token_id",
        &["<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"],
    ),
    (
        "tokenizer.ggml.fim_rep_token_id",
        &["<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"],
    ),
    ("tokenizer.ggml.fim_sep_token_id", &["<|file_sep|>"]),
];

/// The end tokens' ids. Those known by their texts become control tokens: they steer, whatever the
/// file calls them.
pub(crate) fn ends(gguf: &Gguf, vocab: &mut Vocab, eos: Option<u32>) -> BTreeSet<u32> {
    let mut ends = BTreeSet::new();
    for (key, texts) in FILL_IN {
        ends.extend(id_of(gguf, vocab, key).or_else(|| known_by_text(vocab, texts)));
    }
    for text in ENDS {
        if let Some(id) = vocab.find_text(text) {
            vocab.set_kind(id, Kind::Control);
            ends.insert(id);
        }
    }
    ends.extend(eos);
    for key in ["tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"] {
        ends.extend(id_of(gguf, vocab, key));
    }
    without_namesakes(vocab, &mut ends);
    ends
}

/// A token id of the file's metadata, if it is in the vocabulary.
pub(crate) fn id_of(gguf: &Gguf, vocab: &Vocab, key: &str) -> Option<u32> {
    gguf.get::<u32>(key).ok()?.filter(|&id| (id as usize) < vocab.len())
}

fn known_by_text(vocab: &mut Vocab, texts: &[&str]) -> Option<u32> {
    let id = texts.iter().find_map(|text| vocab.find_text(text))?;
    vocab.set_kind(id, Kind::Control);
    Some(id)
}

/// In some vocabularies a text from the list means something else, which its company betrays.
fn without_namesakes(vocab: &mut Vocab, ends: &mut BTreeSet<u32>) {
    let has = |text: &str| vocab.find_text(text).filter(|id| ends.contains(id));
    let call = has("<|call|>").or(has("<|calls|>")).is_some();
    let end = has("<|end|>")
        .filter(|_| call && (has("<|return|>").is_some() || has("<|flush|>").is_some()));
    let strike = has("</s>").filter(|_| has("<|tool_response>").is_some());
    if let Some(id) = end {
        ends.remove(&id);
        vocab.set_kind(id, Kind::UserDefined);
    }
    if let Some(id) = strike {
        ends.remove(&id);
        vocab.set_kind(id, Kind::Normal);
    }
}
