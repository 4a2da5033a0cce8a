//! The command line. Every flag has a twin in the environment, named in `--help`.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::api::{Duration, MANAGER};
use crate::issuer::AllowedHost;
use crate::lease::{Timings, TimingsError};
use crate::ready::ReadyArgs;
use crate::serve::LoopbackAddress;

/// The variable of the program that kept its token in a file: who had set it need not look for another name.
pub const DISABLE_PERSISTENCE: &str = "DISABLE_TOKEN_PERSISTENCE";

/// Keeps OAuth2 access tokens in Secrets and asks for a new one only when the stored one has reached its end.
#[derive(Parser, Debug)]
#[command(name = "verteil-token-operator", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do; `run` if left out.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Flags of `run`.
    #[command(flatten)]
    pub run: RunArgs,
}

/// What to do.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run the operator, in a cluster or with a kubeconfig (default)
    Run(Box<RunArgs>),
    /// Print the CustomResourceDefinition as YAML
    Crd,
    /// Wait until an operator says that it is ready, as `helm test` does
    Ready(ReadyArgs),
}

/// How the operator runs.
#[derive(Args, Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub struct RunArgs {
    /// Namespaces to work in, separated by commas; all if left out (which needs a ClusterRole)
    #[arg(long, env = "VERTEIL_NAMESPACES", value_delimiter = ',', value_name = "NAMESPACE")]
    pub namespaces: Vec<String>,

    /// Resources worked on at a time; at least twice --issuer-concurrency, so that first tokens find room to go before renewals
    #[arg(long, env = "VERTEIL_CONCURRENCY", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub concurrency: u16,

    /// Token requests in flight at a time, for each issuer host
    #[arg(long, env = "VERTEIL_ISSUER_CONCURRENCY", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub issuer_concurrency: u16,

    /// Hosts that token URLs may name, separated by commas: host, *.domain or *, on port 443 unless written host:port
    #[arg(
        long,
        env = "VERTEIL_ALLOWED_ISSUER_HOSTS",
        value_delimiter = ',',
        default_value = "*.verteil.com",
        value_name = "HOST"
    )]
    pub allowed_issuer_hosts: Vec<AllowedHost>,

    /// Also speak to token URLs with plain http, which sends passwords in the clear: for tests and demos
    #[arg(long, env = "VERTEIL_ALLOW_HTTP")]
    pub allow_http: bool,

    /// Restart the workloads that resources list under rolloutRestart when a token has changed: needs the right to patch them
    #[arg(long, env = "VERTEIL_ROLLOUT_RESTART")]
    pub rollout_restart: bool,

    /// Let one of several operators request tokens, the others stand by: needed with more than one replica
    #[arg(long, env = "VERTEIL_LEADER_ELECTION")]
    pub leader_election: bool,

    /// Name of the Lease that the leader holds
    #[arg(long, env = "VERTEIL_LEASE_NAME", default_value = MANAGER, value_name = "NAME")]
    pub lease_name: String,

    /// Namespace of the Lease [default: the pod's, or that of the kubeconfig's context]
    #[arg(long, env = "VERTEIL_LEASE_NAMESPACE", value_name = "NAMESPACE")]
    pub lease_namespace: Option<String>,

    /// How long others wait for a leader that is not heard of
    #[arg(long, env = "VERTEIL_LEASE_DURATION", default_value = "15s", value_name = "DURATION")]
    pub lease_duration: Duration,

    /// How long a leader goes on that cannot renew its Lease; shorter than --lease-duration
    #[arg(long, env = "VERTEIL_LEASE_RENEW_DEADLINE", default_value = "10s", value_name = "DURATION")]
    pub lease_renew_deadline: Duration,

    /// Pause between two renewals, or two looks of who stands by; 1.2 times of it shorter than --lease-renew-deadline
    #[arg(long, env = "VERTEIL_LEASE_RETRY_PERIOD", default_value = "2s", value_name = "DURATION")]
    pub lease_retry_period: Duration,

    /// Address of /livez, /readyz and /metrics
    #[arg(long, env = "VERTEIL_HTTP_LISTEN", default_value = "[::]:8080", value_name = "ADDRESS")]
    pub http_listen: SocketAddr,

    /// Metrics of each resource, with its namespace and name as labels; alerts and dashboard need them
    #[arg(
        long,
        env = "VERTEIL_PER_RESOURCE_METRICS",
        default_value_t = true,
        action = clap::ArgAction::Set,
        value_name = "true|false"
    )]
    pub per_resource_metrics: bool,

    /// Address of the debug endpoint; loopback only, kubectl port-forward reaches it
    #[arg(long, env = "VERTEIL_DEBUG_LISTEN", default_value = "127.0.0.1:8081", value_name = "ADDRESS")]
    pub debug_listen: LoopbackAddress,

    /// Address of the token API, such as [::]:8443 [default: there is none]
    #[arg(long, env = "VERTEIL_TOKEN_API_LISTEN", value_name = "ADDRESS")]
    pub token_api_listen: Option<SocketAddr>,

    /// File with the token API's certificate, in PEM, followed by those that lead to its CA; read again when it changes
    #[arg(long, env = "VERTEIL_TOKEN_API_CERT", default_value = "/tls/tls.crt", value_name = "FILE")]
    pub token_api_cert: PathBuf,

    /// File with the certificate's private key, in PEM
    #[arg(long, env = "VERTEIL_TOKEN_API_KEY", default_value = "/tls/tls.key", value_name = "FILE")]
    pub token_api_key: PathBuf,

    /// Audience that the ServiceAccount tokens of the token API's callers have to be for
    #[arg(long, env = "VERTEIL_TOKEN_API_AUDIENCE", default_value = MANAGER, value_name = "AUDIENCE")]
    pub token_api_audience: String,

    /// Keep tokens in memory only, and nothing in Secrets: the token API gives them out, and a restart costs one for each resource
    #[arg(
        long,
        env = DISABLE_PERSISTENCE,
        default_value = "false",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        action = clap::ArgAction::Set,
        value_parser = parse_switch,
        value_name = "true|false"
    )]
    pub disable_token_persistence: bool,

    /// The Deployment that the operator runs in: with --disable-token-persistence, tokens are saved at the end if that no longer says so
    #[arg(long, env = "VERTEIL_DEPLOYMENT_NAME", value_name = "NAME")]
    pub deployment_name: Option<String>,

    /// Form of the log lines
    #[arg(long, env = "VERTEIL_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,

    /// What is logged at first: a level, or target=level pairs separated by commas
    #[arg(long, env = "VERTEIL_LOG_FILTER", default_value = "info", value_name = "FILTER")]
    pub log_filter: String,
}

