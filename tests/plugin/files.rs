//! `cp`, `cat`, `ls`, `diff`, `list` and `describe`: what they show, and how little they read for it.

use std::{collections::BTreeMap, fs, path::Path};

use crate::stand::{Stand, files};

const RUN: &str = r#"
apiVersion: tekton.dev/v1
kind: PipelineRun
metadata: {name: NAME}
spec:
  pipelineSpec:
    workspaces: [{name: w}]
    tasks:
    - name: one
      workspaces: [{name: w}]
      taskSpec:
        workspaces: [{name: w}]
        steps:
        - name: s
          image: sh
          script: |
            cd $(workspaces.w.path)
            mkdir -p dir/sub; echo a > dir/a; echo b > dir/sub/b; chmod 0755 dir/sub/b; ln -s a dir/link; ln dir/a dir/hard
            for n in 1 2 3 4 5 6 7 8; do head -c 5000000 /dev/urandom > large$n; done
    - name: two
      runAfter: [one]
      workspaces: [{name: w}]
      taskSpec:
        workspaces: [{name: w}]
        steps: [{name: s, image: sh, script: "cd $(workspaces.w.path); echo changed > dir/a; rm large8; EXIT"}]
"#;

fn run(name: &str, target: &str, exit: &str) -> String {
    let annotations = format!("annotations: {{tekton-wrap.dev/wrap: w, tekton-wrap.dev/target: {target}}}");
    RUN.replace("metadata: {name: NAME}", &format!("metadata: {{name: {name}, {annotations}}}")).replace("EXIT", exit)
}

