//! Downloads against a small server in this process.

use std::{
    io::{BufRead, BufReader},
    net::TcpListener,
    thread::JoinHandle,
};

use super::*;
use crate::libtorch::pins::Take;

const CONTENT: &[u8] = b"0123456789abcdef";

fn sample(sha256: &'static str) -> Wheel {
    Wheel {
        project: "sample",
        file: "sample.whl",
        sha256,
        bytes: 16,
        take: Take::Library("x"),
    }
}

/// Answers one request by the given rule and returns the request's head.
fn serve(answer: fn(&str) -> Vec<u8>) -> (String, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/sample.whl", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let head: Vec<String> = BufReader::new(stream.try_clone().unwrap())
            .lines()
            .map(Result::unwrap)
            .take_while(|line| !line.is_empty())
            .collect();
        let head = head.join("\n").to_lowercase();
        stream.write_all(&answer(&head)).unwrap();
        head
    });
    (url, server)
}

fn answer(status: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn agent() -> Agent {
    Agent::config_builder().build().new_agent()
}

#[test]
fn a_part_is_taken_up_where_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    let part = folder.path().join("sample.part");
    std::fs::write(&part, &CONTENT[..10]).unwrap();
    let (url, server) = serve(|_| answer("206 Partial Content", &CONTENT[10..]));
    resume(&agent(), &url, &part, &sample("")).unwrap();
    assert!(server.join().unwrap().contains("range: bytes=10-"));
    assert_eq!(std::fs::read(&part).unwrap(), CONTENT);
}

#[test]
fn a_server_without_ranges_starts_over() {
    let folder = tempfile::tempdir().unwrap();
    let part = folder.path().join("sample.part");
    std::fs::write(&part, b"wrong").unwrap();
    let (url, server) = serve(|_| answer("200 OK", CONTENT));
    resume(&agent(), &url, &part, &sample("")).unwrap();
    server.join().unwrap();
    assert_eq!(std::fs::read(&part).unwrap(), CONTENT);
}

#[test]
fn a_download_that_ends_early_says_how_far_it_came() {
    let folder = tempfile::tempdir().unwrap();
    let part = folder.path().join("sample.part");
    let (url, server) = serve(|_| answer("200 OK", &CONTENT[..4]));
    let error = resume(&agent(), &url, &part, &sample("")).unwrap_err().to_string();
    server.join().unwrap();
    assert!(error.contains("4 of 16 bytes"), "{error}");
}

#[test]
fn digests_are_those_of_sha256() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    std::fs::write(&path, b"abc").unwrap();
    assert_eq!(
        digest(&path).unwrap(),
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
}
