//! Gauges of each resource, made from its status when they are asked for: so they cannot go stale, and a resource that is
//! gone is gone here too. Only the leader has them, else each would be there once for every replica.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use crate::api::{VerteilToken, VerteilTokenStatus};
use crate::clock::Clock;
use crate::cluster::Tokens;
use crate::decide::{Reason, condition, renewal_fails_since};
use crate::lease::Leadership;
use crate::resources::{Resources, is_true, reason};

/// The state of a resource that no operator has looked at yet, or whose reason only another version knows.
const UNKNOWN: &str = "Unknown";
/// The state of a resource that cannot be read.
const UNDECODABLE: &str = "Undecodable";

/// The source of the gauges.
pub struct ResourceMetrics {
    resources: Arc<Resources>,
    leading: Leadership,
    clock: Arc<dyn Clock>,
}

/// One gauge: its name, what it says, and how it is read from a resource.
struct Gauge {
    name: &'static str,
    help: &'static str,
    unit: Option<Unit>,
    value: fn(&VerteilToken, &VerteilTokenStatus, Timestamp) -> Option<i64>,
}

const GAUGES: [Gauge; 7] = [
    Gauge {
        name: "ready",
        help: "1 if the condition Ready of the resource is True, else 0.",
        unit: None,
        value: |_, status, _| Some(i64::from(is_true(status, "Ready"))),
    },
    Gauge {
        name: "ready_changed_timestamp",
        help: "When the condition Ready of the resource last changed, or when the resource was created.",
        unit: Some(Unit::Seconds),
        value: |token, status, _| {
            let changed = condition(status, "Ready").map(|ready| &ready.last_transition_time);
            changed.or(token.metadata.creation_timestamp.as_ref()).map(|time| time.0.as_second())
        },
    },
    Gauge {
        name: "renewal_failing",
        help: "1 if the condition RenewalFailing of the resource is True, else 0.",
        unit: None,
        value: |_, status, _| Some(i64::from(is_true(status, "RenewalFailing"))),
    },
    Gauge {
        name: "renewal_failing_since_timestamp",
        help: "Since when renewal fails; none while it does not.",
        unit: Some(Unit::Seconds),
        value: |_, status, now| renewal_fails_since(status, now).map(Timestamp::as_second),
    },
    Gauge {
        name: "issue_timestamp",
        help: "When the stored token was requested; none without a stored token.",
        unit: Some(Unit::Seconds),
        // The time outlives the token in the status.
        value: |_, status, _| status.expires_at.as_ref().and(status.issued_at.as_ref()).map(|time| time.0.as_second()),
    },
    Gauge {
        name: "expiry_timestamp",
        help: "When the stored token expires; none without a stored token.",
        unit: Some(Unit::Seconds),
        value: |_, status, _| status.expires_at.as_ref().map(|time| time.0.as_second()),
    },
    Gauge {
        name: "renewal_timestamp",
        help: "When the successor of the stored token is requested; none without a stored token.",
        unit: Some(Unit::Seconds),
        value: |_, status, _| status.renewal_time.as_ref().map(|time| time.0.as_second()),
    },
];

// === impl ResourceMetrics ===

impl ResourceMetrics {
    /// The gauges of `resources`, shown while this process leads.
    #[must_use]
    pub const fn new(resources: Arc<Resources>, leading: Leadership, clock: Arc<dyn Clock>) -> Self {
        Self { resources, leading, clock }
    }
}

impl Collector for ResourceMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        if !self.leading.covers(self.clock.elapsed()) {
            return Ok(());
        }
        let (all, now): (Vec<Arc<Tokens>>, _) = (self.resources.all().collect(), self.clock.now());
        for gauge in &GAUGES {
            encode_gauge(&mut encoder, gauge, &all, now)?;
        }
        encode_issued(&mut encoder, &all)?;
        encode_state(&mut encoder, &all)
    }
}

impl fmt::Debug for ResourceMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResourceMetrics").finish_non_exhaustive()
    }
}

