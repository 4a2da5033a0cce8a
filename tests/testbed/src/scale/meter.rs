//! Reading meters: of a process and of the apiserver.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use kube::Client;

/// Clock ticks in a second, as `/proc` counts CPU time (`getconf CLK_TCK`; fixed on Linux).
const TICKS: u64 = 100;
/// What the operator works with. Others are the control plane's own.
const KINDS: [&str; 5] = ["verteiltokens", "secrets", "events", "configmaps", "leases"];

/// CPU time that a process has used, all its threads.
pub(super) fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // After the name, which may hold anything: state is field 3, utime 14, stime 15.
    let fields: Vec<&str> = stat.rsplit_once(')').context("no name")?.1.split_whitespace().collect();
    let ticks: u64 = fields.iter().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(ticks * 1000 / TICKS))
}

/// Resident memory in MiB: now, and at its highest.
pub(super) fn memory(pid: u32) -> anyhow::Result<(f64, f64)> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).context("no such line")?;
        let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
        anyhow::Ok(kib / 1024.0)
    };
    Ok((kib("VmRSS:")?, kib("VmHWM:")?))
}

/// Requests that the apiserver has answered, by verb and resource. Watches count when they end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Requests(BTreeMap<(String, String), u64>);

// === impl Requests ===

impl Requests {
    /// Of the kinds that the operator works with, since the apiserver's start.
    pub(super) async fn read(client: &Client) -> anyhow::Result<Self> {
        let text = client.request_text(http::Request::get("/metrics").body(Vec::new())?).await?;
        let mut requests = BTreeMap::new();
        for line in text.lines().filter_map(|line| line.strip_prefix("apiserver_request_total{")) {
            let Some((labels, count)) = line.rsplit_once("} ") else { continue };
            let label = |name: &str| {
                let value = labels.split_once(&format!("{name}=\""))?.1;
                value.split_once('"').map(|(value, _)| value.to_owned())
            };
            let (Some(verb), Some(resource)) = (label("verb"), label("resource")) else { continue };
            if KINDS.contains(&resource.as_str()) {
                let count: f64 = count.parse()?;
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
                let count = count as u64;
                *requests.entry((verb, resource)).or_default() += count;
            }
        }
        Ok(Self(requests))
    }

    /// What came after `before`.
    pub(super) fn since(&self, before: &Self) -> Self {
        let more = self.0.iter().map(|(key, now)| {
            let before = before.0.get(key).copied().unwrap_or_default();
            (key.clone(), now.saturating_sub(before))
        });
        Self(more.filter(|(_, count)| *count > 0).collect())
    }

    /// All of them, but for reading lists and watches, and the Lease.
    pub(super) fn of_work(&self) -> u64 {
        self.sum(|verb, resource| !matches!(verb, "LIST" | "WATCH") && resource != "leases")
    }

    /// All of them.
    pub(super) fn all(&self) -> u64 {
        self.sum(|_, resource| resource != "leases")
    }

    fn sum(&self, which: impl Fn(&str, &str) -> bool) -> u64 {
        self.0.iter().filter(|((verb, resource), _)| which(verb, resource)).map(|(_, count)| count).sum()
    }
}

impl std::fmt::Display for Requests {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, ((verb, resource), count)) in self.0.iter().enumerate() {
            write!(f, "{}{verb} {resource} {count}", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}
