//! `inspect` of images in a registry: what it shows, and how little it reads.

use std::process::Command;

use super::*;

fn program(args: &[&str]) -> (bool, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_tekton-wrap")).args(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

/// Bytes of the answers to GET requests about `repository`, as the registry logged them.
fn served(repository: &str) -> u64 {
    let field =
        |line: &str, name: &str| Some(line.split_once(name)?.1.split([' ', '"']).find(|s| !s.is_empty())?.to_owned());
    let log = REGISTRY.log();
    let answers = log.lines().filter(|line| {
        line.contains("response completed") && line.contains("http.request.method=GET") && line.contains(repository)
    });
    answers.filter_map(|line| field(line, "http.response.written=")?.parse::<u64>().ok()).sum()
}

#[test]
fn no_layer_is_downloaded() {
    let folder = tempfile::tempdir().unwrap();
    let (repository, dir) = (repository(), folder.path().join("dir"));
    let image = |tag: &str| format!("{}/{repository}:{tag}", REGISTRY.address);
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("large"), content(5, 20 << 20)).unwrap();
    let (dir, baseline) = (dir.to_str().unwrap(), folder.path().join("state"));
    let again = folder.path().join("again");
    assert!(program(&["save", dir, &image("one")]).0);
    assert!(program(&["restore", &image("one"), again.to_str().unwrap(), "--baseline", baseline.to_str().unwrap()]).0);
    fs::write(again.join("small"), "small").unwrap();
    assert!(program(&["save", again.to_str().unwrap(), &image("two"), "--baseline", baseline.to_str().unwrap()]).0);

    let before = served(&repository);
    let (succeeded, report, _) = program(&["inspect", &image("two"), "-o", "json"]);
    assert!(succeeded);
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["total"]["files"], 2);
    assert_eq!(report["total"]["bytes"], (20 << 20) + 5);
    assert_eq!(report["tasks"][1]["added"], json!({"files": 1, "bytes": 5}));
    let (_, listed, _) = program(&["inspect", "--diff", &image("one"), &image("two")]);
    assert!(listed.starts_with("A small  +5 B\n"), "{listed}");
    let read = served(&repository) - before;
    assert!((1..20_000).contains(&read), "{read} bytes were read");
}

#[test]
fn what_is_not_there() {
    let image = format!("{}/{}:typo", REGISTRY.address, repository());
    let (succeeded, out, error) = program(&["inspect", &image]);
    assert!(!succeeded && out.is_empty());
    assert_eq!(error, format!("tekton-wrap: {image}: there is no such image\n"));
}
