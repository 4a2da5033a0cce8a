//! What holds a secret has no `Debug`, so that nobody can print it by mistake.

use verteil_token_operator::issuer::{Answer, Exchange, RawAnswer};
use verteil_token_operator::memory::{Entry, Issued, Memory};
use verteil_token_operator::reconcile::Context;
use verteil_token_operator::secret::{Content, Judged, Rendered};
use verteil_token_operator::token::{AccessToken, Inputs, InputsFingerprint, ProcessKey, Record};

/// Whether a type has `Debug`: a constant of the type itself comes before one of a trait.
macro_rules! has_debug {
    ($type:ty) => {{
        struct Probe<T>(std::marker::PhantomData<T>);
        #[allow(dead_code, reason = "used for those that lack it")]
        trait Otherwise {
            const HAS: bool = false;
        }
        impl<T> Otherwise for Probe<T> {}
        #[allow(dead_code, reason = "used for those that have it")]
        impl<T: std::fmt::Debug> Probe<T> {
            const HAS: bool = true;
        }
        <Probe<$type>>::HAS
    }};
}

#[test]
fn what_holds_a_secret_cannot_be_printed() {
    assert!(has_debug!(String) && has_debug!(verteil_token_operator::issuer::Failure));
    for (name, printable) in [
        ("AccessToken", has_debug!(AccessToken)),
        ("Answer", has_debug!(Answer)),
        ("Content", has_debug!(Content)),
        ("Context", has_debug!(Context)),
        ("Entry", has_debug!(Entry)),
        ("Exchange", has_debug!(Exchange)),
        ("Inputs", has_debug!(Inputs)),
        ("InputsFingerprint", has_debug!(InputsFingerprint)),
        ("Issued", has_debug!(Issued)),
        ("Judged", has_debug!(Judged)),
        ("Memory", has_debug!(Memory)),
        ("ProcessKey", has_debug!(ProcessKey)),
        ("RawAnswer", has_debug!(RawAnswer)),
        ("Record", has_debug!(Record)),
        ("Rendered", has_debug!(Rendered)),
    ] {
        assert!(!printable, "{name} has Debug");
    }
}
