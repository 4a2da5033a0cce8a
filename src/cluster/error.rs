//! What a refused or lost call means: by who must act next.

use kube::core::Status;
use kube::runtime::watcher;

use crate::quote::{hide, is_printable};

/// Longest quote of the apiserver or an admission policy, in characters.
const LONGEST_QUOTE: usize = 1500;
/// What kube gives as the reason of an answer that was no `Status`: its message is the whole body then.
const NO_STATUS: &str = "Failed to parse error data";

/// A call to the apiserver that did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// Somebody else was faster, or what was read is stale: look again.
    #[error("{call}: the object has changed meanwhile")]
    Conflict {
        /// Verb and kind.
        call: &'static str,
    },
    /// The object is gone.
    #[error("{call}: not found")]
    NotFound {
        /// Verb and kind.
        call: &'static str,
    },
    /// The namespace is being deleted: there is nothing left to do.
    #[error("{call}: the namespace is being deleted")]
    Terminating {
        /// Verb and kind.
        call: &'static str,
    },
    /// RBAC does not allow it.
    #[error("{call}: {message}")]
    Forbidden {
        /// Verb and kind.
        call: &'static str,
        /// The apiserver's words.
        message: String,
    },
    /// Quota, admission, validation: the object as it is will not be taken.
    #[error("{call}: {message}")]
    Refused {
        /// Verb and kind.
        call: &'static str,
        /// The apiserver's words.
        message: String,
    },
    /// Not reached, timed out, overloaded: whether the call had its effect is unknown.
    #[error("{call}: {message}")]
    Unavailable {
        /// Verb and kind.
        call: &'static str,
        /// What happened.
        message: String,
    },
}

// === impl ApiError ===

impl ApiError {
    /// Every category.
    pub const CATEGORIES: [&'static str; 6] =
        ["ApiUnavailable", "Conflict", "Forbidden", "NotFound", "Terminating", "WriteRefused"];

    /// The category, one of [`Self::CATEGORIES`], as metrics name it.
    #[must_use]
    pub const fn category(&self) -> &'static str {
        match self {
            Self::Conflict { .. } => "Conflict",
            Self::NotFound { .. } => "NotFound",
            Self::Terminating { .. } => "Terminating",
            Self::Forbidden { .. } => "Forbidden",
            Self::Refused { .. } => "WriteRefused",
            Self::Unavailable { .. } => "ApiUnavailable",
        }
    }

    /// The same without words that quote one of `secrets`.
    #[must_use]
    pub fn hiding<'a>(mut self, secrets: impl IntoIterator<Item = &'a [u8]>) -> Self {
        match &mut self {
            Self::Forbidden { message, .. } | Self::Refused { message, .. } | Self::Unavailable { message, .. } => {
                *message = hide(message, secrets);
            }
            Self::Conflict { .. } | Self::NotFound { .. } | Self::Terminating { .. } => {}
        }
        self
    }

    /// What broke a watch.
    #[must_use]
    pub fn of_watch(error: &watcher::Error) -> Self {
        match error {
            watcher::Error::InitialListFailed(error) => Self::of("list", error),
            watcher::Error::WatchStartFailed(error) | watcher::Error::WatchFailed(error) => Self::of("watch", error),
            watcher::Error::WatchError(status) => Self::Unavailable { call: "watch", message: words(status) },
            watcher::Error::NoResourceVersion => Self::Unavailable { call: "watch", message: error.to_string() },
        }
    }

    /// What `error` means for `call`.
    #[must_use]
    pub fn of(call: &'static str, error: &kube::Error) -> Self {
        let kube::Error::Api(status) = error else {
            return Self::Unavailable { call, message: chain(error) };
        };
        let message = words(status);
        let causes = status.details.iter().flat_map(|details| &details.causes);
        if causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating") {
            return Self::Terminating { call };
        }
        match status.code {
            404 => Self::NotFound { call },
            409 => Self::Conflict { call },
            // An authorizer names who may not do what; quota and admission answer 403 as well.
            401 => Self::Forbidden { call, message },
            403 if message.contains("User \"") && message.contains(" cannot ") => Self::Forbidden { call, message },
            408 | 429 | 500.. => Self::Unavailable { call, message },
            _ => Self::Refused { call, message },
        }
    }
}

/// The apiserver's words, of a length that can be read.
fn words(status: &Status) -> String {
    if status.reason == NO_STATUS {
        return format!("answered {} by something that is no apiserver: is there a proxy in between?", status.code);
    }
    status.message.chars().take(LONGEST_QUOTE).map(|c| if is_printable(c) { c } else { ' ' }).collect()
}

/// An error with its causes. A decode error is cut short: kube's would show what it could not decode.
fn chain(error: &kube::Error) -> String {
    if matches!(error, kube::Error::SerdeError(_)) {
        return "the answer is not of the expected form".into();
    }
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(source) = cause {
        let next = source.to_string();
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        cause = source.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_category_is_one_of_those_that_metrics_begin_with() {
        let call = "get Secret";
        let errors = [
            ApiError::Conflict { call },
            ApiError::NotFound { call },
            ApiError::Terminating { call },
            ApiError::Forbidden { call, message: String::new() },
            ApiError::Refused { call, message: String::new() },
            ApiError::Unavailable { call, message: String::new() },
        ];
        let mut categories = errors.map(|error| error.category());
        categories.sort_unstable();
        assert_eq!(categories, ApiError::CATEGORIES);
    }
}
