//! `-o`: what is listed for people is there for programs too.

use serde_json::{Value, json};

use crate::stand::{Stand, parsed};

const RUN: &str = r#"
apiVersion: tekton.dev/v1
kind: PipelineRun
metadata:
  name: r
  annotations: {tekton-wrap.dev/wrap: "a,b", tekton-wrap.dev/target: "${REGISTRY}/forms:$(context.pipelineRun.name)-$(workspace)"}
spec:
  pipelineSpec:
    workspaces: [{name: a}, {name: b}]
    tasks:
    - name: one
      workspaces: [{name: a}, {name: b}]
      taskSpec:
        workspaces: [{name: a}, {name: b}]
        steps: [{name: s, image: sh, script: "cd $(workspaces.a.path); mkdir dir; echo 1 > dir/x; chmod 0644 dir/x; cp dir/x $(workspaces.b.path)/y"}]
    - name: two
      runAfter: [one]
      workspaces: [{name: a}, {name: b}]
      taskSpec:
        workspaces: [{name: a}, {name: b}]
        steps: [{name: s, image: sh, script: "cd $(workspaces.a.path); echo two > dir/x; rm $(workspaces.b.path)/y"}]
"#;

#[tokio::test(flavor = "multi_thread")]
async fn files_in_all_forms() {
    let stand = Stand::new().await;
    let (_, outcome) = stand.start(RUN).await;
    assert_eq!(outcome.failure, None, "{}", outcome.full_log());

    assert_eq!(stand.prints(&["ls", "-R", "r:a", "-o", "name"]), "dir\ndir/x\n");
    let wide = stand.prints(&["ls", "r:a/dir/x", "-o", "wide"]);
    assert!(wide.starts_with("20") && wide.ends_with(" 4 dir/x\n") && wide.contains("Z -rw-r--r-- "), "{wide}");
    let json: Value = serde_json::from_str(&stand.prints(&["ls", "r:a/dir", "-o", "json"])).unwrap();
    assert_eq!(json["image"], format!("{}/forms:r-a", stand.registry.address));
    let file = &json["entries"][0];
    assert_eq!(
        [&file["path"], &file["type"], &file["mode"], &file["size"]],
        [&json!("dir/x"), &json!("file"), &json!("0644"), &json!(4)]
    );
    assert_eq!(parsed(&stand.prints(&["ls", "r:a/dir", "-o", "yaml"])), json);

    assert_eq!(stand.prints(&["diff", "r", "one", "two", "-o", "name"]), "dir/x\ny\n");
    let wide = stand.prints(&["diff", "r", "one", "two", "-w", "a", "-o", "wide"]);
    let lines: Vec<&str> = wide.lines().collect();
    assert!(lines[0] == "M dir/x" && lines[1].starts_with("  - 20") && lines[2].ends_with(" 4 dir/x"), "{wide}");
    let json: Value = serde_json::from_str(&stand.prints(&["diff", "r", "one", "two", "-o", "json"])).unwrap();
    let told =
        |index: usize| [&json["workspaces"][index]["workspace"], &json["workspaces"][index]["changes"][0]["change"]];
    assert_eq!([told(0), told(1)], [[&json!("a"), &json!("M")], [&json!("b"), &json!("D")]]);
    assert_eq!(json["workspaces"][1]["summary"]["deleted"], json!({"files": 1, "bytes": 2}));
    assert_eq!(parsed(&stand.prints(&["diff", "r", "one", "two", "-o", "yaml"])), json);
    assert_eq!(stand.prints(&["diff", "r", "two", "two", "-o", "name"]), "");
}
