//! The end of a process that keeps tokens in memory only: if its Deployment no longer asks for that, they are saved, so that
//! switching it off costs none.
//!
//! Tokens that may not be stored are not to be stored by a misreading. So the Deployment is heeded only if it was found at the
//! start to ask for memory in words that are understood here, and at the end to do so no more, and to hide nothing.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Container;
use tokio::task::JoinHandle;

use crate::args::{DISABLE_PERSISTENCE, parse_switch};
use crate::cluster::Cluster;
use crate::memory::Key;
use crate::store::Store;

const FLAG: &str = "--disable-token-persistence";
/// Between two tries to read the Deployment at the start: doubled from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(5 * 60);

/// What is to become of the tokens in memory at the end of this process.
pub struct Handover {
    own: Arc<Own>,
    beginning: JoinHandle<()>,
}

/// The Deployment that this process belongs to.
struct Own {
    cluster: Cluster,
    key: Key,
    /// What it asked for at the start.
    at_start: OnceLock<Keeps>,
}

/// Where the pods of a Deployment keep their tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keeps {
    /// In memory: it says so literally.
    Memory,
    /// In Secrets: nothing says otherwise.
    Secrets,
    /// It cannot be told from the Deployment.
    Unclear,
}

// === impl Handover ===

impl Handover {
    /// Begins to look at the Deployment `key`, beside all else.
    #[must_use]
    pub fn begin(cluster: Cluster, key: Key) -> Self {
        let own = Arc::new(Own { cluster, key, at_start: OnceLock::new() });
        let beginning = Arc::clone(&own);
        Self { own, beginning: tokio::spawn(async move { beginning.look_at_start().await }) }
    }

    /// Looks at it again, for `patience` at most, and makes the Secrets the place of the tokens if it asks for that now.
    pub async fn end(self, store: &Store, patience: Duration) {
        self.beginning.abort();
        if tokio::time::timeout(patience, self.own.heed(store)).await.is_err() {
            tracing::warn!("cannot see in time whether token persistence is enabled for the next process");
        }
    }
}

// === impl Own ===

impl Own {
    /// Reads the Deployment as it is at the start.
    async fn look_at_start(&self) {
        let mut pause = FIRST_PAUSE;
        let found = loop {
            match self.cluster.deployment(&self.key).await {
                Ok(deployment) => break deployment.as_ref().map_or(Keeps::Unclear, keeps),
                Err(error) => tracing::debug!(%error, "the Deployment cannot be read yet"),
            }
            tokio::time::sleep(pause).await;
            pause = pause.saturating_mul(2).min(LAST_PAUSE);
        };
        if found == Keeps::Memory {
            tracing::debug!(deployment = %self.key, "the Deployment asks for tokens in memory only");
        } else {
            tracing::warn!(
                deployment = %self.key,
                "the Deployment does not say {FLAG} or {DISABLE_PERSISTENCE}=true literally: tokens in memory are not saved at the end, whatever it says then"
            );
        }
        // Read once.
        self.at_start.set(found).ok();
    }

    async fn heed(&self, store: &Store) {
        if !store.is_in_memory() {
            return;
        }
        match self.at_start.get() {
            Some(Keeps::Memory) => {}
            // Told at the start.
            Some(Keeps::Secrets | Keeps::Unclear) => return,
            None => {
                tracing::warn!("the Deployment could not be read at the start: tokens in memory are not saved");
                return;
            }
        }
        match self.cluster.deployment(&self.key).await {
            Ok(Some(deployment)) if keeps(&deployment) == Keeps::Secrets => {
                if store.persist() {
                    tracing::info!("token persistence is enabled for the next process: saving what is in memory");
                }
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot see whether token persistence is enabled for the next process");
            }
        }
    }
}

/// What `deployment` says of its pods.
fn keeps(deployment: &Deployment) -> Keeps {
    let pod = deployment.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
    let Some(pod) = pod.filter(|pod| !pod.containers.is_empty()) else { return Keeps::Unclear };
    if deployment.metadata.deletion_timestamp.is_some() {
        return Keeps::Unclear;
    }
    let words: Vec<Keeps> = pod.containers.iter().flat_map(said).collect();
    // Which of several counts is the program's matter.
    if words.contains(&Keeps::Unclear) {
        Keeps::Unclear
    } else if words.contains(&Keeps::Memory) {
        Keeps::Memory
    } else {
        Keeps::Secrets
    }
}

