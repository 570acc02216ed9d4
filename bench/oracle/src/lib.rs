//! llama.cpp as much of it as the oracle and the bench peer need, behind safe calls.
//!
//! Knows llama.cpp's C interface. Must never know Plumb: it is what Plumb is compared with.

use anyhow::{Context as _, Result, bail, ensure};
use llama_cpp_sys_2 as sys;
use std::ffi::{CStr, CString, c_char, c_void};
use std::path::Path;
use std::ptr::NonNull;

/// A loaded model.
pub struct Model {
    raw: NonNull<sys::llama_model>,
}

/// How a context computes. KV is f16, flash attention off, CPU only: the plainest settings.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub threads: i32,
    /// Positions a sequence, and how many sequences.
    pub context: u32,
    pub sequences: u32,
    /// Tokens a call.
    pub batch: u32,
}

/// A context of a model.
pub struct Session<'m> {
    raw: NonNull<sys::llama_context>,
    batch: sys::llama_batch,
    capacity: usize,
    vocab: usize,
    _model: &'m Model,
}

/// One token of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Input {
    pub token: u32,
    pub position: usize,
    pub sequence: usize,
    pub logits: bool,
}

/// llama.cpp says much; only its errors are of use here.
extern "C" fn log(level: sys::ggml_log_level, text: *const c_char, _: *mut c_void) {
    if level == sys::GGML_LOG_LEVEL_ERROR {
        // SAFETY: llama.cpp passes a C string that lives for the call.
        eprint!("{}", unsafe { CStr::from_ptr(text) }.to_string_lossy());
    }
}

impl Model {
    /// Loads a file; `vocab_only` leaves the weights.
    pub fn load(path: &Path, vocab_only: bool) -> Result<Self> {
        let name = c_string(path)?;
        // SAFETY: the callback lives as long as the program; parameters
        // are llama.cpp's own defaults; the path is a C string that outlives the call.
        let raw = unsafe {
            sys::llama_log_set(Some(log), std::ptr::null_mut());
            sys::llama_backend_init();
            let mut params = sys::llama_model_default_params();
            params.vocab_only = vocab_only;
            params.n_gpu_layers = 0;
            sys::llama_model_load_from_file(name.as_ptr(), params)
        };
        let raw = NonNull::new(raw).with_context(|| format!("cannot load {}", path.display()))?;
        Ok(Self { raw })
    }

    fn vocab(&self) -> *const sys::llama_vocab {
        // SAFETY: the model is alive.
        unsafe { sys::llama_model_get_vocab(self.raw.as_ptr()) }
    }

    /// How many tokens there are.
    pub fn vocab_len(&self) -> usize {
        // SAFETY: the vocabulary lives as long as the model.
        unsafe { sys::llama_vocab_n_tokens(self.vocab()) as usize }
    }

    /// A text's tokens.
    pub fn tokenize(&self, text: &str, add: bool, parse: bool) -> Result<Vec<u32>> {
        let mut tokens = vec![0; text.len() + 8];
        // SAFETY: pointers and lengths belong together.
        let count = unsafe {
            sys::llama_tokenize(
                self.vocab(),
                text.as_ptr().cast(),
                text.len() as i32,
                tokens.as_mut_ptr(),
                tokens.len() as i32,
                add,
                parse,
            )
        };
        ensure!(count >= 0, "a text of {} bytes has over {} tokens", text.len(), tokens.len());
        Ok(tokens[..count as usize].iter().map(|&id| id as u32).collect())
    }

    /// What a token decodes to; control tokens by name if `special`.
    pub fn piece(&self, token: u32, special: bool) -> Result<Vec<u8>> {
        let mut piece = vec![0u8; 1024];
        // SAFETY: pointer and length belong together.
        let len = unsafe {
            sys::llama_token_to_piece(
                self.vocab(),
                token as i32,
                piece.as_mut_ptr().cast(),
                piece.len() as i32,
                0,
                special,
            )
        };
        piece.truncate(usize::try_from(len).context("a piece of over 1 KiB")?);
        Ok(piece)
    }

    /// Whether a token ends a generation.
    pub fn is_end(&self, token: u32) -> bool {
        // SAFETY: the vocabulary lives as long as the model.
        unsafe { sys::llama_vocab_is_eog(self.vocab(), token as i32) }
    }

    /// A conversation rendered by llama.cpp's own renderer for the model's template.
    pub fn chat(&self, messages: &[(String, String)], assistant: bool) -> Result<String> {
        let texts: Vec<(CString, CString)> = messages
            .iter()
            .map(|(role, content)| Ok((CString::new(&**role)?, CString::new(&**content)?)))
            .collect::<Result<_>>()?;
        let chat: Vec<sys::llama_chat_message> = texts
            .iter()
            .map(|(role, content)| sys::llama_chat_message {
                role: role.as_ptr(),
                content: content.as_ptr(),
            })
            .collect();
        let mut out = vec![0u8; 1 << 16];
        // SAFETY: the strings outlive the call; lengths belong to their pointers.
        let len = unsafe {
            let template = sys::llama_model_chat_template(self.raw.as_ptr(), std::ptr::null());
            ensure!(!template.is_null(), "the model has no chat template");
            sys::llama_chat_apply_template(
                template,
                chat.as_ptr(),
                chat.len(),
                assistant,
                out.as_mut_ptr().cast(),
                out.len() as i32,
            )
        };
        out.truncate(usize::try_from(len).context("llama.cpp does not know the template")?);
        Ok(String::from_utf8(out)?)
    }

