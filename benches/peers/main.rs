//! Speed, memory and bytes sent beside the tools that one would use instead, on the same trees, the same registry and the
//! same machine, interleaved: `cargo bench --bench peers`. See [`USAGE`] for options.

mod measure;
mod registry;
mod stores;
mod table;
mod tree;

use std::{fs, path::Path, process::Command};

use measure::{Sample, run};
use registry::Registry;
use stores::Stores;
use tekton_wrap::workspace;

/// What a tool does with the tree `$TREE`, the image `$IMAGE`, a folder `$TMP` of its own and a new, empty folder `$OUT`.
struct Peer {
    name: &'static str,
    /// The variable that says where the image is.
    image: &'static str,
    save: &'static str,
    restore: &'static str,
}

const PEERS: &[Peer] = &[
    Peer {
        name: "tekton-wrap",
        image: "IMAGE",
        save: r#""$SELF" --step save "$IMAGE" 0 "$TREE" "$TMP/new""#,
        restore: r#""$SELF" --step restore "$IMAGE" 1 "$OUT" "$TMP/state""#,
    },
    Peer {
        name: "crane",
        image: "IMAGE",
        save: r#"tar -C "$TREE" -cf - . | "$CRANE" append --insecure -f - -t "$IMAGE:crane""#,
        restore: r#""$CRANE" export --insecure "$IMAGE:crane" - | tar -C "$OUT" -xf -"#,
    },
    Peer {
        name: "oras",
        image: "IMAGE",
        save: r#"cd "$TREE/.." && "$ORAS" push --no-tty --plain-http "$IMAGE:oras" "${TREE##*/}""#,
        restore: r#""$ORAS" pull --no-tty --plain-http -o "$OUT" "$IMAGE:oras""#,
    },
    Peer {
        name: "tar+zstd+oras",
        image: "IMAGE",
        save: r#"tar -C "$TREE" -cf - . | zstd -q -1 -T2 -o "$TMP/a.zst"; "$ORAS" blob push --no-tty --plain-http "$IMAGE" "$TMP/a.zst" | sed -n "s/^Digest: //p" >"$TMP/digest"; rm "$TMP/a.zst""#,
        restore: r#""$ORAS" blob fetch --plain-http -o - "$IMAGE@$(cat "$TMP/digest")" | zstd -dc | tar -C "$OUT" -xf -"#,
    },
    Peer { name: "cp -a", image: "IMAGE", save: "", restore: r#"cp -a "$TREE/." "$OUT""# },
];

/// With the other stores, only where they are asked for (`--tools stores`): `$…_IMAGE` is where each is.
const WITH_STORES: &[Peer] = &[
    with_store("tekton-wrap, dir", "DIR_IMAGE"),
    with_store("tekton-wrap, s3", "S3_IMAGE"),
    with_store("tekton-wrap, gs", "GS_IMAGE"),
    with_store("tekton-wrap, rsync", "RSYNC_IMAGE"),
    Peer {
        name: "rsync -a",
        image: "RSYNC_IMAGE",
        save: r#"rsync -a --mkpath "$TREE/" "$IMAGE/tree/""#,
        restore: r#"rsync -a "$IMAGE/tree/" "$OUT""#,
    },
    Peer {
        name: "rclone, s3",
        image: "S3_IMAGE",
        save: r#""$RCLONE" sync --transfers 16 --links "$TREE" "s3:${IMAGE#s3://}/tree""#,
        restore: r#""$RCLONE" sync --transfers 16 --links "s3:${IMAGE#s3://}/tree" "$OUT""#,
    },
];

const fn with_store(name: &'static str, image: &'static str) -> Peer {
    Peer {
        name,
        image,
        save: r#""$SELF" --step save "$IMAGE" 0 "$TREE" "$TMP/new""#,
        restore: r#""$SELF" --step restore "$IMAGE" 1 "$OUT" "$TMP/state""#,
    }
}

const USAGE: &str = "\
cargo bench --bench peers [-- OPTIONS]
  --quick        trees of a tenth, 3 rounds
  --rounds N     instead of 5
  --dir DIR      where the trees and the registry are (/dev/shm)
  --save FILE    the raw results, one line each
  --only PARTS   of S, B, M, chain, cache, with commas between
  --tools NAMES  as the table has them, with commas between; `stores` for all that go to other stores, of which what
                 servers hold lies below TMPDIR";

/// How many tasks follow each other in the row for that.
const CHAIN: u32 = 30;

struct Bench {
    dir: String,
    registry: Registry,
    stores: Option<Stores>,
    samples: Vec<Sample>,
    env: Vec<(&'static str, String)>,
    /// The variable that says where the image of the next command is.
    image: &'static str,
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    if let [step, what, image, order, dir, state] = &args[..]
        && step == "--step"
    {
        return one_step(what, image, order.parse().expect("a number"), dir, state);
    }
    if let [step, what, image, run, dir, state] = &args[..]
        && step == "--cache"
    {
        return cache_step(what, image, run, dir, state);
    }
    if let Some(unknown) = unknown(&args) {
        eprintln!("{unknown:?} is no option, or has no value.\n{USAGE}");
        std::process::exit(2);
    }
    let value = |name: &str| args.iter().position(|arg| arg == name).and_then(|i| args.get(i + 1));
    let quick = args.iter().any(|arg| arg == "--quick");
    let rounds = value("--rounds").map_or(if quick { 3 } else { 5 }, |n| n.parse().expect("--rounds N"));
    let scale = if quick { 10 } else { 1 };
    let dir = value("--dir").map_or("/dev/shm", |dir| dir).to_owned();
    let dir = format!("{dir}/tekton-wrap-bench.{}", std::process::id());

    let among = |option: &str, name: &str| value(option).is_none_or(|list| list.split(',').any(|one| one == name));
    let mut peers: Vec<&Peer> = PEERS.iter().filter(|peer| among("--tools", peer.name)).collect();

    let mut bench = Bench::new(dir);
    if value("--tools").is_some_and(|tools| tools.split(',').any(|one| one == "stores")) {
        bench.start_stores();
        let env = &bench.env;
        let is_here = |peer: &&Peer| {
            let has = |name: &str| env.iter().any(|(known, _)| *known == name);
            has(peer.image) && (!peer.save.contains("$RCLONE") || has("RCLONE"))
        };
        peers.extend(WITH_STORES.iter().filter(is_here));
    }
    for (name, make) in [("S", tree::small as fn(&Path, u64)), ("B", tree::large), ("M", tree::many)] {
        let (alone, chain) = (among("--only", name), name == "S" && among("--only", "chain"));
        if !alone && !chain {
            continue;
        }
        let tree = format!("{}/{name}", bench.dir);
        make(Path::new(&tree), scale);
        for round in 0..if alone { rounds } else { 0 } {
            for i in 0..peers.len() {
                let peer = peers[(i + round) % peers.len()];
                // This tree is there for the memory that we take.
                if name != "M" || (peer.name == PEERS[0].name && round == 0) {
                    bench.peer(peer, name, &tree);
                }
            }
        }
        if chain {
            bench.chain(&tree, rounds);
        }
        fs::remove_dir_all(&tree).expect("the tree is removed");
    }
    if among("--only", "cache") {
        let tree = format!("{}/C", bench.dir);
        tree::packages(Path::new(&tree), scale);
        for round in 0..rounds {
            // The one with which a cache is an archive.
            let mut both: Vec<&Peer> =
                peers.iter().filter(|peer| [PEERS[0].name, "tar+zstd+oras"].contains(&peer.name)).copied().collect();
            let count = both.len();
            both.rotate_left(round % count.max(1));
            both.into_iter().for_each(|peer| bench.cache(peer, &tree));
        }
    }
    let head = measure::machine(quick, rounds);
    if let Some(file) = value("--save") {
        let lines: Vec<String> = bench.samples.iter().map(Sample::to_json).collect();
        fs::write(file, format!("{head}\n{}\n", lines.join("\n"))).expect("the results are written");
    }
    println!("{head}\n\n{}", table::table(&bench.samples));
}

/// The first argument that means nothing.
fn unknown(args: &[String]) -> Option<&String> {
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let is_known = match arg.as_str() {
            "--quick" => true,
            "--rounds" | "--dir" | "--save" | "--only" | "--tools" => args.next().is_some(),
            _ => false,
        };
        if !is_known {
            return Some(arg);
        }
    }
    None
}

impl Bench {
    fn new(dir: String) -> Self {
        fs::create_dir_all(format!("{dir}/registry")).expect("the folder is made");
        let registry = Registry::start(&dir, &registry::asset("registry"));
        let own = std::env::current_exe().expect("it has a path").display().to_string();
        let env = vec![("SELF", own), ("CRANE", registry::asset("crane")), ("ORAS", registry::asset("oras"))];
        let env = [env, vec![("IMAGE", format!("{}/bench", registry.address))]].concat();
        Self { dir, registry, stores: None, samples: Vec::new(), env, image: "IMAGE" }
    }

    fn start_stores(&mut self) {
        let stores = Stores::start(&self.dir);
        self.env.extend(stores.env());
        self.env.extend(support::assets::built("rclone").map(|path| ("RCLONE", path.display().to_string())));
        self.stores = Some(stores);
    }

    /// Bytes of all that is stored anywhere.
    fn stored(&self) -> u64 {
        self.registry.stored() + self.stores.as_ref().map_or(0, Stores::stored)
    }

    fn peer(&mut self, peer: &Peer, name: &str, tree: &str) {
        let tmp = format!("{}/tmp", self.dir);
        fs::create_dir_all(format!("{tmp}/state")).expect("a folder is made");
        fs::create_dir_all(format!("{tmp}/new")).expect("a folder is made");
        self.registry.wipe();
        self.stores.iter().for_each(Stores::wipe);
        self.image = peer.image;
        if !peer.save.is_empty() {
            self.step(peer.name, &format!("save {name}"), peer.save, tree);
        }
        let out = self.step(peer.name, &format!("restore {name}"), peer.restore, tree);
        if peer.name.starts_with("tekton-wrap") {
            let save = r#""$SELF" --step save "$IMAGE" 1 "$TREE" "$TMP/state""#;
            self.step(peer.name, &format!("save {name} unchanged"), save, &out);
            if name == "S" {
                tree::edit(Path::new(&out), 100, 1);
                self.step(peer.name, "save S, 1 % changed", save, &out);
            }
        }
        for dir in [&tmp, &out] {
            fs::remove_dir_all(dir).expect("a folder is removed");
        }
    }

    /// What one run leaves, what the next one restores, and what that one leaves after one file in a hundred changed.
    fn cache(&mut self, peer: &Peer, tree: &str) {
        let tmp = format!("{}/tmp", self.dir);
        fs::create_dir_all(format!("{tmp}/state")).expect("a folder is made");
        self.registry.wipe();
        let [save, restore, again] = if peer.name == PEERS[0].name {
            // The first run finds none.
            let empty = self.plain(r#""$SELF" --cache restore "$IMAGE" 1 "$OUT" "$TMP/state""#, tree);
            fs::remove_dir_all(empty).expect("a folder is removed");
            [
                r#""$SELF" --cache save "$IMAGE" 1 "$TREE" "$TMP/state""#,
                r#""$SELF" --cache restore "$IMAGE" 2 "$OUT" "$TMP/state""#,
                r#""$SELF" --cache save "$IMAGE" 2 "$TREE" "$TMP/state""#,
            ]
        } else {
            [peer.save, peer.restore, peer.save]
        };
        self.step(peer.name, "save cache", save, tree);
        let out = self.step(peer.name, "restore cache", restore, tree);
        tree::edit(Path::new(&out), 100, 1);
        self.step(peer.name, "save cache, 1 % changed", again, &out);
        for dir in [&tmp, &out] {
            fs::remove_dir_all(dir).expect("a folder is removed");
        }
    }

    /// A tree that one task made, and one that each of thirty tasks changed a thirtieth of, restored in turn.
    fn chain(&mut self, tree: &str, rounds: usize) {
        let tmp = format!("{}/tmp", self.dir);
        self.registry.wipe();
        self.image = "IMAGE";
        let mut work = tree.to_owned();
        for order in 0..=CHAIN {
            let state = format!("{tmp}/state");
            fs::create_dir_all(&state).expect("a folder is made");
            if order > 0 {
                let restore = format!(r#""$SELF" --step restore "$IMAGE" {order} "$OUT" "$TMP/state""#);
                let made = self.plain(&restore, tree);
                if work != tree {
                    fs::remove_dir_all(&work).expect("a folder is removed");
                }
                work = format!("{}/work", self.dir);
                fs::rename(made, &work).expect("a folder is renamed");
                tree::edit(Path::new(&work), CHAIN.into(), order.into());
            }
            let save = format!(r#""$SELF" --step save "$IMAGE" {order} "$TREE" "$TMP/state""#);
            self.plain(&save, &work);
            fs::remove_dir_all(&state).expect("a folder is removed");
        }
        fs::remove_dir_all(&work).expect("a folder is removed");
        for _ in 0..rounds {
            for (row, order) in [("restore S, one task", 1), ("restore S, 30 tasks", CHAIN + 1)] {
                fs::create_dir_all(format!("{tmp}/state")).expect("a folder is made");
                let restore = format!(r#""$SELF" --step restore "$IMAGE" {order} "$OUT" "$TMP/state""#);
                let out = self.step("tekton-wrap", row, &restore, tree);
                fs::remove_dir_all(&out).expect("a folder is removed");
                fs::remove_dir_all(&tmp).expect("a folder is removed");
            }
        }
    }

    /// Runs `script` and keeps what it took. Returns the folder `$OUT`.
    fn step(&mut self, tool: &str, row: &str, script: &str, tree: &str) -> String {
        let before = self.stored();
        let (sample, out) = self.command(script, tree);
        let sent = self.stored() - before;
        let sample = Sample { tool: tool.to_owned(), row: row.to_owned(), sent, ..sample };
        eprintln!("{}", sample.to_json());
        self.samples.push(sample);
        out
    }

    fn plain(&self, script: &str, tree: &str) -> String {
        self.command(script, tree).1
    }

    fn command(&self, script: &str, tree: &str) -> (Sample, String) {
        let out = format!("{}/out", self.dir);
        fs::create_dir_all(&out).expect("a folder is made");
        let mut command = Command::new("bash");
        command.args(["-c", &format!("set -euo pipefail; {script}")]).envs(self.env.iter().cloned());
        command.env("TREE", tree).env("OUT", &out).env("TMP", format!("{}/tmp", self.dir));
        let image = self.env.iter().find(|(name, _)| *name == self.image).map(|(_, image)| image.as_str());
        command.env("IMAGE", image.unwrap_or_default());
        (run(command), out)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// What an injected step does in a process of its own: the task at `order` comes after the one before it.
fn one_step(what: &str, image: &str, order: u32, dir: &str, state: &str) {
    let after = match order.checked_sub(1) {
        Some(before) if what == "restore" => format!(r#","after":[{{"task":"t{before}","order":{before}}}]"#),
        _ => String::new(),
    };
    let step = format!(
        r#"{{"run":"bench","task":"t{order}","order":{order},
            "workspaces":[{{"name":"ws","path":"{dir}","target":"{image}:target"{after}}}]}}"#
    );
    perform(what, &step, state);
}

/// The same of a task whose workspace is a cache, which each run has another key for.
fn cache_step(what: &str, image: &str, run: &str, dir: &str, state: &str) {
    let cache = format!(r#"{{"target":"{image}","key":"key-{run}","restoreKeys":["key-"],"order":0}}"#);
    let step = format!(
        r#"{{"run":"{run}","task":"t","order":64,
            "workspaces":[{{"name":"ws","path":"{dir}","target":"{image}:target","caches":[{cache}]}}]}}"#
    );
    perform(what, &step, state);
}

fn perform(what: &str, step: &str, state: &str) {
    let step = serde_json::from_str(step).expect("a configuration");
    let state = Path::new(state);
    let done = match what {
        "save" => workspace::save_task(step, state).map(drop),
        _ => workspace::restore_task(step, state),
    };
    done.unwrap_or_else(|error| panic!("{error}"));
}