fn encode_gauge(encoder: &mut DescriptorEncoder, gauge: &Gauge, all: &[Arc<Tokens>], now: Timestamp) -> fmt::Result {
    let Gauge { name, help, unit, value } = gauge;
    let mut metric = encoder.encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?;
    for token in all.iter().filter_map(|object| object.get().ok()) {
        let nothing = VerteilTokenStatus::default();
        if let Some(value) = value(token, token.status.as_ref().unwrap_or(&nothing), now) {
            metric.encode_family(&labels(token))?.encode_gauge(&value)?;
        }
    }
    Ok(())
}

/// A counter, although it is read from the status: a wiped status or a resource made anew begins at 0 again.
fn encode_issued(encoder: &mut DescriptorEncoder, all: &[Arc<Tokens>]) -> fmt::Result {
    let help = "Tokens issued for the resource, as its status counts them: over restarts of the operator.";
    let mut metric = encoder.encode_descriptor("issued", help, None, MetricType::Counter)?;
    for token in all.iter().filter_map(|object| object.get().ok()) {
        let issued = token.status.as_ref().and_then(|status| u64::try_from(status.tokens_issued?).ok());
        let issued = issued.unwrap_or_default();
        metric.encode_family(&labels(token))?.encode_counter::<NoLabelSet, u64, f64>(&issued, None)?;
    }
    Ok(())
}

fn encode_state(encoder: &mut DescriptorEncoder, all: &[Arc<Tokens>]) -> fmt::Result {
    let help = "1, with the reason of what is in the way of the resource, or else of its condition Ready.";
    let mut metric = encoder.encode_descriptor("state", help, None, MetricType::Gauge)?;
    for object in all {
        let (namespace, name, reason) = match object.get() {
            Ok(token) => {
                let reason = token.status.as_ref().and_then(reason).map_or(UNKNOWN, Reason::as_str);
                (token.metadata.namespace.as_deref(), token.metadata.name.as_deref(), reason)
            }
            Err(invalid) => (invalid.metadata.namespace.as_deref(), invalid.metadata.name.as_deref(), UNDECODABLE),
        };
        let labels =
            [("namespace", namespace.unwrap_or_default()), ("name", name.unwrap_or_default()), ("reason", reason)];
        metric.encode_family(&labels)?.encode_gauge(&1_i64)?;
    }
    Ok(())
}

