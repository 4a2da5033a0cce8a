//! The one list of reasons: the same word in condition, event, metric, log and README.

use super::FailureClass;

/// Why a resource is as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// The Secret holds a valid token for the current inputs.
    TokenValid,
    /// A token is being requested or saved.
    Issuing,
    /// Another process has announced a request; it is waited out.
    Claimed,
    /// `spec.suspend` is set.
    Suspended,
    /// The stored token has expired and could not be replaced yet.
    TokenExpired,
    /// The credentials Secret or one of its keys is missing.
    CredentialsMissing,
    /// User name or password is empty or cannot be sent.
    CredentialsInvalid,
    /// The ConfigMap or Secret of spec.caBundleRef, or its key, is missing.
    CANotFound,
    /// What stands there is no certificate.
    CAInvalid,
    /// The token URL's scheme or host is not allowed by the operator's flags.
    IssuerNotAllowed,
    /// A template of `spec.secret.template` cannot be rendered.
    TemplateInvalid,
    /// DNS, connection or TLS failed: no request was sent.
    IssuerUnreachable,
    /// The issuer answered 5xx.
    IssuerUnavailable,
    /// The issuer answered 429.
    RateLimited,
    /// The request was sent and not answered.
    IssuerTimeout,
    /// The answer holds no usable token.
    AnswerUnusable,
    /// The issuer refused the credentials or the request.
    RequestRefused,
    /// The Secret belongs to somebody else.
    SecretNotOurs,
    /// The Secret is being deleted; its successor is written when it is gone.
    SecretTerminating,
    /// The Secret is immutable.
    SecretImmutable,
    /// The apiserver refused to write the Secret.
    WriteRefused,
    /// The operator's role does not allow what it needs.
    Forbidden,
    /// Tokens were issued outside the schedule too often: the next one waits.
    GenerationThrottled,
    /// The installed CustomResourceDefinition is older than the operator.
    CRDOutdated,
}

// === impl Reason ===

impl Reason {
    /// Every reason, in the order of the documentation.
    pub const ALL: [Self; 24] = [
        Self::TokenValid,
        Self::Issuing,
        Self::Claimed,
        Self::Suspended,
        Self::TokenExpired,
        Self::CredentialsMissing,
        Self::CredentialsInvalid,
        Self::CANotFound,
        Self::CAInvalid,
        Self::IssuerNotAllowed,
        Self::TemplateInvalid,
        Self::IssuerUnreachable,
        Self::IssuerUnavailable,
        Self::RateLimited,
        Self::IssuerTimeout,
        Self::AnswerUnusable,
        Self::RequestRefused,
        Self::SecretNotOurs,
        Self::SecretTerminating,
        Self::SecretImmutable,
        Self::WriteRefused,
        Self::Forbidden,
        Self::GenerationThrottled,
        Self::CRDOutdated,
    ];

    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TokenValid => "TokenValid",
            Self::Issuing => "Issuing",
            Self::Claimed => "Claimed",
            Self::Suspended => "Suspended",
            Self::TokenExpired => "TokenExpired",
            Self::CredentialsMissing => "CredentialsMissing",
            Self::CredentialsInvalid => "CredentialsInvalid",
            Self::CANotFound => "CANotFound",
            Self::CAInvalid => "CAInvalid",
            Self::IssuerNotAllowed => "IssuerNotAllowed",
            Self::TemplateInvalid => "TemplateInvalid",
            Self::IssuerUnreachable => "IssuerUnreachable",
            Self::IssuerUnavailable => "IssuerUnavailable",
            Self::RateLimited => "RateLimited",
            Self::IssuerTimeout => "IssuerTimeout",
            Self::AnswerUnusable => "AnswerUnusable",
            Self::RequestRefused => "RequestRefused",
            Self::SecretNotOurs => "SecretNotOurs",
            Self::SecretTerminating => "SecretTerminating",
            Self::SecretImmutable => "SecretImmutable",
            Self::WriteRefused => "WriteRefused",
            Self::Forbidden => "Forbidden",
            Self::GenerationThrottled => "GenerationThrottled",
            Self::CRDOutdated => "CRDOutdated",
        }
    }

    /// The reason of this name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text)
    }

    /// Whether only a person can help, by changing the spec, the operator's flags or the content of a Secret: `Stalled`.
    #[must_use]
    pub const fn is_stalled(self) -> bool {
        match self {
            Self::Suspended
            | Self::CredentialsInvalid
            | Self::CAInvalid
            | Self::IssuerNotAllowed
            | Self::TemplateInvalid
            | Self::RequestRefused
            | Self::SecretNotOurs
            | Self::SecretImmutable
            | Self::CRDOutdated => true,
            Self::TokenValid
            | Self::Issuing
            | Self::Claimed
            | Self::TokenExpired
            | Self::CredentialsMissing
            | Self::CANotFound
            | Self::IssuerUnreachable
            | Self::IssuerUnavailable
            | Self::RateLimited
            | Self::IssuerTimeout
            | Self::AnswerUnusable
            | Self::SecretTerminating
            | Self::WriteRefused
            | Self::Forbidden
            | Self::GenerationThrottled => false,
        }
    }

    /// Whether it is followed by a wait, after which another attempt is made.
    #[must_use]
    pub fn is_waited_out(self) -> bool {
        let refused = matches!(self, Self::WriteRefused | Self::Forbidden | Self::SecretImmutable);
        refused || FailureClass::ALL.into_iter().any(|class| Self::from(class) == self)
    }

    /// Whether it is the ordinary course of things rather than trouble.
    #[must_use]
    pub const fn is_progress(self) -> bool {
        matches!(self, Self::TokenValid | Self::Issuing | Self::Claimed)
    }
}

impl From<FailureClass> for Reason {
    fn from(class: FailureClass) -> Self {
        match class {
            FailureClass::Unreached => Self::IssuerUnreachable,
            FailureClass::Unavailable => Self::IssuerUnavailable,
            FailureClass::RateLimited => Self::RateLimited,
            FailureClass::Unanswered => Self::IssuerTimeout,
            FailureClass::Answer => Self::AnswerUnusable,
            FailureClass::Refused => Self::RequestRefused,
        }
    }
}
