//! What a test that failed leaves behind: its objects, events, issuer and operator logs. No values of Secrets.

use super::World;

const LOG_LINES: usize = 60;
const EVENT_COLUMNS: &str = "custom-columns=TIME:.eventTime,REASON:.reason,ABOUT:.regarding.name,NOTE:.note";

// === impl World ===

impl World {
    /// All that may tell why.
    async fn explain(&self) -> String {
        let mut parts = Vec::new();
        for args in [
            &["get", "verteiltokens", "-o", "yaml"][..],
            &["describe", "secrets"],
            &["get", "events.events.k8s.io", "-o", EVENT_COLUMNS],
        ] {
            let output = self.kubectl(args, None).await;
            parts.push(format!("--- kubectl {}\n{}{}", args.join(" "), output.stdout, output.stderr));
        }
        parts.push(format!("--- issuer\n{}", self.issuer.log()));
        for log in std::fs::read_dir(self.dir.path()).into_iter().flatten().flatten() {
            let lines = std::fs::read_to_string(log.path()).unwrap_or_default();
            let from = lines.lines().count().saturating_sub(LOG_LINES);
            let tail: Vec<&str> = lines.lines().skip(from).collect();
            parts.push(format!("--- {}\n{}", log.file_name().display(), tail.join("\n")));
        }
        parts.join("\n\n")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            print_explained(&format!("world {}", self.namespace), || self.explain());
        }
    }
}

/// Prints what `explain` says, from within a test that is failing: its own runtime is on its way out.
pub fn print_explained<F: Future<Output = String>>(what: &str, explain: impl FnOnce() -> F + Send) {
    let text = std::thread::scope(|scope| {
        let explaining = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
            Some(runtime.block_on(explain()))
        });
        explaining.join().ok().flatten()
    });
    println!("{what}:\n{}", text.unwrap_or_default());
}
