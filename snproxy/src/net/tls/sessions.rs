//! For how long a session may be resumed.
//!
//! Who resumes one is taken for who began it, and no certificate is looked at again. So sessions live within a
//! configuration that is replaced now and then: a connection adds to those of the one with which it began, which nobody
//! resumes afterwards. Other files make other configurations, of which none knows the sessions of another.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rustls::client::Resumption;
use rustls::crypto::ring::Ticketer;
use rustls::server::ServerSessionMemoryCache;

use super::verifier::Authorities;

/// Longest time for which a certificate that was verified is good without another look, as of nginx and `HAProxy`.
const LIFETIME: Duration = Duration::from_mins(5);
/// Sessions that are kept here.
const MAX_SESSIONS: usize = 256;

/// What terminates TLS.
pub type ServerConfig = Sessions<rustls::ServerConfig>;
/// What speaks TLS to others.
pub type ClientConfig = Sessions<rustls::ClientConfig>;

/// A configuration and its sessions.
#[derive(Debug)]
pub struct Sessions<C> {
    current: Mutex<Current<C>>,
    /// Those who are believed, if somebody has to be.
    authorities: Option<Arc<Authorities>>,
    forget: fn(&mut C),
}

#[derive(Debug)]
struct Current<C> {
    config: Arc<C>,
    from: SystemTime,
    until: SystemTime,
}

impl ServerConfig {
    pub(super) fn of_server(
        config: rustls::ServerConfig,
        authorities: Option<Arc<Authorities>>,
    ) -> Arc<Self> {
        Self::new(config, authorities, |config| {
            config.session_storage = ServerSessionMemoryCache::new(MAX_SESSIONS);
            // Clients keep them, however many they are: each handshake of TLS 1.3 makes two. Without random numbers there is no
            // handshake either.
            if let Ok(ticketer) = Ticketer::new() {
                config.ticketer = ticketer;
            }
        })
    }
}

impl ClientConfig {
    pub(super) fn of_client(
        config: rustls::ClientConfig,
        authorities: Option<Arc<Authorities>>,
    ) -> Arc<Self> {
        Self::new(config, authorities, |config| {
            config.resumption = Resumption::in_memory_sessions(MAX_SESSIONS);
        })
    }
}

impl<C: Clone> Sessions<C> {
    fn new(config: C, authorities: Option<Arc<Authorities>>, forget: fn(&mut C)) -> Arc<Self> {
        let current = Current {
            config: Arc::new(config),
            from: SystemTime::UNIX_EPOCH,
            until: SystemTime::UNIX_EPOCH,
        };
        Arc::new(Self {
            current: Mutex::new(current),
            authorities,
            forget,
        })
    }

    /// What a connection that begins now is made with.
    pub fn config(&self) -> Arc<C> {
        self.config_at(SystemTime::now())
    }

    pub(super) fn config_at(&self, now: SystemTime) -> Arc<C> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if !(current.from..current.until).contains(&now) {
            let mut config = (*current.config).clone();
            (self.forget)(&mut config);
            let change = self.authorities.as_ref().and_then(|all| all.change(now));
            *current = Current {
                config: Arc::new(config),
                from: now,
                until: change.map_or(now + LIFETIME, |change| change.min(now + LIFETIME)),
            };
        }
        Arc::clone(&current.config)
    }
}
