//! A server of S3 on a host: moto, which checks signatures and policies.

use crate::{Namespace, Process, eventually};
use std::{
    io::Write,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

const START: Duration = Duration::from_secs(30);
const PORT: u16 = 9000;
const REGION: &str = "eu-central-1";
/// The one bucket that the user of the credentials may read and write.
const BUCKET: &str = "certificates";
/// A bucket of others.
const FORBIDDEN: &str = "forbidden";
const POLICY: &str = r#"{"Version": "2012-10-17", "Statement": [{"Effect": "Allow",
    "Action": "s3:*", "Resource": ["arn:aws:s3:::certificates", "arn:aws:s3:::certificates/*"]}]}"#;

/// A server of S3 that listens on loopback, and the credentials of its one user.
///
/// It has two buckets: `certificates`, and `forbidden`, of which the user may do nothing.
pub struct S3 {
    moto: Process,
    addr: SocketAddr,
    id: String,
    secret: String,
}

impl S3 {
    /// Starts it in this namespace.
    #[track_caller]
    pub fn start(namespace: &Namespace) -> Self {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT));
        let program = program();
        let mut command = Command::new(&program);
        command.args(["-H", "127.0.0.1", "-p", &PORT.to_string()]);
        // Python's buffer would keep its lines from a scenario that fails.
        command.env("PYTHONUNBUFFERED", "1");
        let moto = namespace.server("moto", &mut command, PORT);
        let mut server = Self {
            moto,
            addr,
            id: String::new(),
            secret: String::new(),
        };
        eventually(START, "moto answers", || {
            let asked = server.curl(namespace, &["/moto-api/data.json"], b"");
            asked.is_ok()
        });
        for bucket in [BUCKET, FORBIDDEN] {
            server.must(namespace, &["-X", "PUT", &format!("/{bucket}")]);
        }
        server.identity(namespace, &[("Action", "CreateUser")]);
        let policy = [
            ("Action", "PutUserPolicy"),
            ("PolicyName", "read"),
            ("PolicyDocument", POLICY),
        ];
        server.identity(namespace, &policy);
        let key = server.identity(namespace, &[("Action", "CreateAccessKey")]);
        server.id = element(&key, "AccessKeyId");
        server.secret = element(&key, "SecretAccessKey");
        // From now on each request is checked.
        let words = [
            "-H",
            "Content-Type: text/plain",
            "--data",
            "0",
            "/moto-api/reset-auth",
        ];
        server.must(namespace, &words);
        server
    }

    /// What an S3 client is told by its environment.
    pub fn variables(&self) -> [(&'static str, String); 4] {
        [
            ("AWS_ACCESS_KEY_ID", self.id.clone()),
            ("AWS_SECRET_ACCESS_KEY", self.secret.clone()),
            ("AWS_REGION", REGION.to_owned()),
            ("AWS_ENDPOINT_URL_S3", format!("http://{}", self.addr)),
        ]
    }

    /// Puts an object into the bucket `certificates`.
    #[track_caller]
    pub fn put(&self, namespace: &Namespace, key: &str, bytes: impl AsRef<[u8]>) {
        self.signed(namespace, &["-T", "-", &format!("/{BUCKET}/{key}")], bytes);
    }

    #[track_caller]
    pub fn delete(&self, namespace: &Namespace, key: &str) {
        let object = format!("/{BUCKET}/{key}");
        self.signed(namespace, &["-X", "DELETE", &object], b"");
    }

    /// What the server has been asked and has answered, a line each.
    pub fn log(&self) -> String {
        self.moto.log()
    }

    /// By curl, whose signatures are none of ours either.
    #[track_caller]
    fn signed(&self, namespace: &Namespace, words: &[&str], body: impl AsRef<[u8]>) {
        let user = format!("{}:{}", self.id, self.secret);
        let sign = format!("aws:amz:{REGION}:s3");
        let mut all = vec!["--user", &user, "--aws-sigv4", &sign];
        all.extend(["-H", "x-amz-content-sha256: UNSIGNED-PAYLOAD"]);
        all.extend(words);
        self.curl(namespace, &all, body.as_ref())
            .unwrap_or_else(|error| panic!("curl {words:?}: {error}"));
    }

    /// Asks the part that knows users; it tells the parts apart by what a request was signed for.
    #[track_caller]
    fn identity(&self, namespace: &Namespace, fields: &[(&str, &str)]) -> String {
        let signed = "Authorization: AWS4-HMAC-SHA256 \
             Credential=none/20260101/us-east-1/iam/aws4_request, SignedHeaders=host, Signature=none";
        let mut words = vec!["-H".to_owned(), signed.to_owned()];
        let common = [("UserName", "tester"), ("Version", "2010-05-08")];
        for (name, value) in common.iter().chain(fields) {
            words.extend(["--data-urlencode".to_owned(), format!("{name}={value}")]);
        }
        words.push("/".to_owned());
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        self.must(namespace, &words)
    }

    #[track_caller]
    fn must(&self, namespace: &Namespace, words: &[&str]) -> String {
        self.curl(namespace, words, b"")
            .unwrap_or_else(|error| panic!("curl {words:?}: {error}"))
    }

    /// The last word is the path.
    fn curl(&self, namespace: &Namespace, words: &[&str], body: &[u8]) -> Result<String, String> {
        let (path, words) = words.split_last().expect("a path");
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--fail-with-body"])
            .args(["--max-time", "20", "--noproxy", "*"])
            .args(words)
            .arg(format!("http://{}{path}", self.addr))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = namespace.spawn(&mut curl).map_err(|e| e.to_string())?;
        let mut input = child.stdin.take().expect("a pipe");
        // Few kibibytes, which a pipe takes at once.
        let _ = input.write_all(body);
        drop(input);
        let output = child.wait_with_output().map_err(|e| e.to_string())?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() {
            Ok(text(&output.stdout))
        } else {
            Err(text(&output.stdout) + &text(&output.stderr))
        }
    }
}

fn program() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = tests.join("../target/tools/s3/bin/moto_server");
    assert!(
        program.is_file(),
        "{} is not there (`cargo xtask test` installs what scenarios need)",
        program.display()
    );
    program
}

#[track_caller]
fn element(xml: &str, name: &str) -> String {
    let inside = xml
        .split_once(&format!("<{name}>"))
        .and_then(|(_, rest)| rest.split_once(&format!("</{name}>")));
    match inside {
        Some((inside, _)) => inside.to_owned(),
        None => panic!("no {name} in {xml}"),
    }
}
