//! `plumb load` against the stack, as a user would.

use std::process::{Command, Output};

use plumb_tests::models;
use plumb_tests::process::plumb;
use plumb_tests::stack::Stack;
use serde_json::Value;

fn load(arguments: &[&str]) -> Output {
    Command::new(plumb()).arg("load").args(arguments).output().expect("plumb runs")
}

fn report(arguments: &[&str]) -> Value {
    let output = load(arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("standard output holds only the JSON")
}

#[test]
fn it_tells_what_clients_of_the_stack_felt() {
    let stack = Stack::start(&models::smollm(), "auto");
    let page = tempfile::NamedTempFile::new().expect("a file");
    let page = page.path().to_str().expect("a path");
    let small = ["--json", "--prompt", "30", "--output", "6", "--requests", "12", &stack.url];

    let all = report(
        &[
            &small[..],
            &["--clients", "3", "--slo-ttft", "1h", "--slo-tpot", "1h"],
            &["--html", page],
        ]
        .concat(),
    );
    assert_eq!((&all["requests"], &all["completed"]), (&12.into(), &12.into()), "{all}");
    assert_eq!((&all["good_share"], &all["routes"]["disaggregated"]), (&1.0.into(), &12.into()));
    assert_eq!((&all["ttft_s"]["count"], &all["total_s"]["count"]), (&12.into(), &12.into()));
    assert!(all["ttft_s"]["max"].as_f64() <= all["total_s"]["max"].as_f64(), "{all}");
    assert!(all["prompt_tokens"].as_u64() > Some(12 * 10), "{all}");
    let text = std::fs::read_to_string(page).expect("the page");
    assert_eq!(text.matches("<circle").count(), 12, "a dot a request");

    let none = report(&[&small[..], &["--rate", "50", "--slo-ttft", "0s"]].concat());
    assert_eq!((&none["completed"], &none["good_share"]), (&12.into(), &0.0.into()), "{none}");
}

#[test]
fn a_server_that_is_not_there_is_said_in_one_line() {
    for (url, said) in
        [("http://127.0.0.1:9", "is the server up?"), ("https://x", "only plain http")]
    {
        let output = load(&[url]);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{errors}");
        assert!(errors.contains(said) && errors.lines().count() == 1, "{errors}");
    }
}
