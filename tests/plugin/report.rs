//! `report`: a page about a run that was really played, looked at in a real browser.

use std::{env, fs, path::Path};

use support::browser::Browser;

use crate::stand::Stand;

/// Parallel tasks that disagree about a file, one that deletes, one that leaves many files, one that fails.
const RUN: &str = r#"
apiVersion: tekton.dev/v1
kind: PipelineRun
metadata:
  name: build-x7k2p
  annotations:
    tekton-wrap.dev/wrap: sources
    tekton-wrap.dev/target: ${REGISTRY}/ci/shop:$(context.pipelineRun.name)
    tekton-wrap.dev/conflict: last
spec:
  pipelineSpec:
    workspaces: [{name: sources}]
    tasks:
    - name: clone
      workspaces: [{name: sources}]
      taskSpec:
        workspaces: [{name: sources}]
        steps:
        - name: clone
          image: sh
          script: |
            cd $(workspaces.sources.path)
            mkdir -p src/shop/cart src/shop/web docs tests
            head -c 9000 /dev/urandom > src/shop/cart/mod.rs; head -c 4000 /dev/urandom > src/shop/cart/prices.rs
            head -c 7000 /dev/urandom > src/shop/web/mod.rs; echo 'fn main() {}' > src/main.rs
            echo '# Shop' > docs/index.md; echo old > docs/old.md; echo test > tests/orders.rs; echo '[package]' > Cargo.toml
    - name: dependencies
      runAfter: [clone]
      workspaces: [{name: sources}]
      taskSpec:
        workspaces: [{name: sources}]
        steps:
        - name: fetch
          image: sh
          script: |
            cd $(workspaces.sources.path); mkdir vendor; cd vendor
            for name in alpha beta gamma delta; do mkdir $name; n=0
              while [ $n -lt 300 ]; do echo $name $n > $name/f$n.rs; n=$((n + 1)); done
            done
    - name: build
      runAfter: [dependencies]
      workspaces: [{name: sources}]
      taskSpec:
        workspaces: [{name: sources}]
        steps:
        - name: cargo
          image: sh
          script: |
            cd $(workspaces.sources.path); mkdir -p target/release
            head -c 3000000 /dev/urandom > target/release/shop; echo built > report.txt; echo '[lock]' > Cargo.lock
    - name: lint
      runAfter: [dependencies]
      workspaces: [{name: sources}]
      taskSpec:
        workspaces: [{name: sources}]
        steps: [{name: clippy, image: sh, script: "cd $(workspaces.sources.path); echo no warnings > report.txt; chmod 0755 src/main.rs"}]
    - name: docs
      runAfter: [clone]
      workspaces: [{name: sources}]
      taskSpec:
        workspaces: [{name: sources}]
        steps: [{name: book, image: sh, script: "cd $(workspaces.sources.path); rm docs/old.md; mkdir 'docs/<script>alert(1)<'; echo x > 'docs/<script>alert(1)</script>.html'"}]
    - name: test
      runAfter: [build, lint, docs]
      workspaces: [{name: sources}]
      taskSpec:
        workspaces: [{name: sources}]
        steps: [{name: nextest, image: sh, script: "cd $(workspaces.sources.path); mkdir reports; echo ok > reports/junit.xml; exit 101"}]
    - name: package
      runAfter: [test]
      workspaces: [{name: sources}]
      taskSpec:
        workspaces: [{name: sources}]
        steps: [{name: image, image: sh, script: "true"}]
    finally:
    - name: notify
      taskSpec:
        steps: [{name: say, image: sh, script: "echo done"}]
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_page_about_a_run() {
    let stand = Stand::new().await;
    let (_, outcome) = stand.start(RUN).await;
    assert!(outcome.failure.is_some(), "{}", outcome.full_log());
    assert_eq!(stand.prints(&["report", "build-x7k2p", "-o", "page.html"]), "page.html\n");
    let page = fs::read_to_string(stand.path("page.html")).unwrap();
    if let Some(folder) = env::var_os("SCREENSHOTS") {
        fs::write(Path::new(&folder).join("page.html"), &page).unwrap();
    }
    assert!(page.len() < 300_000, "{} bytes", page.len());
    for says in [
        "<span class=\"badge failed\">Failed</span>",
        // What the last task restored is what all tasks before it left.
        "<li><b>restored</b> 1211 files, 3.0 MB</li>",
        "<li class=\"added\"><b>added</b> 1200 files, 11.3 kB</li>",
        "<code>report.txt</code>: build changed it, <b>lint</b> changed it",
        "<li class=\"deleted\"><code>old.md</code> <span>deleted, 4 B</span></li>",
        "800 of them are listed here",
        "step &quot;nextest&quot; exited with code 101",
    ] {
        assert!(page.contains(says), "{says}\n{page}");
    }
    // Without a name it is that of the run; and a pipe is a place too.
    assert_eq!(stand.prints(&["report", "build-x7k2p"]), "build-x7k2p.html\n");
    assert!(stand.path("build-x7k2p.html").exists());
    assert!(stand.prints(&["report", "build-x7k2p", "-o", "-"]).starts_with("<!doctype html>"));
    assert!(stand.refuses(&["report", "build-x7k2p", "-o", "no/such/folder/page.html"]).contains("can't be written"));

    if let Some(browser) = Browser::start() {
        let file = stand.path("page.html");
        tokio::task::block_in_place(|| look(browser, &file));
    }
}

