//! A model's chat template, rendered as Hugging Face's `apply_chat_template` does.
//!
//! Templates are written for Python's Jinja2; minijinja is close, and `python` holds what it is
//! not: how Python prints values and JSON. The environment is Hugging Face's: `trim_blocks`,
//! `lstrip_blocks`, loop controls, `raise_exception`, `strftime_now`, their own `tojson`.

mod content;
mod environment;
mod python;

use crate::Error;
use environment::Raised;
use minijinja::{Environment, Value, context};
use plumb_gguf::Gguf;
use serde_json::{Map, Value as Json};

const CHAT: &str = "chat";
const TOOLS: &str = "tool_use";

/// A compiled chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    /// Texts of the start and end token, which templates print.
    bos: String,
    eos: String,
    takes_strings: bool,
}

impl ChatTemplate {
    /// The template of a model file; `None` where it has none, as base models do.
    ///
    /// # Errors
    /// [`Error::TemplateSyntax`] if it does not parse.
    pub fn from_gguf(gguf: &Gguf) -> Result<Option<Self>, Error> {
        let Some(source) = gguf.get::<&str>("tokenizer.chat_template")? else { return Ok(None) };
        let tools = gguf.get::<&str>("tokenizer.chat_template.tool_use")?;
        let bos = token_text(gguf, "tokenizer.ggml.bos_token_id")?;
        let eos = token_text(gguf, "tokenizer.ggml.eos_token_id")?;
        Self::new(source, tools, bos, eos).map(Some)
    }

    /// A template from its source; `tools` is a second one for requests with tools.
    ///
    /// # Errors
    /// [`Error::TemplateSyntax`] if one does not parse.
    pub fn new(source: &str, tools: Option<&str>, bos: String, eos: String) -> Result<Self, Error> {
        let mut environment = environment::new();
        let mut add = |name, source| {
            environment
                .add_template_owned(name, environment::adapt(source))
                .map_err(|error| Error::TemplateSyntax(error.to_string()))
        };
        add(CHAT, source)?;
        if let Some(source) = tools {
            add(TOOLS, source)?;
        }
        let mut template = Self { environment, bos, eos, takes_strings: true };
        template.takes_strings = content::takes_strings(&template);
        Ok(template)
    }

    /// The prompt for a conversation. `messages` are objects as in OpenAI's API; a content given as
    /// text parts is joined to one string (parts apart by a line break) unless the template wants
    /// parts. `kwargs` are further variables, such as `enable_thinking`.
    ///
    /// # Errors
    /// [`Error::Refused`] with the template's own words if it raises an exception,
    /// [`Error::Template`] if rendering fails otherwise.
    pub fn render(
        &self,
        messages: &[Json],
        tools: Option<&Json>,
        add_generation_prompt: bool,
        kwargs: Option<&Map<String, Json>>,
    ) -> Result<String, Error> {
        let messages: Vec<Json> =
            messages.iter().map(|message| content::adapt(message, self.takes_strings)).collect();
        self.render_as_is(&messages, tools, add_generation_prompt, kwargs)
    }

    /// Whether the template looks at a variable of this name.
    pub fn knows(&self, variable: &str) -> bool {
        let template = self.environment.get_template(CHAT);
        template.is_ok_and(|template| template.undeclared_variables(false).contains(variable))
    }

    fn render_as_is(
        &self,
        messages: &[Json],
        tools: Option<&Json>,
        add_generation_prompt: bool,
        kwargs: Option<&Map<String, Json>>,
    ) -> Result<String, Error> {
        let given = context! {
            messages => messages,
            tools => tools.map_or(Value::from(()), Value::from_serialize),
            documents => Value::from(()),
            bos_token => self.bos,
            eos_token => self.eos,
            add_generation_prompt => add_generation_prompt,
        };
        let variables = match kwargs {
            Some(kwargs) => context! { ..given, ..Value::from_serialize(kwargs) },
            None => given,
        };
        let with_tools = tools.and(self.environment.get_template(TOOLS).ok());
        let template = match with_tools {
            Some(template) => Ok(template),
            None => self.environment.get_template(CHAT),
        };
        template.and_then(|template| template.render(variables)).map_err(|error| failure(&error))
    }
}

/// The template's own words if it raised an exception, else what went wrong.
fn failure(error: &minijinja::Error) -> Error {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        if let Some(Raised(message)) = error.downcast_ref() {
            return Error::Refused(message.clone());
        }
        cause = error.source();
    }
    Error::Template(error.to_string())
}

fn token_text(gguf: &Gguf, key: &str) -> Result<String, Error> {
    let Some(id) = gguf.get::<usize>(key)? else { return Ok(String::new()) };
    let text = gguf.array("tokenizer.ggml.tokens")?.strings().nth(id).unwrap_or_default();
    Ok(String::from_utf8_lossy(text).into_owned())
}
