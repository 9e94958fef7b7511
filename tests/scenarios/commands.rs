//! Commands with wrong words, the wrong configuration, a full disk, or no process to talk to.

use rustix::process::Signal;
use snproxy_tests::{Host, Net, Pod, eventually};
use std::{
    fs,
    process::{Command, Output},
    time::Duration,
};

const SOON: Duration = Duration::from_secs(20);

fn one_pod(net: &Net) -> (&Host, Pod) {
    let host = net.host("host");
    let pod = host.pod(30000, Pod::echo());
    host.mappings("1024:30000:9:false\n");
    (host, pod)
}

/// Runs snproxy with these words and nothing else, in the folder of its files.
fn run(host: &Host, words: &[&str]) -> Output {
    host.namespace()
        .output(host.command().args(words).current_dir(host.folder()))
}

/// Runs a line of shell in the folder of the files; `$SNPROXY` is the program.
fn shell(host: &Host, line: &str) -> Output {
    let program = host.command().get_program().to_owned();
    let mut shell = Command::new("sh");
    shell.args(["-c", line]).env("SNPROXY", program);
    host.namespace().output(shell.current_dir(host.folder()))
}

#[track_caller]
fn assert_told(output: &Output, code: i32, parts: &[&str]) {
    let told = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(output.status.code(), Some(code), "{told}");
    for part in parts {
        assert!(told.contains(part), "no `{part}` in:\n{told}");
    }
    assert!(!told.contains("panicked"), "{told}");
}

#[test]
fn wrong_words_name_the_right_command() {
    let net = Net::one();
    let (host, _) = one_pod(&net);
    for (words, hint) in [
        (
            &["sttaus"][..],
            "unknown command `sttaus`: did you mean `status`?",
        ),
        (&["sttaus", "--json"], "did you mean `status`?"),
        (
            &["--conf", "proxy.conf", "relaod"],
            "did you mean `reload`?",
        ),
        (&["version"], "did you mean `--version`?"),
        (&["stop"], "TERM"),
        (&["start"], "snproxy --conf FILE"),
        (&["configtest"], "did you mean `check`?"),
    ] {
        let output = run(host, words);
        assert_told(&output, 64, &[hint, "Usage: snproxy", "--help"]);
        assert!(!String::from_utf8_lossy(&output.stderr).contains("no such file"));
    }
    // A file of that name, and what can only be a file.
    fs::copy(host.conf_file(), host.folder().join("sttaus")).expect("copy");
    host.conf("BALANCE", "best");
    assert_told(&run(host, &["check", "sttaus"]), 0, &["sttaus: fine"]);
    assert_told(&run(host, &["check", "proxy.conf"]), 2, &["`best`"]);
    assert_told(
        &run(host, &["none.conf"]),
        2,
        &["no such file", "none.conf"],
    );
    assert_told(&run(host, &["."]), 2, &["a directory: expected a file"]);
    assert_told(&run(host, &["status", "--conf", "."]), 1, &["a directory"]);
    assert_told(&run(host, &["explain", "10z4"]), 64, &["10z4", "<PORT>"]);
}

#[test]
fn default_places_are_tried_and_named() {
    let net = Net::one();
    let (host, _) = one_pod(&net);
    // An /etc of its own.
    let own_etc = "mount -t tmpfs none /etc && mkdir /etc/snproxy && conf=$PWD/proxy.conf && cd /";
    let within = |line: &str| {
        let line = format!("unshare --mount sh -c '{own_etc} && {line}'");
        shell(host, &line)
    };
    let looked = "looked for ./proxy.conf and /etc/snproxy/proxy.conf";
    for command in ["", "status", "check", "reload"] {
        let told = within(&format!("\"$SNPROXY\" {command}"));
        assert_told(&told, 64, &[looked, "Usage: snproxy"]);
    }
    let told = within("cp $conf /etc/snproxy/ && \"$SNPROXY\" check");
    assert_told(&told, 0, &["/etc/snproxy/proxy.conf: fine"]);
}

#[test]
fn full_output_is_an_error_line() {
    let net = Net::one();
    let (host, _) = one_pod(&net);
    host.start();
    let full = "write to standard output: No space left on device";
    for words in [
        "ports",
        "status",
        "routes --json",
        "explain 1024",
        "reload",
        "check",
        "--help",
        "--version",
    ] {
        let line = format!("\"$SNPROXY\" {words} > /dev/full");
        assert_told(&shell(host, &line), 1, &[full]);
        let line = format!("\"$SNPROXY\" {words} 2> /dev/full > /dev/null");
        assert_told(&shell(host, &line), 0, &[]);
    }
    assert_eq!(
        shell(host, "\"$SNPROXY\" sttaus 2> /dev/full")
            .status
            .code(),
        Some(64)
    );
}

