//! HTTP client of the store: follows no redirect, and reads no answer without a bound.

use std::error::Error;
use std::pin::Pin;
use std::time::Duration;

use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::header::LOCATION;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
    HttpResponseBody, HttpService,
};
use object_store::{ClientConfigKey, ClientOptions};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client};

use super::MAX_OBJECT;
use crate::diag::printable;

/// Largest body of an error.
const MAX_ERROR: usize = 64 * 1024;
/// Largest body of another answer: an object, or credentials of a role.
const MAX_ANSWER: usize = 4 * MAX_OBJECT;
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// Metadata services are on the host, or do not exist.
const METADATA_LIMIT: Duration = Duration::from_secs(1);
const REQUEST_LIMIT: Duration = Duration::from_secs(6);
/// Longest part of an address that an error shows, in characters.
const MAX_SHOWN: usize = 200;

/// Makes the clients of the store, and of the services that have its credentials.
#[derive(Debug)]
pub(super) struct Connector {
    /// The store is reached without TLS.
    pub(super) is_plain: bool,
    /// CAs in addition to those of the system.
    pub(super) authorities: Vec<Certificate>,
}

#[derive(Debug)]
struct Bounded(Client);

#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("the answer is larger than {limit} bytes")]
    TooLarge { limit: usize },
    #[error(
        "HTTP {status}: redirects are not followed (to {to}); \
         set AWS_REGION or AWS_ENDPOINT_URL_S3 to where the bucket is"
    )]
    Redirect { status: u16, to: String },
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let may_be_plain = options.get_config_value(&ClientConfigKey::AllowHttp);
        let may_be_plain = may_be_plain.as_deref() == Some("true");
        let is_metadata = may_be_plain && !self.is_plain;
        let builder = Client::builder()
            .redirect(Policy::none())
            .https_only(!may_be_plain)
            .user_agent(concat!("snproxy/", env!("CARGO_PKG_VERSION")))
            .timeout(REQUEST_LIMIT)
            .connect_timeout(if is_metadata {
                METADATA_LIMIT
            } else {
                CONNECT_LIMIT
            });
        let authorities = self.authorities.iter().cloned();
        // An image without any CAs can still reach a store without TLS.
        let builder = if may_be_plain {
            builder.tls_certs_only(authorities)
        } else {
            builder.tls_certs_merge(authorities)
        };
        let client = builder
            .build()
            .map_err(|error| object_store::Error::Generic {
                store: "HTTP",
                source: Box::new(error),
            })?;
        Ok(HttpClient::new(Bounded(client)))
    }
}

impl HttpService for Bounded {
    fn call<'a, 'b>(
        &'a self,
        request: HttpRequest,
    ) -> Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            let answer = HttpService::call(&self.0, request).await?;
            let status = answer.status();
            if let Some(to) = answer.headers().get(LOCATION)
                && status.is_redirection()
            {
                let to = String::from_utf8_lossy(to.as_bytes());
                let to = printable(&to).chars().take(MAX_SHOWN).collect();
                let status = status.as_u16();
                return Err(refused(Refused::Redirect { status, to }));
            }
            let limit = if status.is_success() {
                MAX_ANSWER
            } else {
                MAX_ERROR
            };
            Ok(answer.map(|body| bounded(body, limit)))
        })
    }
}

fn bounded(body: HttpResponseBody, limit: usize) -> HttpResponseBody {
    HttpResponseBody::new(Limited::new(body, limit).map_err(move |error| {
        match error.downcast::<HttpError>() {
            Ok(error) => *error,
            Err(error) if error.is::<LengthLimitError>() => refused(Refused::TooLarge { limit }),
            Err(error) => HttpError::new_boxed(HttpErrorKind::Unknown, error),
        }
    }))
}

/// Of a kind that is not tried again.
fn refused(error: impl Error + Send + Sync + 'static) -> HttpError {
    HttpError::new(HttpErrorKind::Decode, error)
}
