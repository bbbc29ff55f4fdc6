//! This program's registry client, oci-client and crane with the same images, the same registry and the same faults:
//! `cargo bench --bench registry_client`. See [`USAGE`] for options.
//!
//! Each push and pull is a process of its own, so that its memory is the client's. The images are those that this program
//! makes of the trees S and B of `benches/peers`; pulls write the blobs into a folder, unpacked by nobody.

mod clients;
mod faults;
mod gate;
mod image;
#[path = "../peers/measure.rs"]
mod measure;
mod oci;
mod ours;
#[path = "../peers/registry.rs"]
mod registry;
#[path = "../peers/table.rs"]
mod table;
#[expect(dead_code, reason = "two of its trees are used here")]
#[path = "../peers/tree.rs"]
mod tree;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clients::{CLIENTS, Client, Work};
use gate::Gate;
use image::Layout;
use measure::Sample;
use registry::Registry;
use support::faults::Faults;

const USAGE: &str = "\
cargo bench --bench registry_client [-- OPTIONS]
  --rounds N     instead of 5
  --quick        trees of a tenth
  --dir DIR      where trees, images and the registry are (/dev/shm)
  --save FILE    the raw results, one line each
  --only PARTS   of S, B, faults, with commas between";

/// What a request takes longer in the rows for that.
const DELAY: Duration = Duration::from_millis(20);

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    if let [first, client, work, operands @ ..] = &args[..]
        && first == "--client"
    {
        return clients::run(client, work, operands);
    }
    if let Some(unknown) = unknown(&args) {
        eprintln!("{unknown:?} is no option, or has no value.\n{USAGE}");
        return ExitCode::from(2);
    }
    let value = |name: &str| args.iter().position(|arg| arg == name).and_then(|i| args.get(i + 1));
    let quick = args.iter().any(|arg| arg == "--quick");
    let rounds = value("--rounds").map_or(5, |n| n.parse().expect("--rounds N"));
    let dir = value("--dir").map_or("/dev/shm", |dir| dir);
    let dir = PathBuf::from(format!("{dir}/tekton-wrap-bench.{}", std::process::id()));
    let among = |name: &str| value("--only").is_none_or(|list| list.split(',').any(|one| one == name));

    let mut bench = Bench::new(dir);
    for (name, make) in [("S", tree::small as fn(&Path, u64)), ("B", tree::large)] {
        if among(name) {
            bench.image(name, rounds, |tree| make(tree, if quick { 10 } else { 1 }));
        }
    }
    let head = measure::machine(quick, rounds);
    if let Some(file) = value("--save") {
        let lines: Vec<String> = bench.samples.iter().map(Sample::to_json).collect();
        fs::write(file, format!("{head}\n{}\n", lines.join("\n"))).expect("the results are written");
    }
    println!("{head}\n");
    if !bench.samples.is_empty() {
        println!("{}\n{}", table::table(&bench.samples), bench.requests.join("\n"));
    }
    if among("faults") {
        println!("\n{}", faults::table(&bench.dir));
    }
    ExitCode::SUCCESS
}

/// The first argument that means nothing.
fn unknown(args: &[String]) -> Option<&String> {
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let is_known = match arg.as_str() {
            "--quick" => true,
            "--rounds" | "--dir" | "--save" | "--only" => args.next().is_some(),
            _ => false,
        };
        if !is_known {
            return Some(arg);
        }
    }
    None
}

struct Bench {
    dir: PathBuf,
    registry: Registry,
    samples: Vec<Sample>,
    /// Lines about the requests that were counted.
    requests: Vec<String>,
}

impl Bench {
    fn new(dir: PathBuf) -> Self {
        fs::create_dir_all(dir.join("registry")).expect("the folder is made");
        let registry = Registry::start(dir.to_str().expect("UTF-8"), &registry::asset("registry"));
        Self { dir, registry, samples: Vec::new(), requests: Vec::new() }
    }

    /// All clients with the image of one tree.
    fn image(&mut self, name: &str, rounds: usize, make: impl Fn(&Path)) {
        let (tree, layout) = (self.dir.join(name), self.dir.join(format!("{name}.image")));
        make(&tree);
        let layout = Layout::save(&tree, &layout);
        fs::remove_dir_all(&tree).expect("the tree is removed");
        let sizes: Vec<String> = layout.blobs.layers.iter().map(|l| format!("{:.1}", l.size as f64 / 1e6)).collect();
        self.requests.push(format!("\n{name}: {} layers of {} MB\n", sizes.len(), sizes.join(", ")));

        let near = self.registry.address.clone();
        let far = Gate::start(&near, |_| {
            std::thread::sleep(DELAY);
            None
        });
        for round in 0..rounds {
            for turn in 0..CLIENTS.len() {
                let client = &CLIENTS[(turn + round) % CLIENTS.len()];
                self.push_and_pull(client, name, "", &layout, &near);
                let suffix = format!(", {} ms later each", DELAY.as_millis());
                self.push_and_pull(client, name, &suffix, &layout, &far.address);
            }
        }
        for client in CLIENTS {
            self.count(client, name, &layout);
        }
        fs::remove_dir_all(&layout.dir).expect("the image is removed");
    }

    fn push_and_pull(&mut self, client: &Client, name: &str, suffix: &str, layout: &Layout, host: &str) {
        self.registry.wipe();
        let out = self.dir.join("out");
        fs::create_dir_all(&out).expect("a folder is made");
        let image = format!("{host}/bench:v1");
        for (row, work) in [("push", Work::Push { layout: &layout.dir }), ("pull", Work::Pull { out: &out })] {
            let before = self.registry.stored();
            let sample = measure::run(client.command(&work, &image, &self.dir));
            let sent = self.registry.stored() - before;
            let row = format!("{row} {name}{suffix}");
            let sample = Sample { tool: client.name.to_owned(), row, sent, ..sample };
            eprintln!("{}", sample.to_json());
            self.samples.push(sample);
        }
        fs::remove_dir_all(&out).expect("a folder is removed");
    }

    /// Counts requests, in a turn of its own, since it takes time.
    fn count(&mut self, client: &Client, name: &str, layout: &Layout) {
        self.registry.wipe();
        let out = self.dir.join("out");
        fs::create_dir_all(&out).expect("a folder is made");
        for (row, work) in [("push", Work::Push { layout: &layout.dir }), ("pull", Work::Pull { out: &out })] {
            let counter = Faults::start(&self.registry.address);
            measure::run(client.command(&work, &format!("{}/bench:v1", counter.address), &self.dir));
            let mut methods = BTreeMap::new();
            for head in counter.all() {
                *methods.entry(head.method().to_owned()).or_insert(0) += 1;
            }
            let total: usize = methods.values().sum();
            let methods: Vec<String> = methods.into_iter().map(|(method, count)| format!("{count} {method}")).collect();
            self.requests.push(format!("- {row} {name}, {}: {total} requests ({})", client.name, methods.join(", ")));
        }
        fs::remove_dir_all(&out).expect("a folder is removed");
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}
