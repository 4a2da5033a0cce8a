//! What one account asked of the apiserver, by its audit log: the calls of whoever measures are not in it.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize, Serializer};
use serde_json::json;

/// More than is ever written, in MB: the log is not to be rotated while it is read.
const LOG_SIZE: u32 = 100_000;

/// One kind of request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Call {
    verb: String,
    resource: String,
    dry_run: bool,
}

/// How often each was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Requests(BTreeMap<Call, u64>);

/// The audit log, read as far as it is written.
pub(super) struct AuditLog {
    path: PathBuf,
    user: String,
    read: Mutex<(u64, Requests)>,
}

/// A line of the log (audit.k8s.io/v1 Event).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    stage: String,
    verb: String,
    #[serde(rename = "requestURI")]
    request_uri: String,
    user: User,
    object_ref: Option<ObjectRef>,
}

#[derive(Deserialize)]
struct User {
    username: String,
}

#[derive(Deserialize)]
struct ObjectRef {
    resource: String,
    subresource: Option<String>,
}

// === impl AuditLog ===

impl AuditLog {
    /// The calls of `user` in a log in `folder`, which is made by an apiserver with [`AuditLog::args`].
    pub(super) fn new(folder: &Path, user: String) -> Self {
        Self { path: folder.join("audit.log"), user, read: Mutex::default() }
    }

    /// The flags with which the apiserver logs the calls of `users`, and of nobody else. Writes the policy.
    pub(super) fn args(folder: &Path, users: &[String]) -> anyhow::Result<Vec<String>> {
        let policy = json!({
            "apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"],
            "rules": [{"level": "Metadata", "users": users, "omitManagedFields": true}, {"level": "None"}],
        });
        let path = folder.join("audit-policy.json");
        std::fs::write(&path, policy.to_string())?;
        Ok(vec![
            format!("--audit-policy-file={}", path.display()),
            format!("--audit-log-path={}", folder.join("audit.log").display()),
            format!("--audit-log-maxsize={LOG_SIZE}"),
        ])
    }

    /// All requests so far. The apiserver writes each before it sends the end of its answer.
    pub(super) fn requests(&self) -> anyhow::Result<Requests> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let (offset, requests) = &mut *read;
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(*offset))?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        // A line may be half written.
        let (whole, _) = text.split_at(text.rfind('\n').map_or(0, |end| end + 1));
        for line in whole.lines() {
            requests.count(serde_json::from_str(line)?, &self.user);
        }
        *offset += u64::try_from(whole.len())?;
        Ok(requests.clone())
    }
}

// === impl Requests ===

impl Requests {
    fn count(&mut self, entry: Entry, user: &str) {
        // A watch counts when it begins, all else when it is answered.
        let begun = entry.stage == "ResponseStarted";
        if entry.user.username != user || begun != (entry.verb == "watch") {
            return;
        }
        let resource = match entry.object_ref {
            Some(ObjectRef { resource, subresource: Some(part) }) => format!("{resource}/{part}"),
            Some(ObjectRef { resource, subresource: None }) => resource,
            None => entry.request_uri.split('?').next().unwrap_or_default().to_owned(),
        };
        let dry_run = entry.request_uri.contains("dryRun=All");
        *self.0.entry(Call { verb: entry.verb, resource, dry_run }).or_default() += 1;
    }

    /// What came after `before`.
    pub(super) fn since(&self, before: &Self) -> Self {
        let more = self.0.iter().map(|(call, now)| {
            let before = before.0.get(call).copied().unwrap_or_default();
            (call.clone(), now.saturating_sub(before))
        });
        Self(more.filter(|(_, count)| *count > 0).collect())
    }

    /// Those that are made for single resources: all but lists, watches and the Lease.
    pub(super) fn of_work(&self) -> u64 {
        self.sum(|call| !matches!(call.verb.as_str(), "list" | "watch") && call.resource != "leases")
    }

    /// All but watches and the Lease.
    pub(super) fn at_rest(&self) -> u64 {
        self.sum(|call| call.verb != "watch" && call.resource != "leases")
    }

    /// All but the Lease.
    pub(super) fn all(&self) -> u64 {
        self.sum(|call| call.resource != "leases")
    }

    fn sum(&self, which: impl Fn(&Call) -> bool) -> u64 {
        self.0.iter().filter(|(call, _)| which(call)).map(|(_, count)| count).sum()
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}{}", self.verb, self.resource, if self.dry_run { " (dry run)" } else { "" })
    }
}

impl fmt::Display for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (call, count)) in self.0.iter().enumerate() {
            write!(f, "{}{count} {call}", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

impl Serialize for Requests {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(call, count)| (call.to_string(), count)))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const OPERATOR: &str = "system:serviceaccount:scale:operator";

    fn line(user: &str, stage: &str, verb: &str, resource: &str, uri: &str) -> String {
        let (resource, part) = resource.split_once('/').map_or((resource, None), |(name, part)| (name, Some(part)));
        json!({"stage": stage, "verb": verb, "requestURI": uri, "user": {"username": user, "uid": "1"},
            "objectRef": {"resource": resource, "subresource": part, "name": "x"}})
        .to_string()
    }

    fn log(dir: &tempfile::TempDir) -> (AuditLog, File) {
        let log = AuditLog::new(dir.path(), OPERATOR.to_owned());
        let file = File::create(dir.path().join("audit.log")).unwrap();
        (log, file)
    }

    #[test]
    fn requests_of_the_account_are_counted_and_those_of_others_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let (log, mut file) = log(&dir);
        let done = "ResponseComplete";
        for line in [
            line(OPERATOR, done, "create", "secrets", "/api/v1/namespaces/scale/secrets?dryRun=All&fieldManager=o"),
            line(OPERATOR, done, "create", "secrets", "/api/v1/namespaces/scale/secrets?fieldManager=o"),
            line(OPERATOR, done, "update", "verteiltokens/status", "/apis/verteil.dev/v1alpha1/x"),
            line(OPERATOR, "ResponseStarted", "watch", "secrets", "/api/v1/namespaces/scale/secrets?watch=true"),
            line(OPERATOR, done, "watch", "secrets", "/api/v1/namespaces/scale/secrets?watch=true"),
            line(OPERATOR, done, "list", "secrets", "/api/v1/namespaces/scale/secrets"),
            line(OPERATOR, done, "update", "leases", "/apis/coordination.k8s.io/v1/x"),
            line("admin", done, "get", "verteiltokens", "/apis/verteil.dev/v1alpha1/x"),
        ] {
            writeln!(file, "{line}").unwrap();
        }
        let requests = log.requests().unwrap();
        assert_eq!((requests.of_work(), requests.at_rest(), requests.all()), (3, 4, 5));
        let told = "1 create secrets, 1 create secrets (dry run), 1 list secrets, 1 update leases, \
                    1 update verteiltokens/status, 1 watch secrets";
        assert_eq!(requests.to_string(), told);
    }

    #[test]
    fn a_line_that_is_half_written_counts_when_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let (log, mut file) = log(&dir);
        let get = line(OPERATOR, "ResponseComplete", "get", "secrets", "/api/v1/x");
        let (half, rest) = get.split_at(20);
        write!(file, "{get}\n{half}").unwrap();
        let before = log.requests().unwrap();
        assert_eq!(before.all(), 1);
        writeln!(file, "{rest}").unwrap();
        let after = log.requests().unwrap();
        assert_eq!((after.all(), after.since(&before).to_string().as_str()), (2, "1 get secrets"));
        assert_eq!(log.requests().unwrap().since(&after), Requests::default());
    }
}