    /// A context to compute in.
    pub fn session(&self, settings: Settings) -> Result<Session<'_>> {
        // SAFETY: the model is alive and outlives the session by its lifetime.
        let (raw, batch) = unsafe {
            let mut params = sys::llama_context_default_params();
            params.n_ctx = settings.context * settings.sequences;
            params.n_batch = settings.batch;
            params.n_ubatch = settings.batch.min(512);
            params.n_seq_max = settings.sequences;
            params.n_threads = settings.threads;
            params.n_threads_batch = settings.threads;
            params.flash_attn_type = sys::LLAMA_FLASH_ATTN_TYPE_DISABLED;
            params.type_k = sys::GGML_TYPE_F16;
            params.type_v = sys::GGML_TYPE_F16;
            params.no_perf = true;
            (
                sys::llama_init_from_model(self.raw.as_ptr(), params),
                sys::llama_batch_init(settings.batch as i32, 0, 1),
            )
        };
        let raw = NonNull::new(raw).context("cannot make a context")?;
        let capacity = settings.batch as usize;
        Ok(Session { raw, batch, capacity, vocab: self.vocab_len(), _model: self })
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        // SAFETY: sessions borrow the model, so none is left.
        unsafe { sys::llama_model_free(self.raw.as_ptr()) }
    }
}

impl Session<'_> {
    /// Computes a batch.
    pub fn decode(&mut self, inputs: &[Input]) -> Result<()> {
        ensure!(inputs.len() <= self.capacity, "{} tokens in one batch", inputs.len());
        self.batch.n_tokens = inputs.len() as i32;
        for (i, input) in inputs.iter().enumerate() {
            // SAFETY: every array of the batch has `capacity` entries, checked above, and each
            // entry of `seq_id` has room for the one sequence that the batch was made for.
            unsafe {
                *self.batch.token.add(i) = input.token as i32;
                *self.batch.pos.add(i) = input.position as i32;
                *self.batch.n_seq_id.add(i) = 1;
                **self.batch.seq_id.add(i) = input.sequence as i32;
                *self.batch.logits.add(i) = input.logits.into();
            }
        }
        // SAFETY: context and batch are alive, the batch is filled.
        match unsafe { sys::llama_decode(self.raw.as_ptr(), self.batch) } {
            0 => Ok(()),
            code => bail!("llama_decode answered {code}"),
        }
    }

    /// The logits of input `i` of the last batch, which must have asked for them.
    pub fn logits(&mut self, i: usize) -> Result<&[f32]> {
        // SAFETY: llama.cpp answers null for an index without logits, else a row of the vocabulary
        // that stays until the next batch, which needs the session mutably.
        unsafe {
            let row = sys::llama_get_logits_ith(self.raw.as_ptr(), i as i32);
            ensure!(!row.is_null(), "no logits for input {i}");
            Ok(std::slice::from_raw_parts(row, self.vocab))
        }
    }

    /// Forgets every sequence.
    pub fn clear(&mut self) {
        // SAFETY: the context is alive.
        unsafe { sys::llama_memory_clear(sys::llama_get_memory(self.raw.as_ptr()), true) }
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        // SAFETY: both were made by llama.cpp and are freed once.
        unsafe {
            sys::llama_batch_free(self.batch);
            sys::llama_free(self.raw.as_ptr());
        }
    }
}

/// Writes a model with its matrices in another type, from whatever type they have.
pub fn requantize(from: &Path, to: &Path, ty: &str, pure: bool) -> Result<()> {
    let ftype = match ty.to_ascii_uppercase().as_str() {
        "F32" => sys::LLAMA_FTYPE_ALL_F32,
        "F16" => sys::LLAMA_FTYPE_MOSTLY_F16,
        "BF16" => sys::LLAMA_FTYPE_MOSTLY_BF16,
        "Q8_0" => sys::LLAMA_FTYPE_MOSTLY_Q8_0,
        "Q4_0" => sys::LLAMA_FTYPE_MOSTLY_Q4_0,
        "Q4_1" => sys::LLAMA_FTYPE_MOSTLY_Q4_1,
        "Q5_0" => sys::LLAMA_FTYPE_MOSTLY_Q5_0,
        "Q5_1" => sys::LLAMA_FTYPE_MOSTLY_Q5_1,
        "Q4_K" => sys::LLAMA_FTYPE_MOSTLY_Q4_K_M,
        "Q5_K" => sys::LLAMA_FTYPE_MOSTLY_Q5_K_M,
        "Q6_K" => sys::LLAMA_FTYPE_MOSTLY_Q6_K,
        other => {
            bail!("type {other} is not one of F32 F16 BF16 Q8_0 Q4_0 Q4_1 Q5_0 Q5_1 Q4_K Q5_K Q6_K")
        }
    };
    let (from, to) = (c_string(from)?, c_string(to)?);
    // SAFETY: the strings outlive the call; parameters are llama.cpp's own defaults.
    let code = unsafe {
        let mut params = sys::llama_model_quantize_default_params();
        params.ftype = ftype;
        params.allow_requantize = true;
        params.pure_ = pure;
        sys::llama_model_quantize(from.as_ptr(), to.as_ptr(), &params)
    };
    ensure!(code == 0, "llama_model_quantize answered {code}");
    Ok(())
}

fn c_string(path: &Path) -> Result<CString> {
    Ok(CString::new(path.as_os_str().as_encoded_bytes())?)
}