/// What each word of a container's command line and environment says.
fn said(container: &Container) -> impl Iterator<Item = Keeps> {
    let words = container.args.iter().chain(&container.command).flatten().map(|word| of_word(word));
    let variables = container.env.iter().flatten().map(|variable| match (&*variable.name, variable.value.as_deref()) {
        (DISABLE_PERSISTENCE, Some(value)) => of_value(value),
        // From elsewhere.
        (DISABLE_PERSISTENCE, None) => Keeps::Unclear,
        (_, value) => value.map_or(Keeps::Secrets, names_the_switch),
    });
    let hidden = container.env_from.iter().flatten().map(|_| Keeps::Unclear);
    words.chain(variables).chain(hidden)
}

fn of_word(word: &str) -> Keeps {
    match word.strip_prefix(FLAG) {
        Some("") => Keeps::Memory,
        Some(rest) => rest.strip_prefix('=').map_or(Keeps::Unclear, of_value),
        None => names_the_switch(word),
    }
}

fn of_value(value: &str) -> Keeps {
    match parse_switch(value) {
        Ok(true) => Keeps::Memory,
        Ok(false) => Keeps::Secrets,
        Err(_) => Keeps::Unclear,
    }
}

/// A script, or a variable that becomes part of a command line: what comes of it is not known.
fn names_the_switch(text: &str) -> Keeps {
    let names = text.contains(FLAG.trim_start_matches('-')) || text.contains(DISABLE_PERSISTENCE);
    if names { Keeps::Unclear } else { Keeps::Secrets }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test")]

    use serde_json::{Value, json};

    use super::*;

    fn found(container: &Value) -> Keeps {
        let deployment = json!({"spec": {
            "selector": {}, "template": {"spec": {"containers": [{"name": "sidecar"}, container]}},
        }});
        keeps(&serde_json::from_value(deployment).unwrap())
    }

    #[test]
    fn what_a_deployment_says_literally_is_understood() {
        let env = |value: &str| json!({"name": "o", "env": [{"name": DISABLE_PERSISTENCE, "value": value}]});
        let args = |word: &str| json!({"name": "o", "args": ["run", word, "--other"]});
        for memory in [env("true"), env("1"), args(FLAG), args("--disable-token-persistence=true")] {
            assert_eq!(found(&memory), Keeps::Memory, "{memory}");
        }
        let other = json!({"name": "o", "env": [{"name": "A", "value": "b"}, {"name": "C", "valueFrom": {}}]});
        for secrets in [json!({"name": "o"}), env("false"), args("--disable-token-persistence=false"), other] {
            assert_eq!(found(&secrets), Keeps::Secrets, "{secrets}");
        }
    }

    #[test]
    fn what_may_stand_elsewhere_or_be_made_by_a_shell_is_unclear() {
        let script = format!("exec verteil-token-operator {FLAG}=$MODE");
        for unclear in [
            json!({"name": "o", "env": [{"name": DISABLE_PERSISTENCE, "valueFrom": {"configMapKeyRef": {"key": "x"}}}]}),
            json!({"name": "o", "env": [{"name": DISABLE_PERSISTENCE, "value": "rubbish"}]}),
            json!({"name": "o", "env": [{"name": "FLAGS", "value": format!("{FLAG} --other")}]}),
            json!({"name": "o", "envFrom": [{"configMapRef": {"name": "x"}}]}),
            json!({"name": "o", "command": ["sh", "-c", script]}),
            json!({"name": "o", "command": ["sh", "-c", format!("{DISABLE_PERSISTENCE}=true exec operator")]}),
            json!({"name": "o", "args": ["--disable-token-persistence=$(MODE)"]}),
            json!({"name": "o", "args": ["--disable-token-persistence-x"]}),
            // The one hides what the other says.
            json!({"name": "o", "args": [FLAG], "envFrom": [{"configMapRef": {"name": "x"}}]}),
        ] {
            assert_eq!(found(&unclear), Keeps::Unclear, "{unclear}");
        }
        assert_eq!(keeps(&Deployment::default()), Keeps::Unclear);
    }
}