/// Bytes of the answers to GET requests about `repository`, as the registry logged them.
fn served(stand: &Stand, repository: &str) -> u64 {
    let field =
        |line: &str, name: &str| Some(line.split_once(name)?.1.split([' ', '"']).find(|s| !s.is_empty())?.to_owned());
    let log = stand.registry.log();
    let answers = log.lines().filter(|line| {
        line.contains("response completed") && line.contains("http.request.method=GET") && line.contains(repository)
    });
    answers.filter_map(|line| field(line, "http.response.written=")?.parse::<u64>().ok()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_any_task() {
    let stand = Stand::new().await;
    let target = |name: &str| format!("${{REGISTRY}}/files/{name}:done");
    let (_, outcome) = stand.start(&run("r", &target("r"), "true")).await;
    assert_eq!(outcome.failure, None, "{}", outcome.full_log());

    assert_eq!(stand.prints(&["cat", "r:w/dir/a", "r/one:w/dir/a", "r:w/dir/sub/b"]), "changed\na\nb\n");
    let before = served(&stand, "files/r");
    fs::create_dir(stand.path("out")).unwrap();
    assert_eq!(
        stand.prints(&["cp", "r/one:w/large3", "r:w/large5", "out"]),
        "1 file to out/large3\n1 file to out/large5\n"
    );
    let read = served(&stand, "files/r") - before;
    let copied = files(&stand.path("out"));
    assert_eq!(copied.values().map(Vec::len).collect::<Vec<_>>(), [5_000_000, 5_000_000]);
    assert_ne!(copied[Path::new("large3")], copied[Path::new("large5")]);
    // Random bytes don't compress: this is what the two files take there. The tables, manifests and configs are small.
    assert!(read < 2 * 10_000_000, "{read} bytes were read of 40 MB");

    // A folder, with modes and links, under a new name; and a whole workspace.
    stand.prints(&["cp", "r/one:w/dir", "copy"]);
    let small = |dir: &str| -> BTreeMap<_, _> {
        files(&stand.path(dir)).into_iter().filter(|(path, _)| !path.to_string_lossy().contains("large")).collect()
    };
    let expected = [("a", "a\n"), ("hard", "a\n"), ("link", "a\n"), ("sub/b", "b\n")];
    assert_eq!(small("copy"), expected.map(|(path, text)| (path.into(), text.as_bytes().to_vec())).into());
    assert!(stand.path("copy/link").is_symlink());
    let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(stand.path("copy/sub/b")).unwrap());
    assert_eq!(mode & 0o777, 0o755);
    stand.prints(&["cp", "r:w", "whole"]);
    assert_eq!(fs::read_to_string(stand.path("whole/dir/a")).unwrap(), "changed\n");
    assert!(stand.path("whole/large7").exists() && !stand.path("whole/large8").exists());

    let names = |listed: String| -> Vec<String> {
        listed.lines().map(|line| line.split_whitespace().nth(3).unwrap().to_owned()).collect()
    };
    assert_eq!(names(stand.prints(&["ls", "r/one:w/dir"])), ["dir/a", "dir/hard", "dir/link", "dir/sub/"]);
    assert_eq!(names(stand.prints(&["ls", "-R", "r:w/dir/sub/"])), ["dir/sub/b"]);
    let listed = stand.prints(&["ls", "r:w/dir/sub/b"]);
    assert!(listed.starts_with("-rwxr-xr-x ") && listed.ends_with(" 2 dir/sub/b\n"), "{listed}");
    let diff = stand.prints(&["diff", "r", "one", "two"]);
    assert!(diff.contains("M dir/a  2 B -> 8 B\n") && diff.contains("D large8  -5.0 MB\n"), "{diff}");

    for (args, says) in [
        (&["cat", "r:w/absent"][..], "r:w/absent: there is no such file: tkn wrap ls lists what there is"),
        (&["cat", "r:w/dir"], "r:w/dir: it is not a file"),
        (&["ls", "r:v"], r#"run "r" has no wrapped workspace "v": it has "w""#),
        (&["ls", "r/three:w"], r#"no task "three" of run "r" saves workspace "w"; those that save are "one", "two""#),
        (&["cp", "r:w/dir/a", "r:w/dir/sub", "absent"], "absent is no folder that exists: several sources need one"),
    ] {
        assert_eq!(stand.refuses(args), says, "{args:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn listed_and_described() {
    let stand = Stand::new().await;
    let namespace = &stand.namespace.name;
    let empty = stand.call(&["list"]);
    assert!(
        empty.succeeded && empty.out.is_empty() && empty.said.contains("no wrapped runs in namespace"),
        "{empty:?}"
    );
    let target = "${REGISTRY}/listed:$(context.pipelineRun.name)";
    let (_, outcome) = stand.start(&run("r", &format!("'{target}'"), "exit 3")).await;
    assert!(outcome.failure.is_some());

    let list = stand.prints(&["list"]);
    let row: Vec<&str> = list.lines().nth(1).unwrap().split_whitespace().collect();
    assert!(list.starts_with("NAME  STATUS  AGE") && row[..2] == ["r", "Failed"] && row[3..] == ["60s", "w"], "{list}");
    let image = format!("{}/listed:r", stand.registry.address);
    assert!(stand.prints(&["list", "-o", "wide"]).contains(&image));
    assert!(stand.prints(&["list", "-A"]).contains(namespace));
    assert_eq!(stand.prints(&["list", "-o", "name"]), "pipelinerun.tekton.dev/r\n");
    for form in ["json", "yaml"] {
        assert_eq!(crate::stand::parsed(&stand.prints(&["list", "-o", form]))["items"][0]["metadata"]["name"], "r");
    }

    let described = stand.prints(&["describe", "r"]);
    for says in [
        &format!("r in namespace {namespace}: Failed, created "),
        "task two failed: step \"s\" exited with code 3\n",
        "TASK  STATUS     DURATION\none   Succeeded  9s\ntwo   Failed     9s\n",
        "workspace w:\n",
        &image,
    ] {
        assert!(described.contains(says), "{says}\n{described}");
    }
    let wide = stand.prints(&["describe", "r", "-o", "wide"]);
    let row = wide.lines().find(|line| line.starts_with("one ")).unwrap();
    assert_eq!(row.split_whitespace().collect::<Vec<_>>(), ["one", "Succeeded", "9s", "2s", "1s", "r-one-pod"]);
    assert_eq!(stand.prints(&["describe", "r", "-o", "name"]), "pipelinerun.tekton.dev/r\n");
    let json: serde_json::Value = serde_json::from_str(&stand.prints(&["describe", "r", "-o", "json"])).unwrap();
    assert_eq!(json["tasks"][1]["failure"], "step \"s\" exited with code 3");
    // A task that failed left nothing.
    for args in
        [&["cat", "r/two:w/dir/a"][..], &["ls", "r/two:w"], &["cp", "r/two:w", "x"], &["diff", "r", "one", "two"]]
    {
        let refused = stand.refuses(args);
        let says = [
            r#"task "two" of run "r" left nothing of workspace "w" at "#,
            ": it has not succeeded, or its snapshot was pruned or has expired; tkn wrap describe r shows how it is",
        ];
        assert!(says.iter().all(|says| refused.contains(says)), "{args:?}: {refused}");
    }
    // As Tekton has it, the save step failed too: it was skipped.
    let like = serde_json::json!({"apiVersion": "tekton.dev/v1", "kind": "TaskRun"});
    let step = |name: &str, code: u8, why: &str| {
        serde_json::json!({"name": name, "container": format!("step-{name}"), "terminationReason": why,
            "terminated": {"exitCode": code, "startedAt": "2026-01-01T00:00:11Z", "finishedAt": "2026-01-01T00:00:12Z"}})
    };
    let steps = [
        step("tekton-wrap-restore", 0, "Completed"),
        step("lint", 1, "Continued"),
        step("s", 3, "Error"),
        step("tekton-wrap-save", 1, "Skipped"),
    ];
    stand.set_status(&like, "r-two", serde_json::json!({"steps": steps})).await;
    let wide = stand.prints(&["describe", "r", "-o", "wide"]);
    assert!(wide.contains("task two failed: step \"s\" exited with code 3\n"), "{wide}");
    let row = wide.lines().find(|line| line.starts_with("two ")).unwrap();
    assert_eq!(row.split_whitespace().collect::<Vec<_>>(), ["two", "Failed", "9s", "1s", "-", "r-two-pod"]);
    assert_eq!(json["workspaces"][0]["tasks"][0]["added"]["files"], 12);
}
