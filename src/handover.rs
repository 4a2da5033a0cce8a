//! The end of a process that keeps tokens in memory only: if its Deployment no longer asks for that, they are saved, so that
//! switching it off costs none.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Container;

use crate::args::{DISABLE_PERSISTENCE, parse_switch};
use crate::cluster::Cluster;
use crate::memory::Key;
use crate::store::Store;

const FLAG: &str = "--disable-token-persistence";

/// Looks at the Deployment `key` that this process belongs to, and makes the Secrets the place of its tokens if it says so now.
pub async fn heed_deployment(cluster: &Cluster, key: &Key, store: &Store) {
    if !store.is_in_memory() {
        return;
    }
    match cluster.deployment(key).await {
        Ok(Some(deployment)) if keeps_in_secrets(&deployment) => {
            if store.persist() {
                tracing::info!("token persistence is enabled for the next process: saving what is in memory");
            }
        }
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "cannot see whether token persistence is enabled for the next process"),
    }
}

/// Whether the pods of `deployment` keep their tokens in Secrets. In doubt they do not.
fn keeps_in_secrets(deployment: &Deployment) -> bool {
    if deployment.metadata.deletion_timestamp.is_some() {
        return false;
    }
    let pod = deployment.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
    pod.is_some_and(|pod| !pod.containers.is_empty() && !pod.containers.iter().any(disables))
}

fn disables(container: &Container) -> bool {
    let on = |value: &str| parse_switch(value).unwrap_or(true);
    let words = container.args.iter().chain(&container.command).flatten();
    let by_flag = words.filter_map(|word| word.strip_prefix(FLAG)).any(|rest| match rest.strip_prefix('=') {
        Some(value) => on(value),
        None => rest.is_empty(),
    });
    let by_env =
        container.env.iter().flatten().filter(|variable| variable.name == DISABLE_PERSISTENCE).any(|variable| {
            // From elsewhere: not known.
            variable.value.as_deref().is_none_or(on)
        });
    by_flag || by_env
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test")]

    use serde_json::{Value, json};

    use super::*;

    fn keeps(container: &Value) -> bool {
        let deployment = json!({"spec": {
            "selector": {}, "template": {"spec": {"containers": [{"name": "sidecar"}, container]}},
        }});
        keeps_in_secrets(&serde_json::from_value(deployment).unwrap())
    }

    #[test]
    fn tokens_are_saved_only_if_nothing_says_that_they_may_not_be() {
        let env = |value: &Value| json!({"name": "o", "env": [{"name": DISABLE_PERSISTENCE, "value": value}]});
        assert!(keeps(&json!({"name": "o"})));
        assert!(keeps(&json!({"name": "o", "args": ["--disable-token-persistence=false", "--other"]})));
        assert!(keeps(&env(&json!("false"))));
        assert!(!keeps(&env(&json!("true"))) && !keeps(&env(&json!("rubbish"))) && !keeps(&env(&Value::Null)));
        for args in [["--disable-token-persistence"], ["--disable-token-persistence=true"]] {
            assert!(!keeps(&json!({"name": "o", "args": args})), "{args:?}");
        }
        assert!(!keeps_in_secrets(&Deployment::default()));
    }
}
