//! Everything that was measured to take a replica down, 8 requests at a time for a minute, beside 20 honest reviews a second:
//! `cargo bench --bench abuse` prints what became of it. The webhook is a process of its own; all traffic is on the loopback
//! interface, and all of it ends with the bench.

use std::{
    collections::BTreeMap,
    io::Write,
    net::TcpStream,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use stand::Stand;

#[path = "../../tests/abuse/corpus.rs"]
mod corpus;
#[path = "../../tests/abuse/stand.rs"]
mod stand;

/// How long it goes on, in seconds; the variable `ABUSE_SECONDS` says otherwise.
const SECONDS: u64 = 60;

/// Attacks at a time.
const AT_A_TIME: usize = 8;

/// Between two honest reviews.
const PAUSE: Duration = Duration::from_millis(50);

fn main() {
    let seconds = std::env::var("ABUSE_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(SECONDS);
    let mut stand = Stand::start();
    let idle_memory = stand.memory().1;
    let (attacks, honest) = (corpus::attacks(), corpus::honest());
    let next = AtomicUsize::new(0);
    let (took, reviews, probes) = (Mutex::new(BTreeMap::new()), Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    let failed = Mutex::new(Vec::new());
    let end = Instant::now() + Duration::from_secs(seconds);
    let goes_on = || Instant::now() < end;
    thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                while goes_on() {
                    let (name, review) = &attacks[next.fetch_add(1, Relaxed) % attacks.len()];
                    let start = Instant::now();
                    let answer = stand.review(review);
                    let outcome = match &answer {
                        Ok((200, body)) => reason(body),
                        Ok((status, _)) => status.to_string(),
                        Err(error) => error.kind().to_string(),
                    };
                    took.lock().unwrap().entry((*name, outcome)).or_insert_with(Vec::new).push(start.elapsed());
                }
            });
        }
        // Slow bodies, and connections to the port of probes that ask nothing.
        scope.spawn(|| {
            while goes_on() {
                let streams: Vec<_> = (0..30).filter_map(|_| {
                    let mut stream = stand.connect().ok()?;
                    let head = "POST /wrap?timeout=30s HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 4000000\r\n\r\n";
                    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&[b' '; 900_000]));
                    Some(stream)
                }).collect();
                thread::sleep(Duration::from_secs(2).min(end.saturating_duration_since(Instant::now())));
                drop(streams);
            }
        });
        scope.spawn(|| {
            let mut open = Vec::new();
            while goes_on() {
                open = (0..1024).filter_map(|_| TcpStream::connect(stand.admin).ok()).collect();
                thread::sleep(Duration::from_secs(1));
            }
            drop(open);
        });
        scope.spawn(|| {
            while goes_on() {
                match stand.probe() {
                    Ok(time) => probes.lock().unwrap().push(time),
                    Err(error) => failed.lock().unwrap().push(format!("probe: {error}")),
                }
                thread::sleep(Duration::from_millis(100));
            }
        });
        let mut begin = Instant::now();
        while goes_on() {
            scope.spawn(|| {
                let start = Instant::now();
                match stand.review(&honest) {
                    Ok((200, body)) if body.contains(r#""allowed":true"#) => {
                        reviews.lock().unwrap().push(start.elapsed())
                    }
                    other => failed.lock().unwrap().push(format!("honest: {other:?}").chars().take(300).collect()),
                }
            });
            begin += PAUSE;
            thread::sleep(begin.saturating_duration_since(Instant::now()));
        }
    });
    println!("{:<40} {:<16} {:>6} {:>10} {:>10}", "attack", "outcome", "times", "median", "longest");
    for ((name, outcome), mut times) in took.into_inner().unwrap() {
        let (median, longest) = (at(&mut times, 50), at(&mut times, 100));
        println!("{name:<40} {outcome:<16} {:>6} {median:>10.1?} {longest:>10.1?}", times.len());
    }
    let (mut reviews, mut probes) = (reviews.into_inner().unwrap(), probes.into_inner().unwrap());
    let (peak, now) = stand.memory();
    println!(
        "\nmemory (RSS): {} MiB idle, {} MiB at its peak (96), {} MiB at the end",
        idle_memory >> 10,
        peak >> 10,
        now >> 10
    );
    println!(
        "honest reviews: {} in {seconds} s, p50 {:.1?}, p99 {:.1?} (1 s), longest {:.1?}",
        reviews.len(),
        at(&mut reviews, 50),
        at(&mut reviews, 99),
        at(&mut reviews, 100)
    );
    println!(
        "/livez: {} times, p50 {:.1?}, longest {:.1?} (200 ms)",
        probes.len(),
        at(&mut probes, 50),
        at(&mut probes, 100)
    );
    let failed = failed.into_inner().unwrap();
    println!("failed: {}; still the same process: {}", failed.len(), stand.is_alive());
    failed.iter().take(5).for_each(|failure| println!("  {failure}"));
}

/// The reason of a refusal.
fn reason(body: &str) -> String {
    if body.contains(r#""allowed":true"#) {
        return "wrapped".to_owned();
    }
    let reason = body.split_once(r#""reason":""#).and_then(|(_, rest)| rest.split_once('"'));
    reason.map_or("?".to_owned(), |(reason, _)| reason.to_owned())
}

fn at(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    times.get((times.len().saturating_sub(1)) * percent / 100).copied().unwrap_or_default()
}
