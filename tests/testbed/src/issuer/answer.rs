//! What the issuer can do with a request.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

/// One answer, or the refusal to give one.
///
/// ```
/// use std::time::Duration;
/// use testbed::Answer;
///
/// let _ = Answer::token("fake-token").expires_in(3600).after(Duration::from_millis(50));
/// let _ = Answer::token("fake-token").field("expires_in", "43199").without("scope");
/// let _ = Answer::status(503).header("retry-after", "7").text("<html>busy</html>");
/// let _ = Answer::token("fake-token").truncated_after(20);
/// ```
#[derive(Clone, Debug)]
pub struct Answer {
    pub(super) delay: Duration,
    pub(super) ending: Ending,
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) payload: Payload,
    pub(super) pace: Pace,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Reply,
    /// Nothing, for as long as the client stays.
    Hang,
    /// The connection ends after the whole request was read.
    Close,
    /// The connection ends before the body was read.
    CloseUnread,
}

#[derive(Clone, Debug)]
pub(super) enum Payload {
    Json(Value),
    Bytes(Vec<u8>),
    /// So many bytes of a JSON string that never ends, in chunks without a length in front.
    Endless(u64),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Pace {
    AtOnce,
    Drip {
        bytes: usize,
        every: Duration,
    },
    /// No length is announced.
    Chunked,
    /// The head announces all of the body, the connection ends after so many bytes.
    Truncated {
        after: usize,
    },
}

// === impl Answer ===

impl Answer {
    fn new(status: u16, payload: Payload) -> Self {
        let ending = Ending::Reply;
        Self { delay: Duration::ZERO, ending, status, headers: Vec::new(), payload, pace: Pace::AtOnce }
    }

    /// 200 with this token, for 43199 s, as design and vendor have it.
    #[must_use]
    pub fn token(value: &str) -> Self {
        let body = json!({"access_token": value, "token_type": "Bearer", "expires_in": 43199, "scope": "api"});
        Self::new(200, Payload::Json(body)).header("cache-control", "no-store").header("pragma", "no-cache")
    }

    /// An empty answer with this status, to be given a body.
    #[must_use]
    pub fn status(status: u16) -> Self {
        Self::new(status, Payload::Bytes(Vec::new()))
    }

    /// An error as RFC 6749, section 5.2, has it, such as 400 `invalid_scope`.
    #[must_use]
    pub fn oauth_error(status: u16, error: &str) -> Self {
        Self::status(status).json(json!({"error": error, "error_description": "said by the scripted issuer"}))
    }

    /// What a Spring server says to a wrong password: 401 with a body that is not RFC 6749.
    #[must_use]
    pub fn unauthorized(path: &str) -> Self {
        Self::status(401).header("www-authenticate", "Basic realm=\"oauth2/client\"").json(json!({
            "timestamp": Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.3f+00:00").to_string(),
            "status": 401,
            "error": "Unauthorized",
            "path": path,
        }))
    }

    /// 200 with a JSON string of `bytes` that does not end, and no length announced.
    #[must_use]
    pub fn endless(bytes: u64) -> Self {
        Self::new(200, Payload::Endless(bytes)).header("content-type", "application/json")
    }

    /// Reads the request and never answers.
    #[must_use]
    pub fn hang() -> Self {
        Self { ending: Ending::Hang, ..Self::status(200) }
    }

    /// Reads the request and closes the connection.
    #[must_use]
    pub fn close() -> Self {
        Self { ending: Ending::Close, ..Self::status(200) }
    }

    /// Closes the connection without reading the body. Only by [`Issuer::enqueue`](super::Issuer::enqueue): a rule sees
    /// a request when it was read.
    #[must_use]
    pub fn close_unread() -> Self {
        Self { ending: Ending::CloseUnread, ..Self::status(200) }
    }

    /// Sets `expires_in`, as a number.
    #[must_use]
    pub fn expires_in(self, seconds: i64) -> Self {
        self.field("expires_in", seconds)
    }

    /// Sets a field of the JSON body.
    #[must_use]
    pub fn field(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.json_body()[name] = value.into();
        self
    }

    /// Takes a field out of the JSON body.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.json_body().as_object_mut().expect("the body is a JSON object").remove(name);
        self
    }

    fn json_body(&mut self) -> &mut Value {
        match &mut self.payload {
            Payload::Json(value) => value,
            Payload::Bytes(_) | Payload::Endless(_) => {
                panic!("the answer has no JSON body to change")
            }
        }
    }

    /// Sets a JSON body.
    #[must_use]
    pub fn json(mut self, value: Value) -> Self {
        self.payload = Payload::Json(value);
        self
    }

    /// Sets a body of text, without a content type.
    #[must_use]
    pub fn text(self, text: &str) -> Self {
        self.bytes(text)
    }

    /// Sets a body of bytes, without a content type.
    #[must_use]
    pub fn bytes(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.payload = Payload::Bytes(bytes.into());
        self
    }

    /// Sets a header; `content-type` in place of the one that a JSON body has by itself.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets a header unless it is set.
    #[must_use]
    pub fn or_header(self, name: &str, value: &str) -> Self {
        if self.headers.iter().any(|(set, _)| set.eq_ignore_ascii_case(name)) { self } else { self.header(name, value) }
    }

    /// Sets another status.
    #[must_use]
    pub fn with_status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// Waits before anything is sent, or before the connection is closed.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Sends the head at once and then so many bytes of the body at a time.
    #[must_use]
    pub fn dripping(mut self, bytes: usize, every: Duration) -> Self {
        self.pace = Pace::Drip { bytes: bytes.max(1), every };
        self
    }

    /// Sends the body in chunks, without a length in front.
    #[must_use]
    pub fn chunked(mut self) -> Self {
        self.pace = Pace::Chunked;
        self
    }

    /// Announces the whole body and closes the connection after so many bytes of it.
    #[must_use]
    pub fn truncated_after(mut self, bytes: usize) -> Self {
        self.pace = Pace::Truncated { after: bytes };
        self
    }
}
