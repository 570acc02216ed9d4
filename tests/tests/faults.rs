//! A process dies in the middle of load: the others stay up, what can be served is, the rest gets
//! an error, and the restarted one is used again. SIGTERM drains.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use plumb_tests::http::{Answer, Open, post, try_post};
use plumb_tests::models;
use plumb_tests::process::wait_for;
use plumb_tests::stack::{Instance, Stack};
use rustix::process::Signal;
use serde_json::{Value, json};

fn prompt(seed: usize) -> Value {
    let ids: Vec<usize> = (0..80).map(|i| 300 + (seed * 7919 + i * 31) % 40_000).collect();
    json!({"prompt": ids, "max_tokens": 8, "temperature": 0, "stream": seed.is_multiple_of(2),
           "ignore_eos": true})
}

/// Whole and right, or plainly an error: never cut short in silence.
fn is_right(answer: &Answer, expected: &str) -> bool {
    if answer.status != 200 {
        assert!(answer.json()["error"]["message"].is_string(), "{}", answer.body);
        return false;
    }
    if answer.body.starts_with("data:") && !answer.body.contains("data: [DONE]") {
        assert!(answer.body.contains("\"error\""), "a silent end: {:?}", answer.body);
        return false;
    }
    if answer.body.contains("\"error\"") {
        return false;
    }
    assert_eq!(answer.text(), expected, "a wrong answer");
    true
}

struct Load {
    expected: Vec<String>,
}

impl Load {
    fn new(model: PathBuf) -> Self {
        let single = Instance::start("both", &model, &[]);
        let url = format!("{}/v1/completions", single.url);
        Self { expected: (0..8).map(|seed| post(&url, &prompt(seed)).text()).collect() }
    }

    /// Four clients ask until `fault` returns; gives the numbers of right answers and of errors.
    fn during(&self, stack_url: &str, fault: impl FnOnce(&AtomicUsize)) -> (usize, usize) {
        let url = format!("{stack_url}/v1/completions");
        let (stop, right, failed) =
            (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for client in 0..4 {
                let (url, stop, right, failed) = (&url, &stop, &right, &failed);
                scope.spawn(move || {
                    for turn in 0.. {
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                        let seed = (client * 3 + turn) % 8;
                        let ok = try_post(url, &prompt(seed))
                            .is_some_and(|a| is_right(&a, &self.expected[seed]));
                        let count = if ok { right } else { failed };
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            fault(&right);
            stop.store(true, Ordering::Relaxed);
        });
        (right.into_inner(), failed.into_inner())
    }
}

fn more_right_answers(right: &AtomicUsize, how_many: usize) {
    let from = right.load(Ordering::Relaxed);
    wait_for("right answers go on", Duration::from_secs(60), || {
        (right.load(Ordering::Relaxed) >= from + how_many).then_some(())
    });
}

fn served(instance: &Instance) -> f64 {
    instance.metric(r#"plumb_prompt_tokens_total{source="computed"}"#)
        + instance.metric(r#"plumb_prompt_tokens_total{source="pulled"}"#)
        + instance.metric(r#"plumb_prompt_tokens_total{source="cached"}"#)
}

#[test]
fn killed_instances_are_survived_and_used_again() {
    let load = Load::new(models::smollm());
    let mut stack = Stack::with(&models::smollm(), 2, 2, &[], &[]);
    for role in ["prefill", "decode"] {
        let url = stack.url.clone();
        let victims = if role == "prefill" { &mut stack.prefill } else { &mut stack.decode };
        let victim = &mut victims[0];
        let (right, failed) = load.during(&url, |right| {
            more_right_answers(right, 8);
            victim.process.signal(Signal::KILL);
            victim.process.wait(Duration::from_secs(5));
            more_right_answers(right, 8);
            victim.restart();
            wait_for(&format!("the restarted {role} is used"), Duration::from_secs(60), || {
                (served(victim) > 0.0).then_some(())
            });
            more_right_answers(right, 8);
        });
        // At most what was in the victim's hands: one request of each of the four clients.
        assert!(failed <= 4, "{role}: {failed} failed beside {right} right answers");
        for other in stack.prefill.iter_mut().chain(&mut stack.decode) {
            assert!(other.process.is_running(), "{role} took {} with it", other.url);
        }
        assert!(stack.router.is_running());
    }
}

#[test]
fn without_any_instance_there_is_an_error_and_no_hang() {
    let mut stack = Stack::start(&models::smollm(), "auto");
    stack.decode[0].process.signal(Signal::KILL);
    stack.decode[0].process.wait(Duration::from_secs(5));
    stack.prefill[0].process.signal(Signal::KILL);
    stack.prefill[0].process.wait(Duration::from_secs(5));
    let answer = post(&stack.at("/v1/completions"), &prompt(0));
    assert!((500..=504).contains(&answer.status), "{}", answer.body);
    assert!(answer.json()["error"]["message"].is_string(), "{}", answer.body);
    wait_for("/health says so", Duration::from_secs(20), || {
        plumb_tests::http::get(&stack.at("/health")).filter(|a| a.status == 503)
    });
}

#[test]
fn sigterm_drains() {
    let mut stack = Stack::start(&models::smollm(), "auto");
    let long = json!({"prompt": "Once upon a time", "max_tokens": 64, "temperature": 0,
                      "stream": true, "ignore_eos": true});
    let expected = post(&stack.at("/v1/completions"), &long).text();

    let mut client = Open::post(&stack.url, "/v1/completions", &long);
    assert!(client.read_until("data: "), "the stream began");
    stack.router.signal(Signal::TERM);
    stack.decode[0].process.signal(Signal::TERM);
    // Once it drains, whoever comes now is told so, or finds nobody listening.
    wait_for("new requests are refused", Duration::from_secs(10), || {
        match try_post(&stack.at("/v1/completions"), &prompt(1)) {
            None => Some(()),
            Some(answer) => (answer.status == 503).then_some(()),
        }
    });
    let rest = client.rest();
    assert!(rest.contains("data: [DONE]"), "the stream in flight was cut: {rest:?}");
    assert!(stack.router.wait(Duration::from_secs(40)).success());
    assert!(stack.decode[0].process.wait(Duration::from_secs(40)).success());
    assert!(!expected.is_empty());
}
