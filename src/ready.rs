//! `ready`: waits until an operator says that it is ready. For `helm test` and scripts, as the image has no shell.

use std::time::Duration as Span;

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use url::Url;

use crate::api::Duration;
use crate::start::init_crypto;

/// For one answer; a Service without endpoints may give none.
const ANSWER_TIMEOUT: Span = Span::from_secs(5);
/// Between two questions.
const PAUSE: Span = Span::from_secs(1);

/// Whom to ask, and for how long.
#[derive(Args, Clone, Debug)]
pub struct ReadyArgs {
    /// Readiness of the operator, such as http://verteil-token-operator.verteil-token-operator.svc:8080/readyz
    #[arg(long)]
    pub url: Url,

    /// How long to go on asking
    #[arg(long, default_value = "30s", value_name = "DURATION")]
    pub timeout: Duration,
}

/// Waits until the operator is ready; an error if it is not in time.
pub fn ready(args: &ReadyArgs) -> anyhow::Result<()> {
    ensure!(args.url.scheme() == "http", "--url is to begin with http://: probes are served without TLS");
    // The client is made with TLS in it, used or not.
    init_crypto();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(wait(args))
}

async fn wait(args: &ReadyArgs) -> anyhow::Result<()> {
    // A proxy of the environment is for token requests.
    let client = reqwest::Client::builder().no_proxy().timeout(ANSWER_TIMEOUT).build().context("no HTTP client")?;
    let mut seen = "there was no answer".to_owned();
    let asking = async {
        while let Err(other) = ask(&client, &args.url).await {
            seen = other;
            tokio::time::sleep(PAUSE).await;
        }
    };
    let patience = Span::try_from(args.timeout.signed()).unwrap_or_default();
    if tokio::time::timeout(patience, asking).await.is_err() {
        bail!("{} is not ready after {}: {seen}", args.url, args.timeout);
    }
    Ok(())
}

async fn ask(client: &reqwest::Client, url: &Url) -> Result<(), String> {
    match client.get(url.clone()).send().await {
        Ok(answer) if answer.status() == http::StatusCode::OK => Ok(()),
        Ok(answer) => Err(format!("it answers {}", answer.status())),
        Err(error) => Err(format!("{:#}", anyhow::Error::from(error.without_url()))),
    }
}