#[test]
fn command_reports_the_process_of_another_configuration() {
    let net = Net::one();
    let (host, _) = one_pod(&net);
    host.start();
    let other = host.folder().join("other.conf");
    fs::copy(host.conf_file(), &other).expect("copy");
    let generation = host.status()["generation"].clone();
    let warned = "warning: the process at ";
    let told = run(host, &["status", "--conf", "other.conf"]);
    assert_told(&told, 0, &[warned, "proxy.conf, not with ", "other.conf"]);
    let told = run(host, &["reload", "--conf", "other.conf"]);
    assert_told(&told, 1, &["nothing was done"]);
    assert_eq!(host.status()["generation"], generation);
    // The same file by another path.
    std::os::unix::fs::symlink("proxy.conf", host.folder().join("link.conf")).expect("link");
    let told = run(host, &["reload", "--conf", "link.conf"]);
    assert_told(&told, 0, &["in force"]);
    assert!(!String::from_utf8_lossy(&told.stderr).contains(warned));
    // A typo in PORT or ADMIN leads to no other process.
    for line in ["PORT 3276x", "PROT 32767"] {
        fs::write(&other, line).expect("write");
        let told = run(host, &["status", "--conf", "other.conf"]);
        assert_told(
            &told,
            1,
            &["other.conf:1:", "PORT", "unknown control socket"],
        );
    }
}

#[test]
fn control_socket_comes_back() {
    let net = Net::one();
    let (host, _) = one_pod(&net);
    let socket = host.folder().join("admin.sock");
    // In the way at the start.
    fs::write(&socket, "precious").expect("write");
    host.start();
    assert!(host.log().contains("no control socket"));
    assert_eq!(fs::read_to_string(&socket).expect("untouched"), "precious");
    fs::remove_file(&socket).expect("remove");
    let answers = || run(host, &["status"]).status.success();
    eventually(SOON, "an answer", answers);
    for _ in 0..2 {
        fs::remove_file(&socket).expect("remove");
        assert!(!answers());
        eventually(SOON, "an answer again", answers);
    }
    // Another file in its place stays, and is reported once.
    fs::remove_file(&socket).expect("remove");
    fs::write(&socket, "precious").expect("write");
    let warning = "failed to bind the control socket again";
    eventually(SOON, "the warning", || host.log().contains(warning));
    assert_eq!(fs::read_to_string(&socket).expect("untouched"), "precious");
    fs::remove_file(&socket).expect("remove");
    eventually(SOON, "an answer after all", answers);
    assert_eq!(host.log().matches(warning).count(), 1);
    host.stop();
    assert!(!socket.exists());
}

#[test]
fn status_check_has_an_exit_code_for_each_condition() {
    let net = Net::one();
    let (host, _pod) = one_pod(&net);
    assert_told(&run(host, &["status", "--check"]), 1, &["does snproxy run"]);
    host.start();
    assert_told(&run(host, &["status", "--check"]), 0, &["ok\n"]);
    let live = host.open(1024);
    host.mappings("");
    let code = |words: &[&str], expected: i32| {
        eventually(SOON, "the exit code", || {
            run(host, words).status.code() == Some(expected)
        });
    };
    code(&["status", "--check"], 6);
    code(&["status", "--check=draining,pending"], 0);
    host.mappings("nonsense\n");
    code(&["status", "--check"], 5);
    code(&["status", "--check=mappings"], 6);
    code(&["status", "--check", "--json"], 5);
    host.mappings("1024:30000:9:false\n");
    code(&["status", "--check"], 0);
    host.signal(Signal::TERM);
    code(&["status", "--check"], 3);
    drop(live);
}

#[test]
fn pending_port_has_an_exit_code() {
    let net = Net::one();
    let (host, _pod) = one_pod(&net);
    // A user without rights opens no port below 1024.
    host.conf("STEERING", "listeners")
        .conf("CLUSTERPORTS", "80,1024")
        .mappings("80:30000:9:false\n")
        .as_user(1000, &[])
        .start();
    let check = run(host, &["status", "--check"]);
    assert_told(&check, 4, &["pending: ", "80"]);
    host.mappings("1024:30000:9:false\n");
    eventually(SOON, "no port is pending", || {
        run(host, &["status", "--check"]).status.success()
    });
}

#[test]
fn log_has_no_colors_if_the_environment_says_so() {
    let net = Net::one();
    let (host, _) = one_pod(&net);
    host.conf("HOST", "127.0.0.1").hosts("");
    let log = |variables: &str| {
        let line = format!(
            "script -qec \"env {variables} timeout -s TERM 3 $SNPROXY --conf proxy.conf\" /dev/null"
        );
        let output = shell(host, &line);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("ready: "), "{text}");
        text
    };
    assert!(log("-u NO_COLOR TERM=xterm").contains('\u{1b}'));
    for variables in ["NO_COLOR=1 TERM=xterm", "-u NO_COLOR TERM=dumb"] {
        assert!(!log(variables).contains('\u{1b}'), "{variables}");
    }
}
