//! A panic whose words hold a secret.

use std::process::Command;

use testbed::world::PASSWORD;
use verteil_token_operator::args::LogFormat;
use verteil_token_operator::{logs, panics};

use super::search::Needles;

/// A process of its own, since the hook is the process's.
#[test]
fn the_words_of_a_panic_do_not_reach_the_log() {
    let child = ["--exact", "--ignored", "--nocapture", "leak::panics::a_process_in_which_all_panics"];
    let output = Command::new(std::env::current_exe().unwrap()).args(child).output().unwrap();
    let [log, said] = [output.stderr, output.stdout].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(output.status.success() && said.contains("1 passed"), "{said}{log}");
    assert_eq!(Needles::default().found_in(&log), None);
    let told = log.lines().filter(|line| line.contains("\"panicked\""));
    let told: Vec<serde_json::Value> = told.map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(told.len(), 5, "{log}");
    assert!(told.iter().all(|line| line["place"].as_str().unwrap().contains(".rs:")), "{log}");
    assert!(told.iter().any(|line| line["words"] == "words of the source" && line["thread"] == "worker"), "{log}");
}

#[test]
#[ignore = "panics in the test above"]
#[expect(clippy::string_slice, reason = "one way to panic")]
fn a_process_in_which_all_panics() {
    logs::init("trace", LogFormat::Json).unwrap();
    panics::log_panics();
    let odd = format!("{PASSWORD}é");
    let not_a_number = odd.parse::<u8>().map_err(|error| format!("{odd}: {error}"));
    let ways: [Box<dyn FnOnce() + Send>; 5] = [
        Box::new(|| panic!("words of the source")),
        Box::new(|| panic!("{PASSWORD}{}", std::process::id())),
        Box::new(move || drop(odd[..=PASSWORD.len()].to_owned())),
        Box::new(move || assert_eq!(not_a_number.unwrap(), 0)),
        Box::new(|| std::panic::panic_any(PASSWORD.to_owned())),
    ];
    for way in ways {
        let thread = std::thread::Builder::new().name("worker".into()).spawn(way).unwrap();
        thread.join().unwrap_err();
    }
}