/// As its reader does: clicks a task, finds a file. Nothing may be asked for but the page itself.
fn look(mut browser: Browser, file: &Path) {
    browser.show_as(1400, 900, false);
    browser.open(file);
    let is_open = "document.querySelector('#t2 details.paths').open";
    browser.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = false; })");
    browser.click("a.node[href='#t2']");
    browser.wait_for(&format!("{is_open} && document.activeElement.id === 't2'"));
    assert_eq!(browser.evaluate("document.querySelector('#t2 h3').textContent.includes('build')"), true);

    browser.evaluate("document.activeElement.blur()");
    browser.press("/");
    browser.wait_for("document.activeElement.id === 'query'");
    browser.write("release shop");
    browser.wait_for("document.querySelectorAll('#results a').length === 1");
    assert_eq!(browser.evaluate("document.querySelector('#results code').textContent"), "target/release/shop");
    assert_eq!(
        browser.evaluate("document.getElementById('found').textContent"),
        "1 path; not every path is listed on this page"
    );
    browser.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = false; })");
    browser.click("#results a");
    browser.wait_for(
        "document.activeElement.textContent.includes('shop') && document.activeElement.getClientRects().length > 0",
    );

    // A name is text.
    browser.evaluate("document.getElementById('query').value = 'alert(1)'; document.getElementById('query').dispatchEvent(new Event('input'))");
    browser.wait_for("document.querySelector('#results code')?.textContent.includes('<script>alert(1)<')");

    // Nothing is wider than the window, but for what scrolls by itself.
    for (width, is_dark) in [(400, false), (400, true), (1400, false), (1400, true)] {
        browser.show_as(width, 900, is_dark);
        assert_eq!(browser.evaluate("document.documentElement.scrollWidth"), width, "at {width}");
        if let Some(folder) = env::var_os("SCREENSHOTS") {
            browser.evaluate("document.getElementById('query').value = ''; document.getElementById('query').dispatchEvent(new Event('input')); scrollTo(0, 0)");
            let name = format!("{width}-{}", if is_dark { "dark" } else { "light" });
            fs::write(Path::new(&folder).join(format!("{name}.png")), browser.screenshot(false)).unwrap();
            fs::write(Path::new(&folder).join(format!("{name}-whole.png")), browser.screenshot(true)).unwrap();
        }
    }
    let (asked, complaints) = browser.asked_for();
    assert_eq!(asked, [format!("file://{}", file.display())]);
    assert_eq!(complaints, Vec::<String>::new());

    // Without JavaScript everything can be read; what could do nothing is not there.
    browser.run_scripts(false);
    browser.open(file);
    browser.run_scripts(true);
    assert_eq!(browser.evaluate("document.getElementById('search').getClientRects().length"), 0);
    assert!(browser.evaluate("document.querySelectorAll('ul.tree li').length").as_u64().unwrap() > 200);
}
