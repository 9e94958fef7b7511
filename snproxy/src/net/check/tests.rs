use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;

use super::*;

const LIMIT: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(200);
const PING: Question<'_> = Question {
    header: None,
    send: b"PING\r\n",
    expect: b"+PONG",
};

/// What a check comes to of a server that does this with its one connection.
fn checked(
    question: Question<'_>,
    limit: Duration,
    serve: impl FnOnce(TcpStream) + Send + 'static,
) -> Result<(), CheckError> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let serving = thread::spawn(move || serve(listener.accept().unwrap().0));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let checked = runtime.block_on(check(addr, Options::default(), None, question, limit));
    serving.join().unwrap();
    checked
}

fn answering(answer: &'static [u8]) -> impl FnOnce(TcpStream) + Send {
    move |mut stream| {
        let mut asked = [0; 6];
        stream.read_exact(&mut asked).unwrap();
        assert_eq!(&asked, b"PING\r\n");
        stream.write_all(answer).unwrap();
        let _ = stream.shutdown(Shutdown::Write);
        let _ = stream.read(&mut [0]);
    }
}

#[test]
fn an_answer_that_begins_as_expected_is_enough() {
    assert!(checked(PING, LIMIT, answering(b"+PONG\r\n")).is_ok());
    assert!(checked(PING, LIMIT, answering(b"+PONG")).is_ok());
    let long = vec![b'+'; 4 * MAX_ANSWER];
    let plus = Question {
        header: None,
        send: b"",
        expect: b"++",
    };
    let flood = move |mut stream: TcpStream| drop(stream.write_all(&long));
    assert!(checked(plus, LIMIT, flood).is_ok());
}

#[test]
fn an_answer_in_pieces_is_put_together() {
    let piecewise = |mut stream: TcpStream| {
        for byte in b"+PONG" {
            stream.write_all(&[*byte]).unwrap();
            thread::sleep(Duration::from_millis(5));
        }
        let _ = stream.read(&mut [0; 16]);
    };
    assert!(checked(PING, LIMIT, piecewise).is_ok());
}

#[test]
fn another_answer_is_told_with_its_beginning() {
    let error = checked(PING, LIMIT, answering(b"-LOADING dataset\r\n")).unwrap_err();
    assert!(matches!(error, CheckError::Other { .. }), "{error}");
    assert!(
        error
            .to_string()
            .ends_with("than expected, but `-LOADING dataset\\r\\n`"),
        "{error}"
    );
    assert_eq!(error.upstream_lives(PING), Some(false));
}

#[test]
fn a_close_or_a_reset_in_place_of_an_answer_is_a_failure() {
    let error = checked(PING, LIMIT, answering(b"+PO")).unwrap_err();
    assert!(matches!(error, CheckError::Closed { .. }), "{error}");
    let resetting = |stream: TcpStream| {
        let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    };
    let error = checked(PING, LIMIT, resetting).unwrap_err();
    assert_eq!(error.upstream_lives(PING), Some(false), "{error}");
}

#[test]
fn silence_ends_at_the_limit_though_the_kernel_accepts() {
    let silent = |mut stream: TcpStream| {
        let _ = stream.read_to_end(&mut Vec::new());
    };
    let error = checked(PING, SHORT, silent).unwrap_err();
    assert!(matches!(error, CheckError::Timeout { .. }), "{error}");
    assert!(error.to_string().ends_with("no answer in 200ms"), "{error}");
}

#[test]
fn a_connection_is_all_that_a_plain_check_asks_for() {
    let plain = Question {
        header: None,
        send: b"PROXY UNKNOWN\r\n",
        expect: b"",
    };
    assert!(checked(plain, LIMIT, drop).is_ok());
    assert!(checked(Question::default(), LIMIT, drop).is_ok());
}

#[test]
fn where_nobody_listens_the_upstream_is_dead() {
    let addr = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let error = runtime
        .block_on(check(
            addr,
            Options::default(),
            None,
            Question::default(),
            LIMIT,
        ))
        .unwrap_err();
    assert_eq!(
        error.upstream_lives(Question::default()),
        Some(false),
        "{error}"
    );
}