fn labels(token: &VerteilToken) -> [(&'static str, &str); 2] {
    let meta = &token.metadata;
    [("namespace", meta.namespace.as_deref().unwrap_or_default()), ("name", meta.name.as_deref().unwrap_or_default())]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test")]

    use std::time::Duration;

    use kube::runtime::reflector;
    use kube::runtime::watcher::Event;
    use serde_json::json;

    use super::*;
    use crate::clock::SystemClock;
    use crate::metrics::{Exposition, Metrics};
    use crate::resources::Watched;

    fn object(name: &str, status: &serde_json::Value) -> Tokens {
        let token = json!({
            "apiVersion": "verteil.dev/v1alpha1", "kind": "VerteilToken",
            "metadata": {"name": name, "namespace": "search", "creationTimestamp": "2026-11-24T08:00:00Z"},
            "spec": {"tokenURL": "https://issuer.example/", "credentialsSecretRef": {"name": "c"}},
            "status": status,
        });
        serde_json::from_str(&token.to_string()).unwrap()
    }

    fn condition(type_: &str, status: &str, reason: &str) -> serde_json::Value {
        let since = "2026-11-24T09:00:00Z";
        json!({"type": type_, "status": status, "reason": reason, "message": "", "lastTransitionTime": since})
    }

    fn scrape(objects: Vec<Tokens>, leading: Leadership) -> Vec<String> {
        let (store, mut writer) = reflector::store();
        for object in objects {
            writer.apply_watcher_event(&Event::Apply(object));
        }
        let resources = Arc::new(Resources::default());
        resources.set(vec![Watched { namespace: None, store, listed: tokio::sync::watch::channel(true).1 }]);
        let metrics = Metrics::new().with(ResourceMetrics::new(resources, leading, Arc::new(SystemClock)));
        let text = metrics.encode(Exposition::Plain).unwrap();
        let of_resources = text.lines().filter_map(|line| line.strip_prefix("verteil_token_"));
        of_resources.filter(|line| line.contains("name=")).map(str::to_owned).collect()
    }

    #[test]
    fn what_the_status_tells_is_told() {
        let valid = json!({
            "conditions": [condition("Ready", "True", "TokenValid"), condition("RenewalFailing", "True", "RateLimited")],
            "issuedAt": "2026-11-24T09:00:00Z", "renewalTime": "2026-11-24T20:50:00Z", "expiresAt": "2026-11-24T21:00:00Z",
            "tokensIssued": 7,
        });
        let labels = r#"{namespace="search",name="flight"}"#;
        let mut told = scrape(vec![object("flight", &valid)], Leadership::always());
        told.sort();
        assert_eq!(
            told,
            [
                format!("expiry_timestamp_seconds{labels} 1795554000"),
                format!("issue_timestamp_seconds{labels} 1795510800"),
                format!("issued_total{labels} 7"),
                format!("ready_changed_timestamp_seconds{labels} 1795510800"),
                format!("ready{labels} 1"),
                format!("renewal_failing_since_timestamp_seconds{labels} 1795510800"),
                format!("renewal_failing{labels} 1"),
                format!("renewal_timestamp_seconds{labels} 1795553400"),
                r#"state{namespace="search",name="flight",reason="RateLimited"} 1"#.to_owned(),
            ]
        );
    }

    #[test]
    fn without_a_token_there_are_no_times_of_one() {
        let refused = json!({
            "conditions": [condition("Ready", "False", "RequestRefused")], "issuedAt": "2026-11-24T09:00:00Z",
        });
        let told = scrape(vec![object("refused", &refused), object("new", &json!({}))], Leadership::always());
        assert!(
            !told.iter().any(|line| ["expiry", "issue_", "renewal_t", "since"].iter().any(|word| line.contains(word)))
        );
        for line in [
            r#"ready{namespace="search",name="new"} 0"#,
            r#"ready_changed_timestamp_seconds{namespace="search",name="new"} 1795507200"#,
            r#"state{namespace="search",name="new",reason="Unknown"} 1"#,
            r#"state{namespace="search",name="refused",reason="RequestRefused"} 1"#,
        ] {
            assert!(told.iter().any(|told| told == line), "{line} is not in {told:#?}");
        }
    }

    #[test]
    fn one_that_cannot_be_read_hides_no_other() {
        let broken = json!({"tokensIssued": "many"});
        let told = scrape(vec![object("broken", &broken), object("new", &json!({}))], Leadership::always());
        assert!(
            told.contains(&r#"state{namespace="search",name="broken",reason="Undecodable"} 1"#.to_owned()),
            "{told:#?}"
        );
        assert_eq!(told.iter().filter(|line| line.contains("broken")).count(), 1);
        assert!(told.iter().any(|line| line.starts_with(r#"ready{namespace="search",name="new"}"#)));
    }

    #[test]
    fn who_stands_by_tells_nothing() {
        assert_eq!(scrape(vec![object("flight", &json!({}))], Leadership::none()), Vec::<String>::new());
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "how long it takes is the question")]
    fn ten_thousand_are_scraped_in_less_than_a_scrapes_time() {
        let status = json!({
            "conditions": [condition("Ready", "True", "TokenValid"), condition("RenewalFailing", "False", "TokenValid")],
            "issuedAt": "2026-11-24T09:00:00Z", "renewalTime": "2026-11-24T20:50:00Z", "expiresAt": "2026-11-24T21:00:00Z",
        });
        let objects = (0..10_000).map(|number| object(&format!("token-{number}"), &status)).collect();
        let started = std::time::Instant::now();
        assert_eq!(scrape(objects, Leadership::always()).len(), 80_000);
        // Prometheus waits for 10 s. Not optimised and on a busy machine this is still far below it.
        let took = started.elapsed();
        assert!(took < Duration::from_secs(5), "{took:?}");
        println!("{took:?}");
    }
}