/// Form of the log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

// === impl RunArgs ===

impl RunArgs {
    /// The namespaces to watch, each once: one that is `None` means all.
    #[must_use]
    pub fn scopes(&self) -> Vec<Option<String>> {
        let named: BTreeSet<&String> = self.namespaces.iter().collect();
        if named.is_empty() { vec![None] } else { named.into_iter().cloned().map(Some).collect() }
    }

    /// Whether the flags fit together.
    pub fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(
            !self.disable_token_persistence || self.token_api_listen.is_some(),
            "--disable-token-persistence ({DISABLE_PERSISTENCE}) keeps tokens in memory, and only the token API gives them out: set --token-api-listen as well"
        );
        Ok(())
    }

    /// The timings of the leader election, if they fit together.
    pub fn lease_timings(&self) -> Result<Timings, TimingsError> {
        let span = |duration: Duration| std::time::Duration::try_from(duration.signed()).unwrap_or_default();
        Timings::new(span(self.lease_duration), span(self.lease_renew_deadline), span(self.lease_retry_period))
    }
}

/// A switch as people write it. What it does not know it takes for neither.
pub fn parse_switch(text: &str) -> Result<bool, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err("write true or false".into()),
    }
}

/// As they would be written: what the operator runs with, wherever it came from.
impl fmt::Display for RunArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without `..`: a new flag is not forgotten here.
        let Self {
            namespaces,
            concurrency,
            issuer_concurrency,
            allowed_issuer_hosts,
            allow_http,
            rollout_restart,
            leader_election,
            lease_name,
            lease_namespace,
            lease_duration,
            lease_renew_deadline,
            lease_retry_period,
            http_listen,
            per_resource_metrics,
            debug_listen,
            token_api_listen,
            token_api_cert,
            token_api_key,
            token_api_audience,
            disable_token_persistence,
            deployment_name,
            log_format,
            log_filter,
        } = self;
        write!(f, "--namespaces={} --concurrency={concurrency}", namespaces.join(","))?;
        let hosts: Vec<String> = allowed_issuer_hosts.iter().map(ToString::to_string).collect();
        write!(f, " --issuer-concurrency={issuer_concurrency} --allowed-issuer-hosts={}", hosts.join(","))?;
        write!(f, " --allow-http={allow_http} --rollout-restart={rollout_restart}")?;
        write!(f, " --leader-election={leader_election} --lease-name={lease_name}")?;
        write!(f, " --lease-namespace={}", lease_namespace.as_deref().unwrap_or_default())?;
        write!(f, " --lease-duration={lease_duration} --lease-renew-deadline={lease_renew_deadline}")?;
        write!(f, " --lease-retry-period={lease_retry_period} --http-listen={http_listen}")?;
        write!(f, " --per-resource-metrics={per_resource_metrics} --debug-listen={debug_listen}")?;
        let token_api_listen = token_api_listen.map(|address| address.to_string()).unwrap_or_default();
        write!(f, " --token-api-listen={token_api_listen} --token-api-cert={}", token_api_cert.display())?;
        write!(f, " --token-api-key={} --token-api-audience={token_api_audience}", token_api_key.display())?;
        write!(f, " --disable-token-persistence={disable_token_persistence}")?;
        write!(f, " --deployment-name={}", deployment_name.as_deref().unwrap_or_default())?;
        let log_format = log_format.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        write!(f, " --log-format={log_format} --log-filter={log_filter}")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test")]

    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_has_a_twin_in_the_environment() {
        for flag in Cli::command().get_arguments().filter(|a| !["help", "version"].contains(&a.get_id().as_str())) {
            let twin = match flag.get_id().as_str() {
                // That of the file-based original.
                "disable_token_persistence" => DISABLE_PERSISTENCE.to_owned(),
                id => format!("VERTEIL_{}", id.to_uppercase()),
            };
            assert_eq!(flag.get_env().map(|e| e.to_string_lossy().into_owned()), Some(twin));
        }
    }

    #[test]
    fn the_start_line_tells_every_flag() {
        let told = Cli::try_parse_from(["o", "--namespaces=a,b", "--log-format=json"]).unwrap().run.to_string();
        for flag in Cli::command().get_arguments().filter(|a| !["help", "version"].contains(&a.get_id().as_str())) {
            assert!(told.contains(&format!("--{}=", flag.get_long().unwrap())), "{told}");
        }
        assert!(told.contains("--namespaces=a,b ") && told.contains("--log-format=json "), "{told}");
    }

    #[test]
    fn a_namespace_given_twice_is_watched_once() {
        let scopes = |args: &[&str]| Cli::try_parse_from(args).unwrap().run.scopes();
        assert_eq!(scopes(&["o", "--namespaces=b,a,b"]), [Some("a".to_owned()), Some("b".to_owned())]);
        assert_eq!(scopes(&["o"]), [None]);
    }

    #[test]
    fn the_debug_endpoint_is_for_loopback_only() {
        let error = Cli::try_parse_from(["o", "--debug-listen=0.0.0.0:8081"]).unwrap_err().to_string();
        assert!(error.contains("--debug-listen") && error.contains("port-forward"), "{error}");
    }

    #[test]
    fn run_is_the_default_and_can_be_written_out() {
        assert!(Cli::try_parse_from(["o", "--allow-http"]).unwrap().run.allow_http);
        let Some(Command::Run(run)) = Cli::try_parse_from(["o", "run", "--namespaces", "a,b"]).unwrap().command else {
            unreachable!("run")
        };
        assert_eq!(run.namespaces, ["a", "b"]);
        assert!(Cli::try_parse_from(["o", "--allowed-issuer-hosts", "a/b"]).is_err());
    }

    #[test]
    fn persistence_is_switched_off_by_a_clear_word_and_never_without_the_token_api() {
        let run = |flags: &[&str]| Cli::try_parse_from(["o"].iter().chain(flags)).map(|cli| cli.run);
        let disabled = |flag: &str| run(&[flag]).map(|run| run.disable_token_persistence);
        for (flag, wanted) in
            [("", true), ("=true", true), ("=1", true), ("=YES", true), ("=false", false), ("=0", false)]
        {
            assert_eq!(disabled(&format!("--disable-token-persistence{flag}")).unwrap(), wanted, "{flag}");
        }
        for wrong in ["=", "=maybe", "=2", "=treu"] {
            let error = disabled(&format!("--disable-token-persistence{wrong}")).unwrap_err().to_string();
            assert!(error.contains("--disable-token-persistence") && error.contains("true or false"), "{error}");
        }
        let error = run(&["--disable-token-persistence"]).unwrap().check().unwrap_err().to_string();
        assert!(error.contains("--token-api-listen"), "{error}");
        assert!(run(&["--disable-token-persistence", "--token-api-listen=[::]:8443"]).unwrap().check().is_ok());
        assert!(run(&[]).unwrap().check().is_ok());
    }

    #[test]
    fn the_lease_timings_fit_together_by_default() {
        let timings = |args: &[&str]| Cli::try_parse_from(args).unwrap().run.lease_timings();
        assert!(timings(&["o"]).is_ok());
        assert!(timings(&["o", "--lease-renew-deadline=15s"]).is_err());
        assert!(timings(&["o", "--lease-retry-period=9s"]).is_err());
    }
}
