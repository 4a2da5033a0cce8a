//! `--keep`: everything stays, and the operator is started again whenever somebody kills it.

use std::time::Duration;

use super::say;
use super::stage::Stage;

const LOOK: Duration = Duration::from_millis(300);

/// Says how to reach what runs, and what happens to it, until Ctrl-C.
pub(super) async fn keep(stage: &mut Stage) -> anyhow::Result<()> {
    say::step("Everything stays as it is until Ctrl-C. In another terminal:");
    say::note(&format!("export KUBECONFIG={}", stage.cluster.kubeconfig().display()));
    say::note(&format!("alias kubectl='{}'    # if you have none", stage.cluster.kubectl_words()?));
    for line in [
        "kubectl get vt -o wide",
        "kubectl describe vt flight",
        "kubectl get secret flight -o jsonpath='{.data.token_expiry}' | base64 -d",
        "kubectl label secret flight hello=world                         # costs nothing",
        "kubectl annotate vt flight verteil.dev/renew=$(date +%s)        # asks for one new token",
        "kubectl delete secret flight                                    # a new token follows, within a minute if another was just asked for",
        "kubectl get events.events.k8s.io",
    ] {
        say::note(line);
    }
    say::note(&format!("tail -f {}", stage.log_path()));
    say_pid(stage);
    watch(stage).await
}

fn say_pid(stage: &Stage) {
    if let Some(operator) = &stage.operator {
        say::note(&format!("kill -9 {}    # the operator; it is started again", operator.process().pid()));
    }
}

async fn watch(stage: &mut Stage) -> anyhow::Result<()> {
    let mut said = stage.issuer.count();
    loop {
        tokio::time::sleep(LOOK).await;
        let count = stage.issuer.count();
        if count != said {
            let last = stage.issuer.requests().pop().map(|request| request.tag).unwrap_or_default();
            say::note(&format!("the issuer has now been asked {count} times, last for {last}"));
            said = count;
        }
        if stage.operator.as_ref().is_some_and(|operator| !operator.process().is_running()) {
            stage.operator = None;
            let took = stage.start_operator().await?;
            say::note(&format!(
                "the operator had ended and was started again, ready after {:.1} s",
                took.as_secs_f64()
            ));
            say_pid(stage);
        }
    }
}
