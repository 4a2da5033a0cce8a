//! What is done for each resource when the operator starts, and whenever the apiserver tells of it.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use criterion::Criterion;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Client;
use kube::client::Body;
use kube::core::{DeserializeGuard, ObjectMeta};
use tokio::sync::mpsc;
use verteil_token_operator::api::{ObjectVersion, VerteilToken};
use verteil_token_operator::clock::Clock;
use verteil_token_operator::cluster::{Cluster, Events, Rivals, Tokens, Versions};
use verteil_token_operator::issuer::{AllowedHosts, Issuer, Limits, Permits, Reach};
use verteil_token_operator::lease::Leadership;
use verteil_token_operator::memory::{Key, Memory};
use verteil_token_operator::metrics::Metrics;
use verteil_token_operator::reconcile::{Context, settled_until};
use verteil_token_operator::store::Store;
use verteil_token_operator::token::{ProcessKey, RecordSeal, Validity, renewal_point};
use verteil_token_operator::view::TokenView;
use verteil_token_operator::wakes::Wakes;

use crate::measure;

/// A settled resource as the apiserver sends it, 3 kB of which half is `managedFields`.
const TOKEN: &str = include_str!("token.json");

const MANY: usize = 10_000;

struct Fixed(Timestamp);

// === impl Fixed ===

impl Clock for Fixed {
    fn now(&self) -> Timestamp {
        self.0
    }

    fn elapsed(&self) -> Duration {
        Duration::ZERO
    }
}

/// A context that knows of the versions in `token`, of an operator whose calls would all fail: none is made.
fn context(token: &VerteilToken, now: Timestamp) -> Context {
    let service = tower::service_fn(|_: http::Request<Body>| async {
        Err::<http::Response<Body>, std::io::Error>(std::io::ErrorKind::NotConnected.into())
    });
    let cluster = Cluster::new(Client::new(service, "scale"));
    let identity: Arc<str> = "operator".into();
    let metrics = Arc::new(Metrics::new());
    let (events, _post) = Events::new(cluster.clone(), Arc::clone(&identity), Arc::clone(&metrics));
    let (bell, _rings) = mpsc::unbounded_channel();
    let context = Context {
        cluster,
        issuer: Issuer::new(1).unwrap(),
        clock: Arc::new(Fixed(now)),
        store: Arc::new(Store::new(false, Arc::clone(&identity), bell.clone())),
        memory: Arc::new(Memory::default()),
        versions: Arc::new(Versions::new(Vec::new())),
        config_maps: Arc::new(Versions::of_config_maps(Vec::new())),
        rivals: Rivals::new(bell.clone()),
        limits: Limits::new(bell.clone()),
        reach: Reach::new(bell.clone()),
        permits: Permits::new(8, bell),
        wakes: Wakes::default(),
        events,
        metrics,
        allowed_hosts: AllowedHosts::new(Vec::new()),
        allow_http: false,
        rollout_restart: false,
        identity,
        claims: AtomicU64::new(0),
        process_key: ProcessKey::generate().unwrap(),
        leading: Leadership::always(),
        stop: tokio_util::sync::CancellationToken::new(),
    };
    context.remember(&Key::of(token), token);
    let verified = token.status.as_ref().unwrap().verified.as_ref().unwrap();
    for (name, version) in [("token-00042", &verified.secret), ("credentials", &verified.credentials)] {
        let ObjectVersion { uid, resource_version } = version.clone();
        let meta = ObjectMeta {
            name: Some(name.into()),
            namespace: Some("scale".into()),
            uid: Some(uid),
            resource_version: Some(resource_version),
            ..ObjectMeta::default()
        };
        context.versions.note(&Key::new("scale", name), Some(&meta));
    }
    context
}

/// The settled resource: its renewal point is that of its seal.
fn settled() -> VerteilToken {
    let mut token = serde_json::from_str::<Tokens>(TOKEN).unwrap().get().unwrap().clone();
    let renew_before = token.spec.renew_before.signed();
    let status = token.status.as_mut().unwrap();
    let time = |time: &Option<Time>| time.as_ref().unwrap().0;
    let validity = Validity { issued_at: time(&status.issued_at), expires_at: time(&status.expires_at) };
    let seal = RecordSeal::written(status.record_seal.clone().unwrap());
    status.renewal_time = Some(Time(renewal_point(validity, renew_before, &seal, false)));
    token
}

fn named(token: &VerteilToken, number: usize) -> VerteilToken {
    let mut token = token.clone();
    token.metadata.name = Some(format!("token-{number:05}"));
    token
}

pub fn resource(c: &mut Criterion) {
    verteil_token_operator::start::init_crypto();
    // The client has a task of its own, which never gets anything to do.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _inside = runtime.enter();
    let token = settled();
    let now = token.metadata.creation_timestamp.as_ref().unwrap().0 + Duration::from_secs(300);
    let context = context(&token, now);
    assert!(settled_until(&Key::of(&token), &token, &context).is_some(), "a look would be needed");

    measure(c, "resource: decode", || serde_json::from_str::<Tokens>(black_box(TOKEN)).unwrap());
    measure(c, "resource: decode by kube's guard, for comparison", || {
        serde_json::from_str::<DeserializeGuard<VerteilToken>>(black_box(TOKEN)).unwrap()
    });
    measure(c, "resource: settled", || settled_until(&Key::of(black_box(&token)), &token, &context));
    // Thousands that share their credentials must not make each other dear.
    let many: Vec<VerteilToken> = (0..MANY).map(|number| named(&token, number)).collect();
    measure(c, "10,000 resources: remember what they name", || {
        let versions = Versions::new(Vec::new());
        for token in &many {
            versions.add(&Key::of(token), token);
        }
        versions
    });
    drop(many);
    let object = Tokens::of(token);
    measure(c, "resource: view", || TokenView::of(black_box(&object), &context.memory, now));
}
