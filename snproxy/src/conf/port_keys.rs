//! The keys of proxy.conf that may be said for some ports only: `KEY value`, `KEY 61000-61999 value`.

use std::sync::Arc;

use super::client_proxy::client_proxy;
use super::keys::{Key, Scope, Unset, set};
use super::port_value::{
    balance, bind, check, count, fate, lifetime, limit, locality, over_limit, percent, persist,
    port_rate, show_bind, show_check, show_fate, show_lifetime, show_limit, show_persist,
    show_port_rate, show_source_max_conn, show_source_rate, source_max_conn, source_rate,
};
use super::tls::{client_tls, show_client_tls, show_upstream_tls, upstream_tls};
use super::value::{duration, show_duration, some_duration, unless_off};

macro_rules! port_keys {
    ($($name:literal $default:literal $doc:literal $field:ident: $parse:expr, $show:expr;)+) => {
        /// In the order of the README.
        pub(super) const PORT_KEYS: &[Key] = &[$(Key {
            name: $name,
            unset: Unset::Text($default),
            doc: $doc,
            scope: Scope::Ports {
                apply: |conf, value, findings| set(&mut conf.$field, $parse(value, findings)),
                show: |conf| $show(&conf.$field),
            },
        }),+];
    };
}

port_keys! {
    "BIND" "host"
    "address on which a port is served, with `STEERING listeners` only; `host`: that of HOST"
    bind: bind, |value: &_| show_bind(*value);

    "BALANCE" "p2c"
    "who is tried first: the policies of [Balancing](#balancing); `sh` and `mh` take `port` (the client's port counts too) and `strict` (no other pod where this one is out)"
    balance: balance, ToString::to_string;

    "LOCALITY" "balance"
    "`balance`: hosts share the load; `prefer`: a local pod while one has room; `only`: never another host"
    locality: locality, ToString::to_string;

    "PERSIST" "0"
    "time for which a client keeps its pod after its last connection began, and the length of the network that counts as one client: `5m /24 /64` (IPv4, IPv6); `0` is off"
    persist: persist, |value: &_| show_persist(*value);

    "SLOWSTART" "0"
    "time in which a pod that is new, or came back, comes to its full share; `0` is off; not for `sh` and `mh`"
    slow_start: |value, findings: &mut _| duration(value, findings).map(unless_off), |value: &Option<_>| show_duration(value.unwrap_or_default());

    "HEALTH" "tcp/5s"
    "`passive`: dials tell; `tcp/5s`: beside them a connection every 5 s to each pod that is not seen to listen on this host; options: `fails=1` dials in a row that take a pod down, `hold=1s` until it is checked (doubles up to 30 s), `rise=1` and `fall=1` checks in a row, `jitter=10%`, `timeout=1s`, `send=\"PING\\r\\n\"`, `expect=\"+PONG\"` (how the answer begins)"
    health: check, show_check;

    "EJECTMAX" "50%"
    "part of a port's upstreams that may be down when FIRSTBYTETIMEOUT takes one more down, rounded down; connections that fail and checks count, and take upstreams down beyond it; `100%`: all, `0%`: none by FIRSTBYTETIMEOUT"
    eject_max: |value, findings: &mut _| percent(0, value, findings), |value: &u8| format!("{value}%");

    "ONREMOVE" "keep"
    "connections of a pod that was taken out of the files: `keep`, `reset`, or `drain:30s` (reset after that)"
    on_remove: fate, |value: &_| show_fate(*value);

    "ONDOWN" "keep"
    "connections of a pod that went down: as ONREMOVE"
    on_down: fate, |value: &_| show_fate(*value);

    "PORTMAXCONN" "0"
    "connections of the clients of each port at once, on this host; `0`: no limit"
    max_conn: limit, |value: &_| show_limit(*value);

    "REOPEN" "100%"
    "a pod, port or proxy that is full takes new connections again below this part of its limit"
    reopen: |value, findings: &mut _| percent(1, value, findings), |value: &u8| format!("{value}%");

    "QUEUE" "0"
    "connections of a port that may wait for a place at a pod, in the order in which they came; also, where it is said for all ports, those that wait for MAXCONN; `0`: none waits"
    queue: count, ToString::to_string;

    "QUEUETIMEOUT" "0"
    "longest wait in the queue; `0`: as long as the client waits"
    queue_timeout: |value, findings: &mut _| duration(value, findings).map(unless_off), |value: &Option<_>| show_duration(value.unwrap_or_default());

    "OVERLIMIT" "refuse"
    "a connection over a limit that may not wait, or waited too long: `refuse` resets it, `close` ends it"
    over_limit: over_limit, ToString::to_string;

    "SOURCEMAXCONN" "0"
    "connections at once of one source to each port: `100`, or `100 /24 /64` for networks of this length; `0`: no limit"
    source_max_conn: source_max_conn, |value: &_| show_source_max_conn(*value);

    "SOURCERATE" "0"
    "new connections of one source to each port: `50/s`, `50/s burst=100 /24 /64`; `0`: no limit"
    source_rate: source_rate, |value: &_| show_source_rate(*value);

    "PORTRATE" "0"
    "new connections of each port: `1000/s`, `1000/s burst=2000`; what is over it the kernel refuses; `0`: no limit"
    port_rate: port_rate, |value: &_| show_port_rate(*value);

    "CONNECTTIMEOUT" "3s"
    "longest wait for a connection to a pod"
    connect_timeout: some_duration, |value: &_| show_duration(*value);

    "PEERTIMEOUT" "3s"
    "longest wait for the proxy of another host: connection and answer together"
    peer_timeout: some_duration, |value: &_| show_duration(*value);

    "CLIENTPROXY" "detect private"
    "clients whose PROXY headers are read: `detect` (by the first bytes), `require` or `never`, then the sources: `private` (loopback, this host, RFC 1918, RFC 6598, link-local, unique local) and networks; none: all clients; what other clients send is payload; see [PROXY headers of clients](#proxy-headers-of-clients)"
    client_proxy: client_proxy, ToString::to_string;

    "PROXYWAIT" "1s"
    "how long a client may keep silent before a PROXY header is made for it, where CLIENTPROXY lets it send one; `0` waits not at all"
    proxy_wait: duration, |value: &_| show_duration(*value);

    "FIRSTBYTETIMEOUT" "0"
    "longest wait for a pod's first byte after the client's first one; `0` is off, here and below"
    first_byte_timeout: |value, findings: &mut _| duration(value, findings).map(unless_off), |value: &Option<_>| show_duration(value.unwrap_or_default());

    "IDLETIMEOUT" "0"
    "a connection on which nothing moves for this long is closed"
    idle_timeout: |value, findings: &mut _| duration(value, findings).map(unless_off), |value: &Option<_>| show_duration(value.unwrap_or_default());

    "CLIENTIDLETIMEOUT" "0"
    "a connection whose client sends nothing for this long is closed"
    client_idle_timeout: |value, findings: &mut _| duration(value, findings).map(unless_off), |value: &Option<_>| show_duration(value.unwrap_or_default());

    "UPSTREAMIDLETIMEOUT" "0"
    "a connection whose pod sends nothing for this long is closed"
    upstream_idle_timeout: |value, findings: &mut _| duration(value, findings).map(unless_off), |value: &Option<_>| show_duration(value.unwrap_or_default());

    "LINGERTIMEOUT" "0"
    "how long one direction may stay open when the other one has ended"
    linger_timeout: |value, findings: &mut _| duration(value, findings).map(unless_off), |value: &Option<_>| show_duration(value.unwrap_or_default());

    "MAXLIFETIME" "0"
    "how old a connection may grow: `1h`, or `1h 10%` to end each one up to so much earlier"
    max_lifetime: lifetime, |value: &_| show_lifetime(*value);

    "CLIENTTLS" "none"
    "clients speak TLS, which ends here: a folder (relative to that of proxy.conf) with `cert.pem` and `key.pem`, or `fullchain.pem` and `privkey.pem`, `file:///folder`, `s3://bucket/prefix`, or `ca=FILE cert=FILE key=FILE`; with `ca.pem` or `ca=` clients must show a certificate of this CA; options: `verify=require` (a CA must be there), `optional` or `none`, `alpn=h2,http/1.1`; see [TLS](#tls)"
    client_tls: client_tls, |value: &Option<Arc<_>>| show_client_tls(value.as_deref());

    "UPSTREAMTLS" "none"
    "pods and targets are spoken to in TLS: certificates as for CLIENTTLS, of which `ca.pem` has the trusted CAs, and the other two are shown if they are there; `system` (also `system cert=FILE key=FILE`) trusts the CAs of the system; options: `name=` (asked for by SNI and verified; else the target as written, or its address), `alpn=`, `verify=ca` or `none`"
    upstream_tls: upstream_tls, |value: &Option<Arc<_>>| show_upstream_tls(value.as_deref());

    "TLSTIMEOUT" "10s"
    "longest TLS handshake, with a client or with a pod"
    tls_timeout: some_duration, |value: &_| show_duration(*value);
}
