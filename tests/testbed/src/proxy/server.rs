//! The proxy's thread: each request is read whole, met, and passed on; answers stream through.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::{Arc, mpsc};

use futures::future::pending;
use http::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER};
use http::{Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kube::Client;
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::{Call, Fault, Shared};

type Broken = Box<dyn std::error::Error + Send + Sync>;
type Answer = Response<UnsyncBoxBody<Bytes, Broken>>;

pub(super) fn run(
    port: u16,
    kubeconfig: &Path,
    shared: &Arc<Shared>,
    mut ends: watch::Receiver<()>,
    started: &mpsc::Sender<anyhow::Result<()>>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let setup = async {
            let config = Kubeconfig::read_from(kubeconfig)?;
            let mut config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
            config.default_retry = false;
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
            anyhow::Ok((Client::try_from(config)?, listener))
        };
        let (client, listener) = match setup.await {
            Ok(ready) => ready,
            Err(error) => return drop(started.send(Err(error))),
        };
        drop(started.send(Ok(())));
        loop {
            tokio::select! {
                _ = ends.changed() => return,
                accepted = listener.accept() => {
                    if let Ok((stream, _)) = accepted {
                        tokio::spawn(serve(stream, client.clone(), Arc::clone(shared)));
                    }
                }
            }
        }
    });
}

async fn serve(stream: TcpStream, client: Client, shared: Arc<Shared>) {
    let service = service_fn(move |request| pass(request, client.clone(), Arc::clone(&shared)));
    // It ends with an error whenever a fault breaks it.
    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.ok();
}

async fn pass(request: Request<Incoming>, client: Client, shared: Arc<Shared>) -> Result<Answer, Broken> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let uri = head.uri.path_and_query().map_or("/", |uri| uri.as_str()).to_owned();
    let (fault, met) = shared.meet(Call::of(&head.method, &uri, &body)).unzip();
    connected(&shared).await;
    match fault {
        Some(Fault::Status(code, retry_after)) => return Ok(refused(code, retry_after)),
        Some(Fault::Answer(code, body)) => return Ok(whole(code, body)),
        Some(Fault::Reset) => return Err("reset, as scripted".into()),
        Some(Fault::Hang) => pending::<()>().await,
        Some(Fault::LostAnswer | Fault::HangAfter | Fault::Changed(..)) | None => {}
    }
    let mut request = Request::builder().method(head.method).uri(uri);
    for name in [ACCEPT, CONTENT_TYPE] {
        if let Some(value) = head.headers.get(&name) {
            request = request.header(name, value);
        }
    }
    let answer = client.send(request.body(Body::from(body.to_vec()))?).await;
    if let Some(met) = met.filter(|_| answer.is_ok()) {
        met.carried_out();
    }
    connected(&shared).await;
    match fault {
        Some(Fault::Changed(code, change)) => {
            let body = answer?.into_body().collect().await?.to_bytes();
            return Ok(whole(code, change(&String::from_utf8_lossy(&body))));
        }
        Some(Fault::LostAnswer) => return Err("answer lost, as scripted".into()),
        Some(Fault::HangAfter) => pending::<()>().await,
        Some(Fault::Status(..) | Fault::Answer(..) | Fault::Reset | Fault::Hang) | None => {}
    }
    let (head, body) = answer?.into_parts();
    let mut answer = Response::builder().status(head.status);
    if let Some(kind) = head.headers.get(CONTENT_TYPE) {
        answer = answer.header(CONTENT_TYPE, kind);
    }
    // Frame by frame, so that a cut stops a watch that is under way.
    let body = http_body_util::StreamBody::new(futures::stream::unfold((body, shared), |(mut body, shared)| async {
        let frame = body.frame().await?;
        connected(&shared).await;
        Some((frame.map_err(Broken::from), (body, shared)))
    }));
    Ok(answer.body(body.boxed_unsync())?)
}

/// Resolves once there is a connection.
async fn connected(shared: &Shared) {
    drop(shared.cut.subscribe().wait_for(|cut| !*cut).await);
}

fn refused(code: u16, retry_after: Option<u32>) -> Answer {
    let reason = match code {
        409 => "Conflict",
        429 => "TooManyRequests",
        _ => "InternalError",
    };
    let status = serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "a fault, as scripted", "reason": reason, "code": code,
    });
    let mut answer = whole(code, status.to_string());
    if let Some(seconds) = retry_after {
        answer.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    answer
}

fn whole(code: u16, body: String) -> Answer {
    let mut answer = Response::new(Full::from(body).map_err(|never: Infallible| match never {}).boxed_unsync());
    *answer.status_mut() = StatusCode::from_u16(code).expect("a status code");
    answer.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    answer
}
