//! Who asks: a user's password becomes a token, which etcd forgets after some minutes.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::fs::File;
use tokio::io::AsyncReadExt;

use crate::conf::Etcd;

use super::call::{body, malformed, parse};
use super::error::Code;
use super::json::{Authenticate, Authenticated};
use super::{Client, EtcdError};

/// Longest token; a JWT has some hundred bytes.
const MAX_TOKEN: usize = 8 << 10;
/// Longest password file.
const MAX_PASSWORD: u64 = 4096;

/// The token of the user, if there is one.
pub(super) struct Token {
    user: Option<Box<str>>,
    password_file: Option<PathBuf>,
    /// All members know it.
    known: Mutex<Option<Arc<str>>>,
}

impl Token {
    pub(super) fn new(conf: &Etcd) -> Self {
        Self {
            user: conf.user.clone(),
            password_file: conf.password_file.clone(),
            known: Mutex::new(None),
        }
    }

    fn known(&self) -> MutexGuard<'_, Option<Arc<str>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an error says that the token is no longer good.
    pub(super) fn is_out(&self, error: &EtcdError) -> bool {
        let EtcdError::Refused { code, .. } = error else {
            return false;
        };
        self.user.is_some() && *code == Code::Unauthenticated
    }

    /// Forgets a token, unless there is a newer one by now.
    pub(super) fn forget(&self, token: Option<&str>) {
        let mut known = self.known();
        if known.as_deref() == token {
            *known = None;
        }
    }
}

impl Client {
    /// The token, asked of one member where none is known; `None` without a user.
    pub(super) async fn token_of(&self, at: usize) -> Result<Option<Arc<str>>, EtcdError> {
        let Some(user) = &self.token.user else {
            return Ok(None);
        };
        if let Some(token) = self.token.known().clone() {
            return Ok(Some(token));
        }
        let password = match &self.token.password_file {
            Some(path) => password(path).await.map_err(|source| EtcdError::Password {
                path: path.clone(),
                source,
            })?,
            None => String::new(),
        };
        let question = body(&Authenticate {
            name: user,
            password: &password,
        });
        let answer = self
            .ask_as(at, "/v3/auth/authenticate", &question, None)
            .await;
        let answer = match answer {
            // Then nobody needs a token.
            Err(EtcdError::Refused { message, .. })
                if message == "etcdserver: authentication is not enabled" =>
            {
                return Ok(None);
            }
            answer => answer?,
        };
        let Authenticated { token } = parse(&self.members[at], &answer)?;
        if token.len() > MAX_TOKEN {
            return Err(malformed(&self.members[at], "a token of more than 8 KiB"));
        }
        let token: Arc<str> = token.into();
        *self.token.known() = Some(Arc::clone(&token));
        Ok(Some(token))
    }
}

/// The first line of a file.
async fn password(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let file = File::open(path).await?;
    file.take(MAX_PASSWORD).read_to_string(&mut text).await?;
    Ok(text.lines().next().unwrap_or("").to_owned())
}
