//! What becomes of a push or a pull when something goes wrong.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

use super::{
    clients::{CLIENTS, Client, Outcome, Work, log_in},
    gate::Gate,
    image::Layout,
};
use support::{
    certificate::Authority,
    faults::{Fault, Faults},
    http::Head,
    registry::Registry,
    tokens::TokenServer,
};

/// What there is to try with: an image with a layer of 10 MB, a registry for everybody, and one that wants tokens.
struct Lab {
    dir: PathBuf,
    layout: Layout,
    open: Registry,
    guarded: Registry,
    tokens: TokenServer,
    count: AtomicUsize,
}

/// How a client fared.
struct Cell {
    text: String,
    /// What it said.
    error: Option<String>,
}

type Situation = fn(&Lab, &Client) -> Cell;

const SITUATIONS: &[(&str, Situation)] = &[
    ("429 with `Retry-After: 1` when an upload begins", |lab, client| {
        let later = Fault::Answer("429 Too Many Requests", vec![("Retry-After", "1".to_owned())], Vec::new());
        lab.push(client, |faults| {
            faults.on("POST", "/uploads/", 1, later);
        })
    }),
    ("429 with `Retry-After: 1` to a download", |lab, client| {
        let later = Fault::Answer("429 Too Many Requests", vec![("Retry-After", "1".to_owned())], Vec::new());
        lab.pull(client, |faults| {
            faults.on("GET", &lab.layer(), 1, later);
        })
    }),
    ("503 to the manifest", |lab, client| {
        let busy = Fault::Answer("503 Service Unavailable", Vec::new(), Vec::new());
        lab.push(client, |faults| {
            faults.on("PUT", "/manifests/", 1, busy);
        })
    }),
    ("connection reset in the middle of an upload", |lab, client| {
        lab.push(client, |faults| {
            faults.on(client.sends_by, "/uploads/", 1, Fault::CutRequest(2_000_000));
        })
    }),
    ("the answer to a finished upload is lost", |lab, client| {
        lab.push(client, |faults| {
            faults.on("PUT", "digest=", 1, Fault::LoseAnswer);
        })
    }),
    ("connection reset in the middle of a download", |lab, client| {
        lab.pull(client, |faults| {
            faults.on("GET", &lab.layer(), 1, Fault::CutAnswer(2_000_000));
        })
    }),
    ("one bit of a download is wrong", |lab, client| {
        let cell = lab.pull(client, |faults| {
            faults.on("GET", &lab.layer(), 1, Fault::FlipAnswer(2_000_000));
        });
        match cell.error {
            Some(_) => Cell { text: "found".to_owned(), ..cell },
            None => Cell { text: "**not found**".to_owned(), ..cell },
        }
    }),
    ("a token that has expired when it is given", |lab, client| {
        lab.log_in(&lab.guarded.address);
        lab.tokens.expire_next(1);
        let cell = lab.end(client, &lab.layout_work(), &lab.image(&lab.guarded.address));
        lab.tokens.expire_next(0);
        cell
    }),
    ("a token that is refused in the middle of an upload", |lab, client| {
        let faults = Faults::start(&lab.guarded.address);
        lab.log_in(&faults.address);
        let challenge = format!("Bearer realm=\"{}\",service=\"test\",error=\"invalid_token\"", lab.tokens.realm);
        let refused = Fault::Answer("401 Unauthorized", vec![("WWW-Authenticate", challenge)], Vec::new());
        faults.on(client.sends_by, "/uploads/", 1, refused);
        lab.end(client, &lab.layout_work(), &lab.image(&faults.address))
    }),
    ("mount from a repository, with tokens", |lab, client| {
        let faults = Faults::start(&lab.guarded.address);
        lab.log_in(&faults.address);
        let from = lab.stored(&faults.address);
        let before = faults.all().len();
        let cell = lab.end(client, &Work::Copy { from: &from }, &lab.image(&faults.address));
        let sends = |head: &Head| head.method() != "POST" && head.target().contains("/uploads/");
        let sent = faults.all()[before..].iter().filter(|head| sends(head)).count();
        cell.with(if sent == 0 { "mounted" } else { "not mounted, sent again" })
    }),
    ("mount answered with 202", |lab, client| {
        let gate = Gate::start(&lab.open.address, |head| {
            let address = head.target().to_owned();
            if let Some((path, query)) = address.split_once('?')
                && query.contains("mount=")
            {
                head.first = head.first.replace(&address, path);
            }
            None
        });
        lab.log_out();
        let from = lab.stored(&gate.address);
        let posts = gate.seen("POST", "/uploads/");
        let cell = lab.end(client, &Work::Copy { from: &from }, &lab.image(&gate.address));
        let mounts = gate.seen("POST", "mount=");
        let begun = gate.seen("POST", "/uploads/") - posts;
        let cancelled = gate.seen("DELETE", "/uploads/");
        cell.with(match begun {
            _ if mounts == 0 => "copied without trying to mount",
            _ if begun == mounts => "copied in the upload that was begun",
            _ if cancelled >= mounts => "copied, the upload that was begun is cancelled",
            _ => "copied, the upload that was begun **stays open**",
        })
    }),
    ("DELETE of a manifest", |lab, client| {
        if client.is_oci_client() {
            return Cell { text: "no such call".to_owned(), error: None };
        }
        lab.log_out();
        let image = lab.stored(&lab.open.address);
        let digest = tekton_wrap::digest::Digest::of(&lab.layout.blobs.manifest).to_string();
        lab.end(client, &Work::Delete { digest: &digest }, &image)
    }),
    ("`Location` of an upload on another host", |lab, client| {
        let (registry, storage) = (Faults::start(&lab.open.address), Faults::start(&lab.open.address));
        let gate = Gate::with_user(&registry.address);
        lab.log_in(&gate.address);
        let host = storage.address.replace("127.0.0.1", "localhost");
        registry.on("POST", "/uploads/", 2, Fault::MoveLocation(host));
        let cell = lab.end(client, &lab.layout_work(), &lab.image(&gate.address));
        cell.with(credentials(&storage))
    }),
    ("redirect of a download to another host", |lab, client| {
        let (registry, storage) = (Faults::start(&lab.open.address), Faults::start(&lab.open.address));
        let gate = Gate::with_user(&registry.address);
        lab.log_in(&gate.address);
        let image = lab.stored(&gate.address);
        let repository = image.split_once('/').and_then(|(_, rest)| rest.split_once(':')).expect("an image").0;
        let host = storage.address.replace("127.0.0.1", "localhost");
        let location = format!("http://{host}/v2/{repository}{}", lab.layer());
        registry.on(
            "GET",
            &lab.layer(),
            1,
            Fault::Answer("307 Temporary Redirect", vec![("Location", location)], vec![]),
        );
        let out = lab.out();
        lab.end(client, &Work::Pull { out: &out }, &image).with(credentials(&storage))
    }),
];

