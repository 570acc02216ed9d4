//! Templates render as Jinja2 renders them in Hugging Face's environment. Fixtures: `make oracle`.

mod common;

use common::fixture;
use plumb_text::{ChatTemplate, Error};
use serde_json::{Value, json};

fn template(source: &str) -> ChatTemplate {
    ChatTemplate::new(source, None, "<s>".into(), "</s>".into()).unwrap()
}

#[test]
fn every_rendering_is_jinjas() {
    let fixture: Value = serde_json::from_str(&fixture("templates.json")).unwrap();
    for case in fixture["cases"].as_array().unwrap() {
        let name = case["template"].as_str().unwrap();
        let chat = &fixture["chats"][case["chat"].as_u64().unwrap() as usize];
        let tools = (case["tools"] == true).then_some(&fixture["tools"]);
        let rendered = template(fixture["templates"][name].as_str().unwrap()).render(
            chat.as_array().unwrap(),
            tools,
            case["prompt"] == true,
            case["kwargs"].as_object(),
        );
        let label = format!("{name}, chat {}, tools {}", case["chat"], case["tools"]);
        match rendered {
            // Where Python breaks off with an error of its own, minijinja may be more lenient.
            _ if case["failed"] == true => {}
            Ok(text) => assert_eq!(Some(text.as_str()), case["text"].as_str(), "{label}"),
            Err(Error::Refused(words)) => {
                assert_eq!(Some(words.as_str()), case["refused"].as_str(), "{label}");
            }
            Err(error) => panic!("{label}: {error}"),
        }
    }
}

#[test]
fn a_refusal_reaches_the_user_in_the_templates_words() {
    let refusal = template("{{ raise_exception('no tools, please') }}")
        .render(&[json!({"role": "user", "content": "x"})], None, true, None)
        .unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "the model's chat template refuses these messages: no tools, please"
    );
}

#[test]
fn parts_and_strings_become_what_the_template_takes() {
    let parts = [json!({"role": "user", "content": [
        {"type": "text", "text": "one"},
        {"type": "text", "text": "two"},
    ]})];
    let string = [json!({"role": "user", "content": "one"})];
    let plain = template("{% for m in messages %}{{ '[' + m.content + ']' }}{% endfor %}");
    assert_eq!(plain.render(&parts, None, false, None).unwrap(), "[one\ntwo]");
    let parts_only = template(
        "{% for m in messages %}{% for p in m.content %}({{ p.text }}){% endfor %}{% endfor %}",
    );
    assert_eq!(parts_only.render(&parts, None, false, None).unwrap(), "(one)(two)");
    assert_eq!(parts_only.render(&string, None, false, None).unwrap(), "(one)");
}

#[test]
fn a_template_that_runs_away_is_stopped() {
    let endless =
        template("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}");
    assert!(matches!(endless.render(&[], None, false, None), Err(Error::Template(_))));
}

#[test]
fn a_broken_template_is_named_so() {
    let broken = ChatTemplate::new("{% if %}", None, String::new(), String::new());
    assert!(matches!(broken, Err(Error::TemplateSyntax(_))));
}
