//! A short version of `cargo bench --bench abuse`: one round of the corpus, four at a time, and generous bounds on memory.

mod corpus;
mod stand;

use std::{io::Write, sync::Mutex, thread};

use stand::Stand;

/// Of a debug build, on a machine that does other things too. The bench has the true figure.
const MAX_KIB: u64 = 192 << 10;

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
                    // Also one that is turned away while it is still being sent gets an answer.
                    let (status, answer) = stand.review(&review).unwrap_or_else(|error| panic!("{name}: {error}"));
                    assert!([200, 413, 503].contains(&status), "{name}: {answer}");
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