/// What the other host was shown.
fn credentials(storage: &Faults) -> &'static str {
    match storage.all() {
        all if all.is_empty() => "**it was not asked**",
        all if all.iter().any(|head| head.header("authorization").is_some()) => "it gets **the credentials**",
        _ => "it gets no credentials",
    }
}

/// All situations with all clients.
pub fn table(dir: &Path) -> String {
    let lab = Lab::new(dir);
    let names: Vec<&str> = CLIENTS.iter().map(|client| client.name).collect();
    let mut text = format!("| | {} |\n|---|{}\n", names.join(" | "), "---|".repeat(names.len()));
    let mut errors = String::new();
    for (what, situation) in SITUATIONS {
        eprintln!("{what}");
        let cells: Vec<Cell> = CLIENTS.iter().map(|client| situation(&lab, client)).collect();
        let texts: Vec<&str> = cells.iter().map(|cell| &*cell.text).collect();
        let _ = writeln!(text, "| {what} | {} |", texts.join(" | "));
        for (client, cell) in CLIENTS.iter().zip(cells) {
            if let Some(error) = cell.error {
                let words: Vec<&str> =
                    error.split(' ').map(|w| w.split_once("?_state=").map_or(w, |(w, _)| w)).collect();
                let error: String = words.join(" ").chars().take(300).collect();
                let _ = writeln!(errors, "- {what}, {}: {error}", client.name);
            }
        }
    }
    format!("{text}\nWhat those said that failed:\n\n{errors}")
}

