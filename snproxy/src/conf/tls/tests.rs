use std::path::{Path, PathBuf};

use super::*;
use crate::conf::fixture::read;

#[track_caller]
fn client(text: &str) -> Arc<ClientTls> {
    let (value, found) = read(text, client_tls);
    value.flatten().unwrap_or_else(|| panic!("{found:?}"))
}

#[track_caller]
fn upstream(text: &str) -> Arc<UpstreamTls> {
    let (value, found) = read(text, upstream_tls);
    value.flatten().unwrap_or_else(|| panic!("{found:?}"))
}

#[test]
fn certificates_are_in_a_folder_a_bucket_or_files() {
    let folder = CertSource::Folder("/etc/tls".into());
    assert_eq!(client("/etc/tls").certs, folder);
    assert_eq!(client("file:///etc/tls").certs, folder);
    let s3 = CertSource::S3 {
        bucket: "a-bucket".into(),
        prefix: "some/where".into(),
    };
    assert_eq!(client("s3://a-bucket/some/where/").certs, s3);
    let files = client("ca=/a cert=b key=c=d").certs.clone();
    let said = |path: &str| Some(PathBuf::from(path));
    let expected = CertSource::Files {
        ca: said("/a"),
        cert: said("b"),
        key: said("c=d"),
    };
    assert_eq!(files, expected);
    let mut placed = files;
    placed.beside(Path::new("/etc/snproxy"));
    assert_eq!(
        placed.to_string(),
        "ca=/a cert=/etc/snproxy/b key=/etc/snproxy/c=d"
    );
    assert_eq!(read("none", client_tls).0, Some(None));
}

#[test]
fn what_is_shown_is_what_is_taken() {
    for text in [
        "/etc/tls",
        "s3://bucket/a/b",
        "ca=/a cert=/b key=/c verify=optional alpn=h2,http/1.1",
        "cert=/b key=/c verify=none",
        "cert=/b key=/c",
        "/etc/tls verify=require",
    ] {
        let tls = client(text);
        let shown = show_client_tls(Some(&tls));
        assert_eq!(shown, text);
        assert_eq!(client(&shown), tls);
    }
    for text in [
        "/etc/tls",
        "ca=/a name=db.example verify=none alpn=redis",
        "/etc/tls name=10.0.0.1",
        "verify=none",
        "system",
        "system cert=/b key=/c name=db.example alpn=redis",
    ] {
        let tls = upstream(text);
        let shown = show_upstream_tls(Some(&tls));
        assert_eq!(shown, text);
        assert_eq!(upstream(&shown), tls);
    }
    assert_eq!(show_client_tls(None), "none");
}

#[test]
fn a_lax_check_is_said_aloud() {
    let found = |text| read(text, client_tls).1;
    assert_eq!(found("/etc/tls verify=require"), [""; 0]);
    assert_eq!(
        found("/etc/tls verify=optional"),
        ["proxy.conf:1:17: warning: verify=optional: clients without a certificate are served too"]
    );
    assert_eq!(found("/etc/tls verify=none"), [""; 0]);
    assert_eq!(found("cert=/b key=/c"), [""; 0]);
    assert_eq!(
        found("ca=/a cert=/b key=/c verify=none"),
        ["proxy.conf:1:29: warning: verify=none: the file of ca= has no effect"]
    );
    assert_eq!(
        read("/etc/tls verify=none", upstream_tls).1,
        ["proxy.conf:1:17: warning: verify=none: whoever answers is believed to be the upstream"]
    );
}

#[test]
fn what_is_wrong_is_named() {
    let client = |text| read(text, client_tls).1.join("\n");
    let upstream = |text| read(text, upstream_tls).1.join("\n");
    let place = "expected a folder, file:///folder, s3://bucket/prefix, or ca= cert= key=, found";
    for (found, expected) in [
        (
            client("http://a"),
            format!("1:1: error: {place} `http://a`"),
        ),
        (
            client("file://a/b"),
            format!("1:1: error: {place} `file://a/b`"),
        ),
        (client("s3:///a"), format!("1:1: error: {place} `s3:///a`")),
        (
            client("/a ca=/b"),
            "1:1: error: a place of all three, or the three files: not both".into(),
        ),
        (
            client("ca=/b cert=/c"),
            "1:1: error: key= is missing: which file has it?".into(),
        ),
        (
            client("cert=/b key=/c verify=require"),
            "1:1: error: ca= is missing: which file has it?".into(),
        ),
        (
            client("cert=/b key=/c verify=optional"),
            "1:1: error: ca= is missing: which file has it?".into(),
        ),
        (
            client("system"),
            "1:1: error: expected a folder, s3://bucket/prefix, or ca= cert= key=, found `system`: the CAs of the system are for UPSTREAMTLS and ETCD; a folder of this name is ./system".into(),
        ),
        (
            upstream("cert=/b key=/c"),
            "1:1: error: ca= is missing: which file has it?".into(),
        ),
        (
            upstream("ca=/b key=/c"),
            "1:1: error: cert= is missing: which file has it?".into(),
        ),
        (
            client("ca="),
            "1:1: error: expected a file, found `ca=`".into(),
        ),
        (
            client("/a verify=maybe"),
            "1:11: error: expected require, optional or none, found `maybe`".into(),
        ),
        (
            upstream("/a verify=require"),
            "1:11: error: expected ca or none, found `require`".into(),
        ),
        (
            client("/a name=b"),
            "1:4: error: expected verify= or alpn=, found `name=b`".into(),
        ),
        (
            client("s3:/a"),
            format!("1:1: error: {place} `s3:/a`"),
        ),
        (
            client("none verify=none"),
            "1:1: error: `none` stands alone: a folder of this name is ./none".into(),
        ),
        (
            client("5001"),
            "1:1: error: expected where certificates are, found ports or `5001`: a folder of this name is ./5001".into(),
        ),
        (
            upstream("/a name=b name=c"),
            "1:11: warning: name= is already said: this one counts".into(),
        ),
        (
            upstream("ca=/a ca=/b"),
            "1:7: warning: ca= is already said: this one counts".into(),
        ),
        (
            upstream("/a name=-"),
            "1:9: error: expected a name or an address, found `-`".into(),
        ),
        (
            client("/a b"),
            "1:4: error: expected verify= or alpn=, found `b`".into(),
        ),
        (
            upstream("/a b"),
            "1:4: error: expected verify=, name= or alpn=, found `b`".into(),
        ),
        (
            client("/a alpn=,"),
            "1:9: error: expected 1 to 16 protocols such as h2,http/1.1, found `,`".into(),
        ),
    ] {
        assert_eq!(found, format!("proxy.conf:{expected}"));
    }
}

#[test]
fn system_takes_a_certificate_and_no_ca() {
    let upstream = |text| read(text, upstream_tls).1;
    assert_eq!(
        upstream("system ca=/b"),
        ["proxy.conf:1:1: error: expected `system` or ca=, found both"]
    );
    assert_eq!(
        upstream("system cert=/b"),
        ["proxy.conf:1:1: error: key= is missing: which file has it?"]
    );
}
