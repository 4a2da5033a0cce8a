//! Prometheus and its promtool, as Debian packages them: they judge what the operator shows.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use testbed::ports::free_port;
use testbed::{Child, eventually, plain_http};

const PATIENCE: Duration = Duration::from_secs(60);

/// A running server that scrapes every second; it ends when dropped.
pub struct Prometheus {
    _process: Child,
    address: String,
    _dir: tempfile::TempDir,
}

/// Where a program of the package is.
fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file());
    found.unwrap_or_else(|| {
        panic!("this test needs {name} in PATH: apt-get install prometheus (its service is not needed), see the README")
    })
}

/// Runs promtool in the folder of the crate with `stdin`, which has to find everything in order; what it says.
pub fn promtool(args: &[&str], stdin: &str) -> String {
    use std::io::Write as _;
    let mut child = Command::new(program("promtool"))
        .args(args)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    assert!(output.status.success(), "promtool {}:\n{said}", args.join(" "));
    said
}

// === impl Prometheus ===

impl Prometheus {
    /// Starts a server that scrapes `targets` and knows the rules of `rules`.
    pub async fn start(targets: &[&str], rules: &Path) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (config, log, data) = (dir.path().join("config.yaml"), dir.path().join("log"), dir.path().join("data"));
        let job = serde_json::json!({
            "job_name": "operator", "honor_labels": true, "scrape_interval": "1s", "scrape_timeout": "1s",
            "static_configs": [{"targets": targets, "labels": {"namespace": "operators"}}],
        });
        let written = serde_json::json!({"rule_files": [rules], "scrape_configs": [job]});
        // JSON is YAML.
        std::fs::write(&config, written.to_string()).unwrap();
        let address = format!("127.0.0.1:{}", free_port().unwrap());
        let args = [
            format!("--config.file={}", config.display()),
            format!("--storage.tsdb.path={}", data.display()),
            format!("--web.listen-address={address}"),
        ];
        let process = Child::spawn("prometheus", program("prometheus"), args, &[], &log).unwrap();
        let server = Self { _process: process, address, _dir: dir };
        eventually("prometheus to be ready", PATIENCE, async || match server.get("/-/ready").await {
            Ok((200, _)) => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
        server
    }

    async fn get(&self, path: &str) -> anyhow::Result<(u16, String)> {
        let answer = plain_http::get(&format!("http://{}{path}", self.address)).await?;
        Ok((answer.status, answer.body))
    }

    /// The series that an instant query gives; an error if it does not parse.
    pub async fn query(&self, query: &str) -> Result<Vec<Value>, String> {
        let encoded = form_urlencoded::byte_serialize(query.as_bytes()).collect::<String>();
        let (code, body) = self.get(&format!("/api/v1/query?query={encoded}")).await.map_err(|e| e.to_string())?;
        let answer: Value = serde_json::from_str(&body).map_err(|e| e.to_string())?;
        match answer["data"]["result"].as_array() {
            Some(series) if code == 200 => Ok(series.clone()),
            _ => Err(format!("{code} {body}")),
        }
    }

    /// Waits until a query gives data.
    pub async fn has_data(&self, query: &str) -> Vec<Value> {
        eventually(&format!("data for {query}"), PATIENCE, async || match self.query(query).await? {
            series if series.is_empty() => Err("it gives none".into()),
            series => Ok(series),
        })
        .await
    }

    /// The expressions of all rules that it has loaded.
    pub async fn rules(&self) -> Vec<String> {
        let (_, body) = self.get("/api/v1/rules").await.unwrap();
        let answer: Value = serde_json::from_str(&body).unwrap();
        let groups = answer["data"]["groups"].as_array().unwrap();
        let rules = groups.iter().flat_map(|group| group["rules"].as_array().unwrap());
        rules.map(|rule| rule["query"].as_str().unwrap().to_owned()).collect()
    }
}