impl Lab {
    fn new(dir: &Path) -> Self {
        let dir = dir.join("faults");
        let tree = dir.join("tree");
        fs::create_dir_all(&tree).expect("a folder is made");
        let mut state = 1_u64;
        let noise = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        });
        fs::write(tree.join("file"), noise.take(10_000_000).collect::<Vec<u8>>()).expect("a file is written");
        let layout = Layout::save(&tree, &dir.join("image"));
        let authority = Authority::new();
        let tokens = TokenServer::start(&authority);
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let (open, guarded) = runtime.block_on(async {
            (Registry::start().await, Registry::start_with_tokens(&tokens.realm, &authority).await)
        });
        Self { dir, layout, open, guarded, tokens, count: AtomicUsize::new(0) }
    }

    /// A push through `spoil`'s faults.
    fn push(&self, client: &Client, spoil: impl FnOnce(&Faults)) -> Cell {
        let faults = Faults::start(&self.open.address);
        self.log_out();
        spoil(&faults);
        self.end(client, &self.layout_work(), &self.image(&faults.address))
    }

    /// A pull through `spoil`'s faults.
    fn pull(&self, client: &Client, spoil: impl FnOnce(&Faults)) -> Cell {
        let faults = Faults::start(&self.open.address);
        self.log_out();
        let image = self.stored(&faults.address);
        spoil(&faults);
        let before = faults.seen("GET", &self.layer()).len();
        let out = self.out();
        let cell = self.end(client, &Work::Pull { out: &out }, &image);
        let asked = faults.seen("GET", &self.layer());
        match asked[before..].iter().any(|head| head.header("range").is_some()) {
            true => cell.with("goes on from there"),
            false => cell,
        }
    }

    fn end(&self, client: &Client, work: &Work<'_>, image: &str) -> Cell {
        let Outcome { ok, seconds, said } = client.tries(work, image, &self.dir);
        let text = match ok {
            true => format!("ok, {seconds:.1} s"),
            false => "**fails**".to_owned(),
        };
        Cell { text, error: (!ok).then_some(said) }
    }

    /// An image that is already stored.
    fn stored(&self, host: &str) -> String {
        let image = self.image(host);
        let stored = CLIENTS[0].tries(&self.layout_work(), &image, &self.dir);
        assert!(stored.ok, "{}", stored.said);
        image
    }

    /// A new image for each call.
    fn image(&self, host: &str) -> String {
        format!("{host}/faults/repo-{}:v1", self.count.fetch_add(1, Ordering::Relaxed))
    }

    /// A new folder for each call.
    fn out(&self) -> PathBuf {
        let out = self.dir.join(format!("out-{}", self.count.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir_all(&out).expect("a folder is made");
        out
    }

    fn layout_work(&self) -> Work<'_> {
        Work::Push { layout: &self.layout.dir }
    }

    /// A part of the addresses of the layer.
    fn layer(&self) -> String {
        format!("/blobs/{}", self.layout.blobs.layers[0].digest)
    }

    fn log_in(&self, host: &str) {
        log_in(&self.dir, host);
    }

    fn log_out(&self) {
        let _ = fs::remove_file(self.dir.join("config.json"));
    }
}

impl Cell {
    /// With a remark.
    fn with(self, remark: &str) -> Self {
        match self.error {
            None => Self { text: format!("{}; {remark}", self.text), ..self },
            Some(_) => self,
        }
    }
}
