//! Many saves and restores while much goes wrong: nothing is lost, nothing is wrong, and nothing fails that another attempt
//! would have saved. `TEKTON_WRAP_SOAK` says how many (1,000 take some minutes), `TEKTON_WRAP_SOAK_SEED` which faults.

use std::{
    env,
    sync::atomic::AtomicU64,
    thread,
    time::{Duration, Instant},
};

use super::*;
use support::{
    certificate::Authority,
    faults::{Chaos, Faults, Patch},
    registry::USER,
    tokens::TokenServer,
};

/// Without the variable.
const FEW: u64 = 48;

const WORKERS: u64 = 4;

/// What the workers count.
#[derive(Default)]
struct Counts {
    stored: AtomicU64,
    damaged: AtomicU64,
}

#[test]
fn saves_and_restores_while_much_goes_wrong() {
    let number = |name: &str, otherwise| env::var(name).map_or(otherwise, |value| value.parse().expect("a number"));
    let (rounds, seed) = (number("TEKTON_WRAP_SOAK", FEW), number("TEKTON_WRAP_SOAK_SEED", 7));
    let authority = Authority::new();
    let tokens = TokenServer::start(&authority);
    tokens.live_for(3);
    let registry = wait_for(Registry::start_with_tokens(&tokens.realm, &authority));
    let fronts: Vec<Faults> = [Patch::Any, Patch::Any, Patch::None, Patch::Pieces]
        .into_iter()
        .zip(1..)
        .map(|(patch, number)| {
            let front = Faults::start(&registry.address);
            front.chaos(Chaos { seed: seed + number, percent: 5, patch });
            front
        })
        .collect();
    let (counts, start) = (Counts::default(), Instant::now());
    let outage = Duration::from_secs(if rounds > FEW { 30 } else { 2 });
    thread::scope(|scope| {
        for worker in 0..WORKERS {
            let (front, counts, fronts) = (&fronts[worker as usize], &counts, &fronts);
            scope.spawn(move || {
                for round in (0..rounds).filter(|round| round % WORKERS == worker) {
                    if round == rounds / 2 {
                        fronts.iter().for_each(|front| front.go_away_for(outage));
                    }
                    one_round(&front.address, round, counts);
                }
            });
        }
    });
    let sent: u64 = fronts.iter().map(Faults::sent).sum();
    let stored = counts.stored.load(Ordering::Relaxed);
    let requests: usize = fronts.iter().map(|front| front.all().len()).sum();
    let again = sent.saturating_sub(stored) * 1000 / stored;
    println!(
        "{rounds} saves and restores, {requests} requests, {} damaged answers found, {stored} bytes stored, {}.{} % sent twice, {:.0} s",
        counts.damaged.load(Ordering::Relaxed),
        again / 10,
        again % 10,
        start.elapsed().as_secs_f64()
    );
    // Few rounds are no average.
    let most = if rounds > FEW { 100 } else { 250 };
    assert!(again <= most, "{again} of 1000 bytes were sent twice");
}

/// Two layers, a config and a manifest are stored, and read again by somebody else.
fn one_round(address: &str, round: u64, counts: &Counts) {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), address, json!({"username": USER.0, "password": USER.1}));
    let patient = RetryPolicy {
        deadline: Duration::from_secs(90),
        first: Duration::from_millis(20),
        longest: Duration::from_millis(500),
    };
    let options = StoreOptions { retry: patient, ..options_with(&config) };
    let repository = format!("soak/{}", round % 7);
    let tag = format!("t{round}");
    let store = open(address, &repository, &options);
    let large = content(
        round,
        if round.is_multiple_of(5) { 9_000_000 } else { 100_000 + (round as usize * 37_123) % 2_000_000 },
    );
    let small = content(round + 1_000_000, (round as usize * 997) % 20_000);
    let layer = put(&*store, &large).unwrap();
    let other = put(&*store, &small).unwrap();
    let config = store.put_bytes(&small).unwrap();
    let bytes = manifest(&config, &layer);
    let digest = store.put_manifest(&tag, MANIFEST, &bytes).unwrap();
    counts.stored.fetch_add((large.len() + small.len() + bytes.len()) as u64, Ordering::Relaxed);
    assert_eq!(other, config);

    let reader = open(address, &repository, &options);
    let found = reader.manifest(&tag).unwrap().unwrap();
    assert_eq!((found.digest, found.bytes), (digest, bytes));
    for (blob, content) in [(layer, large), (config, small)] {
        // Damage is found at the end, when the first bytes are used already: that is for the caller to begin again.
        let read = (0..10).find_map(|_| match get(&*reader, &blob) {
            Ok(read) => Some(read),
            Err(error) => {
                assert!(error.contains("the blob is damaged"), "{error}");
                counts.damaged.fetch_add(1, Ordering::Relaxed);
                None
            }
        });
        assert!(read.unwrap() == content, "round {round}");
    }
}
