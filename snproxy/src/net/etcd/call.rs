//! One question, one answer, of whichever member answers.

use std::io;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use crate::diag::printable;

use super::connect::Member;
use super::error::Code;
use super::json::Failure;
use super::{CALL_LIMIT, Client, EtcdError};

/// Longest answer: a page of keys, or one key with the largest value that etcd takes by default (1.5 MiB) as base64.
pub(super) const MAX_ANSWER: usize = 4 << 20;
/// Most of an error's text that is read and shown.
const MAX_SAID: usize = 4096;
/// Most of it in one line.
const MAX_MESSAGE: usize = 256;

impl Client {
    /// Asks until a member answers: the one that answered last, then the others.
    pub(super) async fn call<T: DeserializeOwned>(
        &self,
        path: &str,
        question: &impl Serialize,
    ) -> Result<T, EtcdError> {
        let question = body(question);
        let mut failed = None;
        for at in self.order() {
            let answer = self.ask(at, path, &question).await;
            match answer.and_then(|answer| parse(&self.members[at], &answer)) {
                Ok(answer) => {
                    self.stay_with(at);
                    return Ok(answer);
                }
                Err(error) if error.is_of_member() => failed = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(failed.unwrap_or_else(|| EtcdError::Unreachable {
            member: "etcd".to_owned(),
            source: io::ErrorKind::NotFound.into(),
        }))
    }

    /// The members in the order in which they are asked.
    pub(super) fn order(&self) -> impl Iterator<Item = usize> + use<> {
        let (first, count) = (self.current(), self.members.len());
        (0..count).map(move |turn| (first + turn) % count)
    }

    /// Asks one member, with a token where there is a user; a token that is no longer good is renewed once.
    pub(super) async fn ask(
        &self,
        at: usize,
        path: &str,
        question: &Bytes,
    ) -> Result<Bytes, EtcdError> {
        let token = self.token_of(at).await?;
        match self.ask_as(at, path, question, token.as_deref()).await {
            Err(error) if self.token.is_out(&error) => {
                self.token.forget(token.as_deref());
                let token = self.token_of(at).await?;
                self.ask_as(at, path, question, token.as_deref()).await
            }
            answer => answer,
        }
    }

    /// Asks one member, within the limit of a call.
    pub(super) async fn ask_as(
        &self,
        at: usize,
        path: &str,
        question: &Bytes,
        token: Option<&str>,
    ) -> Result<Bytes, EtcdError> {
        let member = &self.members[at];
        let asked = timeout(CALL_LIMIT, self.exchange(member, path, question, token));
        let answer = asked.await.unwrap_or_else(|_| Err(silent(member)))?;
        member.has_answered();
        Ok(answer)
    }

    async fn exchange(
        &self,
        member: &Member,
        path: &str,
        question: &Bytes,
        token: Option<&str>,
    ) -> Result<Bytes, EtcdError> {
        if let Some(mut sender) = member.take_idle() {
            let request = request(member, path, question, token)?;
            // It may have been closed since: then another one is made.
            if let Ok(answer) = sender.send_request(request).await {
                let answer = read(member, answer).await;
                if sender.ready().await.is_ok() {
                    member.keep(sender);
                }
                return answer;
            }
        }
        let unreachable = |source| unreachable(member, source);
        let mut sender = member
            .connect(self.tls.load_full())
            .await
            .map_err(unreachable)?;
        let request = request(member, path, question, token)?;
        let answer = sender.send_request(request).await;
        let answer = answer.map_err(|error| unreachable(io::Error::other(error)))?;
        let answer = read(member, answer).await?;
        if sender.ready().await.is_ok() {
            member.keep(sender);
        }
        Ok(answer)
    }
}

pub(super) fn body(question: &impl Serialize) -> Bytes {
    // Texts and numbers always have a JSON form.
    Bytes::from(serde_json::to_vec(question).unwrap_or_default())
}

pub(super) fn request(
    member: &Member,
    path: &str,
    question: &Bytes,
    token: Option<&str>,
) -> Result<Request<Full<Bytes>>, EtcdError> {
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(path)
        .header(HOST, member.endpoint.authority())
        .header(CONTENT_TYPE, "application/json")
        // A member without a leader says so instead of waiting for one.
        .header("Grpc-Metadata-hasleader", "true");
    if let Some(token) = token {
        request = request.header(AUTHORIZATION, token);
    }
    let request = request.body(Full::new(question.clone()));
    request.map_err(|error| malformed(member, error))
}

/// The whole answer. Errors: too long, cut off, or a no.
async fn read(member: &Member, answer: Response<Incoming>) -> Result<Bytes, EtcdError> {
    if !answer.status().is_success() {
        return Err(refusal(member, answer).await);
    }
    whole(member, answer, MAX_ANSWER).await
}

async fn whole(
    member: &Member,
    answer: Response<Incoming>,
    limit: usize,
) -> Result<Bytes, EtcdError> {
    let body = Limited::new(answer.into_body(), limit).collect().await;
    match body {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(EtcdError::TooLong {
            member: member.endpoint.to_string(),
            limit,
        }),
        Err(error) => Err(unreachable(member, io::Error::other(error))),
    }
}

/// What an answer that is a no says.
pub(super) async fn refusal(member: &Member, answer: Response<Incoming>) -> EtcdError {
    let status = answer.status();
    let said = match whole(member, answer, MAX_SAID).await {
        Ok(said) => said,
        Err(error) => return error,
    };
    match serde_json::from_slice::<Failure>(&said) {
        Ok(Failure { code, message }) => refused(member, code.into(), &message),
        Err(_) => malformed(
            member,
            format_args!("HTTP {status}, which is no answer of etcd's gateway"),
        ),
    }
}

pub(super) fn refused(member: &Member, code: Code, message: &str) -> EtcdError {
    // It says so with the code of a bad argument. Source: etcd, api/v3rpc/rpctypes/error.go.
    let code = match message {
        "etcdserver: revision of auth store is old" => Code::Unauthenticated,
        _ => code,
    };
    EtcdError::Refused {
        member: member.endpoint.to_string(),
        code,
        message: short(message),
    }
}

/// As one line of the log.
pub(super) fn short(message: &str) -> String {
    let end = message.char_indices().nth(MAX_MESSAGE);
    let end = end.map_or(message.len(), |(at, _)| at);
    printable(message.get(..end).unwrap_or("")).into_owned()
}

pub(super) fn parse<T: DeserializeOwned>(member: &Member, answer: &[u8]) -> Result<T, EtcdError> {
    serde_json::from_slice(answer).map_err(|error| malformed(member, error))
}

pub(super) fn malformed(member: &Member, what: impl std::fmt::Display) -> EtcdError {
    EtcdError::Malformed {
        member: member.endpoint.to_string(),
        what: short(&what.to_string()),
    }
}

pub(super) fn unreachable(member: &Member, source: io::Error) -> EtcdError {
    EtcdError::Unreachable {
        member: member.endpoint.to_string(),
        source,
    }
}

pub(super) fn silent(member: &Member) -> EtcdError {
    EtcdError::Silent {
        member: member.endpoint.to_string(),
        limit: CALL_LIMIT,
    }
}
