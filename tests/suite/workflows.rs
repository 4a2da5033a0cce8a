//! The workflows of the hosted CI cannot run here. What can go wrong in them without being seen is looked at all the same.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Every workflow: its name, its text, and what it says.
fn workflows() -> Vec<(String, String, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(".github/workflows");
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let read = |path: std::path::PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        let said = serde_saphyr::from_str(&text).unwrap();
        (path.file_name().unwrap().to_string_lossy().into_owned(), text, said)
    };
    files.map(read).collect()
}

fn jobs(workflow: &Value) -> impl Iterator<Item = (&String, &Value)> {
    workflow["jobs"].as_object().unwrap().iter()
}

fn steps(job: &Value) -> impl Iterator<Item = &Value> {
    job["steps"].as_array().into_iter().flatten()
}

/// The permissions that let a job write, in order.
fn writes(permissions: &Value) -> Vec<&str> {
    let each = permissions.as_object().expect("permissions by name").iter();
    each.filter(|(_, level)| *level != "read").map(|(name, _)| name.as_str()).collect()
}

#[test]
fn a_job_may_write_only_what_it_is_there_for() {
    let mut seen = Vec::new();
    for (file, text, workflow) in workflows() {
        assert!(writes(&workflow["permissions"]).is_empty(), "{file}");
        assert!(!text.contains("pull_request_target"), "{file}: it runs a stranger's code with this project's rights");
        for (name, job) in jobs(&workflow) {
            let allowed = if job["permissions"].is_object() { writes(&job["permissions"]) } else { Vec::new() };
            if !allowed.is_empty() {
                seen.push(format!("{file} {name}: {}", allowed.join(" ")));
            }
        }
    }
    seen.sort();
    let signed = "attestations id-token packages";
    let expected = [
        format!("release.yaml chart: {signed}"),
        format!("release.yaml image: {signed}"),
        "release.yaml publish: contents".to_owned(),
    ];
    assert_eq!(seen, expected);
}

#[test]
fn every_action_has_a_release_and_every_job_an_end() {
    for (file, text, workflow) in workflows() {
        for (name, job) in jobs(&workflow) {
            assert!(job["timeout-minutes"].is_u64() || job["uses"].is_string(), "{file} {name}");
            for step in steps(job) {
                let Some(action) = step["uses"].as_str() else { continue };
                let version = action.split_once('@').unwrap_or_else(|| panic!("{file} {name}: {action}")).1;
                let release =
                    version.strip_prefix('v').is_some_and(|number| number.starts_with(|c: char| c.is_ascii_digit()));
                let commit = version.len() == 40 && version.chars().all(|c| c.is_ascii_hexdigit());
                assert!(release || commit, "{file} {name}: {action}");
                assert!(text.contains(&format!("{action} #")), "{file} {name}: {action} without a word on its pin");
                let checkout = action.starts_with("actions/checkout@");
                assert!(!checkout || step["with"]["persist-credentials"] == false, "{file} {name}: {action}");
            }
        }
    }
}

#[test]
fn the_scripts_are_scripts_and_nothing_is_pasted_into_them() {
    for (file, _, workflow) in workflows() {
        for (name, job) in jobs(&workflow) {
            for script in steps(job).filter_map(|step| step["run"].as_str()) {
                assert!(
                    !script.contains("${{"),
                    "{file} {name}: write it into env, or a value becomes a command: {script}"
                );
                let checked = Command::new("bash").args(["-n", "-c", script]).output().unwrap();
                assert!(checked.status.success(), "{file} {name}: {}", String::from_utf8_lossy(&checked.stderr));
                let lines = script.lines().count();
                assert!(lines == 1 || script.starts_with("set -euo pipefail\n"), "{file} {name}: {script}");
            }
        }
    }
}

#[test]
fn who_is_not_root_has_what_ci_run_would_install() {
    let mut runs = 0;
    for (file, _, workflow) in workflows() {
        for (name, job) in jobs(&workflow) {
            let scripts: Vec<&str> = steps(job).filter_map(|step| step["run"].as_str()).collect();
            for (command, packages) in [
                (".ci/run", &["make", "musl-tools", "prometheus"][..]),
                ("cargo image", &["make", "musl-tools"]),
                ("--test node", &["make", "musl-tools"]),
            ] {
                let Some(at) = scripts.iter().position(|script| script.contains(command)) else { continue };
                runs += 1;
                let before = scripts[..at].concat();
                for package in packages {
                    let installed = before.lines().any(|line| {
                        line.starts_with("sudo apt-get install") && line.split(' ').any(|word| word == *package)
                    });
                    assert!(installed, "{file} {name}: {command} without {package}");
                }
            }
        }
    }
    assert_eq!(runs, 3);
}

#[test]
fn the_release_takes_the_artifacts_that_it_has_made_and_no_others() {
    let (_, _, workflow) = workflows().into_iter().find(|(file, ..)| file == "release.yaml").unwrap();
    let all = || jobs(&workflow).flat_map(|(_, job)| steps(job));
    let of = |action: &'static str| {
        all().filter(move |step| step["uses"].as_str().is_some_and(|uses| uses.starts_with(&format!("{action}@"))))
    };
    let made: Vec<&str> = of("actions/upload-artifact").map(|step| step["with"]["name"].as_str().unwrap()).collect();
    let taken: Vec<&str> =
        of("actions/download-artifact").map(|step| step["with"]["pattern"].as_str().unwrap()).collect();
    assert_eq!(taken, [format!("{{{}}}", made.join(","))]);
    // It would make one more, with a name of its own.
    assert!(of("docker/build-push-action").all(|step| step["env"]["DOCKER_BUILD_RECORD_UPLOAD"] == "false"));
    assert_eq!(of("docker/build-push-action").count(), 1);
}

#[test]
fn the_release_speaks_of_things_that_are_here() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (_, text, _) = workflows().into_iter().find(|(file, ..)| file == "release.yaml").unwrap();
    for path in [
        "charts/verteil-token-operator/values.yaml",
        "crds/verteiltokens.verteil.dev.yaml",
        ".github/workflows/ci.yaml",
    ] {
        assert!(text.contains(path) && root.join(path).is_file(), "{path}");
    }
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    // As the job "version" looks for them.
    assert!(read("Cargo.toml").contains(&format!("\nversion = \"{version}\"\n")));
    let chart = read("charts/verteil-token-operator/Chart.yaml");
    assert!(chart.contains(&format!("\nversion: {version}\nappVersion: {version}\n")), "{chart}");
}
