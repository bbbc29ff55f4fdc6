//! A short version of `cargo bench --bench abuse`: one round of the corpus, four at a time, and generous bounds on memory.

mod corpus;
mod stand;

use std::{
    io::{ErrorKind, Write},
    sync::Mutex,
    thread,
};

use stand::Stand;

/// Of a debug build, on a machine that does other things too. The bench has the true figure.
const MAX_KIB: u64 = 192 << 10;

/// Below this many bytes a review never waits for a place among the large ones, and is always read to its end.
const LARGE: usize = 256 << 10;

fn is_cut_off(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)
}

#[test]
fn one_round_of_the_corpus_stays_within_its_memory() {
    let mut stand = Stand::start();
    // Slow bodies, and connections that ask nothing, stay meanwhile.
    let mut slow = Vec::new();
    for _ in 0..30 {
        let mut stream = stand.connect().expect("a connection");
        let head = "POST /wrap?timeout=30s HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 4000000\r\n\r\n";
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&[b' '; 100_000]));
        slow.push(stream);
    }
    let idle: Vec<_> = (0..200).map(|_| std::net::TcpStream::connect(stand.admin)).collect();
    let attacks = Mutex::new(corpus::attacks());
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let next = attacks.lock().expect("no thread panicked in it").pop();
                    let Some((name, review)) = next else { return };
                    match stand.review(&review) {
                        Ok((status, answer)) => assert!([200, 413, 503].contains(&status), "{name}: {answer}"),
                        // A large one may be turned away while it is still being sent: whoever sends then sees the
                        // connection end, and may see it before the answer.
                        Err(error) => assert!(review.len() > LARGE && is_cut_off(&error), "{name}: {error}"),
                    }
                }
            });
        }
    });
    let (status, answer) = stand.review(&corpus::honest()).expect("an answer");
    assert!(status == 200 && answer.contains(r#""allowed":true"#), "{answer}");
    stand.probe().expect("a probe is answered");
    let (peak, _) = stand.memory();
    assert!(stand.is_alive() && peak < MAX_KIB, "{} MiB", peak >> 10);
    drop((slow, idle));
}
