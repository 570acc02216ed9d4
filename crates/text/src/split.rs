//! Pre-tokenizers: how a text falls into words before bytes are joined (`tokenizer.ggml.pre`).
//!
//! A pre-tokenizer is a list of patterns. Each splits what the ones before it left into matches and
//! the gaps between them. Original patterns end in `\s+(?!\S)|\s+`: a run of white space leaves its
//! last character to the word that follows. That look-ahead is the only one that we need, so it is
//! done by hand ([`Step::end`]) and the rest by the `regex` crate, whose time is
//! linear in the text whatever the text is.
//!
//! Which name means which patterns follows llama.cpp's `llama-vocab.cpp`; the patterns are those of
//! the models' own `tokenizer.json` files.

use crate::Error;
use regex::Regex;

/// A compiled pre-tokenizer.
#[derive(Debug)]
pub(crate) struct Splitter {
    steps: Vec<Step>,
    rules: Rules,
}

#[derive(Debug)]
struct Step {
    pattern: Regex,
    /// Whether a run of white space that ends in this character came from a last alternative of
    /// `\s+`, written in place of `\s+(?!\S)|\s+`.
    yields: fn(char) -> bool,
}

/// What a pre-tokenizer's name implies besides its patterns.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rules {
    /// A word that is a token is taken whole, whatever the merges say.
    pub whole_words: bool,
    /// The start token is added where the file does not say whether to.
    pub add_bos: bool,
}

macro_rules! contraction {
    () => {
        r"'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]"
    };
}

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+";
const DIGIT: &str = r"\p{N}";
const LLAMA3: &str = concat!(
    contraction!(),
    r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+"
);
const QWEN2: &str = concat!(
    contraction!(),
    r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+"
);
const QWEN35: &str = concat!(
    contraction!(),
    r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+"
);
const SEED_CODER: &str = concat!(
    contraction!(),
    r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+"
);
const BAILING: &str = concat!(
    r"'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])",
    r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+"
);
macro_rules! cased_words {
    ($suffix:expr) => {
        concat!(
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
            $suffix,
            r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
            $suffix,
        )
    };
}
const TEKKEN: &str = concat!(cased_words!(""), r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+");
const GPT4O: &str = concat!(
    cased_words!(concat!("(?:", contraction!(), ")?")),
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+"
);
const DEEPSEEK3: &str = concat!(
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"##,
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+"
);
const BLOOM: &str = r" ?[^(\s|.,!?…。，、।۔،)]+";

/// The patterns and rules of a name.
fn known(name: &str) -> Option<(&'static [&'static str], Rules)> {
    const PLAIN: Rules = Rules { whole_words: false, add_bos: false };
    const WHOLE: Rules = Rules { whole_words: true, add_bos: false };
    const WHOLE_BOS: Rules = Rules { whole_words: true, add_bos: true };
    Some(match name {
        "default" => {
            (&[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"] as &[_], PLAIN)
        }
        "gpt-2" | "phi-2" | "gigachat" | "a.x-4.0" | "mellum" | "mpt" | "olmo" | "jais"
        | "trillion" | "granite-docling" | "exaone4" => (&[GPT2], PLAIN),
        "smollm" | "starcoder" | "refact" | "command-r" | "codeshell" | "exaone" | "minerva-7b"
        | "mellum2" => (&[DIGIT, GPT2], PLAIN),
        "llama3" | "llama-v3" | "llama-bpe" | "falcon3" | "falcon-h1" | "pixtral" | "midm-2.0"
        | "lfm2" => (&[LLAMA3], WHOLE_BOS),
        "dbrx" | "smaug-bpe" | "chatglm-bpe" => (&[LLAMA3], PLAIN),
        "glm4" | "glm5" => (&[LLAMA3], WHOLE),
        "qwen2" | "deepseek-r1-qwen" | "kormo" | "f2llmv2" | "megrez" | "stablelm2" | "hunyuan"
        | "solar-open" | "grok-2" => (&[QWEN2], PLAIN),
        "qwen35" => (&[QWEN35], PLAIN),
        "tekken" => (&[TEKKEN], WHOLE_BOS),
        "gpt-4o" | "llama4" | "kanana2" | "talkie" | "minimax-m2" => (&[GPT4O], PLAIN),
        "deepseek-coder" => {
            (&[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+", DIGIT], PLAIN)
        }
        "deepseek-v3" | "hunyuan-dense" | "joyai-llm" | "hy_v4" => {
            (&[r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+", DEEPSEEK3], PLAIN)
        }
        "falcon" => (&[r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]"], PLAIN),
        "bailingmoe" | "bailingmoe2" | "llada-moe" => (&[BAILING], PLAIN),
        "seed-coder" => (&[SEED_CODER], PLAIN),
        "bloom" | "poro-chat" | "gpt3-finnish" => (&[BLOOM], PLAIN),
        "viking" => (&[BLOOM, DIGIT], PLAIN),
        _ => return None,
    })
}

impl Splitter {
    /// The pre-tokenizer of a name; a file without one means `default`.
    pub fn new(name: &str) -> Result<Self, Error> {
        let unknown = || Error::PreTokenizer(name.to_owned());
        let (patterns, rules) =
            known(if name.is_empty() { "default" } else { name }).ok_or_else(unknown)?;
        let step = |&pattern: &&str| {
            Regex::new(pattern).map(|regex| Step { pattern: regex, yields: yields(pattern) })
        };
        let steps = patterns.iter().map(step).collect::<Result<_, _>>().map_err(|_| unknown())?;
        Ok(Self { steps, rules })
    }

    pub fn rules(&self) -> Rules {
        self.rules
    }

    /// Calls `word` with every word in order; together they are the text.
    pub fn words<'t>(&self, text: &'t str, mut word: impl FnMut(&'t str)) {
        split(&self.steps, text, &mut word);
    }
}

fn split<'t>(steps: &[Step], text: &'t str, word: &mut dyn FnMut(&'t str)) {
    match steps.split_first() {
        Some((step, rest)) => step.pieces(text, |piece| split(rest, piece, word)),
        None if text.is_empty() => {}
        None => word(text),
    }
}

impl Step {
    fn pieces<'t>(&self, text: &'t str, mut piece: impl FnMut(&'t str)) {
        let mut done = 0;
        while let Some(found) = self.pattern.find_at(text, done) {
            let end = self.end(text, found.start(), found.end());
            if found.start() > done {
                piece(&text[done..found.start()]);
            }
            piece(&text[found.start()..end]);
            done = end;
        }
        piece(&text[done..]);
    }

    /// Where a match ends once white space has yielded its last character to what follows.
    fn end(&self, text: &str, start: usize, end: usize) -> usize {
        let found = &text[start..end];
        match found.chars().next_back() {
            Some(last)
                if end < text.len()
                    && found.len() > last.len_utf8()
                    && found.starts_with(char::is_whitespace)
                    && (self.yields)(last) =>
            {
                end - last.len_utf8()
            }
            _ => end,
        }
    }
}

/// Only GPT-2's pattern leaves line breaks to its last alternative.
fn yields(pattern: &str) -> fn(char) -> bool {
    match pattern {
        GPT2 => char::is_whitespace,
        LLAMA3 | QWEN2 | QWEN35 | SEED_CODER | BAILING | TEKKEN | GPT4O | DEEPSEEK3 => {
            |last| last.is_whitespace() && !matches!(last, '\r' | '\n')
        }
        _ => |_| false,
    }
}
